"""Metrics of GCPO. Every process logs counts, and rates are computed from the sums of the counts.

Each process logs counts of its own traces. TRL logs the mean of each count over the processes and over the rollouts
since the last log entry. A ratio of such means is equal to the ratio of the sums, so a rate does not depend on how
the pairs are divided among the processes. A mean of per-process rates would depend on it, because the processes have
different numbers of parsed traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from editr1.data.types import Category, Principle, Verdict
from editr1.verifier.gcpo_rewards import PairRewards, Scores, pair_stats

LOG_PREFIX: Final = "gcpo/"
"""Prefix of the counts in a log entry of the trainer."""

_CATEGORY_NAMES: Final = {Category.FOLLOW: "follow", Category.KEEP: "keep", Category.QUALITY: "quality"}

_LOGGED_METRICS: Final = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
    "kl": "kl",
    "completions/mean_length": "trace_tokens",
    "completions/clipped_ratio": "truncated_rate",
    "log_ratio/mean": "log_ratio",
    "log_ratio/max": "log_ratio_max",
    "ratio/mean_distance": "ratio_distance",
    "clip_ratio/region_mean": "clip_fraction",
}


def gcpo_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """Select the metrics to report from a log entry of the trainer, and rename them.

    The result has the rates of :func:`rates` and these metrics of the optimisation:

    - ``loss``, ``learning_rate``, ``grad_norm``, ``entropy``, ``clip_fraction``, and ``kl`` if ``beta`` is not 0
    - ``trace_tokens``: mean length of a trace in tokens
    - ``truncated_rate``: fraction of traces that reached the length limit
    - ``log_ratio``, ``log_ratio_max``: mean and largest absolute value, over the tokens of the traces, of the logarithm of
      the likelihood ratio (see :class:`~editr1.verifier.gcpo.GcpoTrainer`)
    - ``ratio_distance``: mean of ``|likelihood ratio - 1|`` over the tokens of the traces
    """
    metrics = {name: float(logs[key]) for key, name in _LOGGED_METRICS.items() if logs.get(key) is not None}
    return metrics | rates(logged_counts(logs))


def logged_counts(logs: Mapping[str, Any]) -> dict[str, float]:
    """Return the counts in a log entry of the trainer: means per process and rollout. Empty if there was no rollout."""
    return {
        key.removeprefix(LOG_PREFIX): float(value)
        for key, value in logs.items()
        if key.startswith(LOG_PREFIX) and value is not None
    }


def pair_counts(
    pairs: Sequence[tuple[Scores, Scores, PairRewards]], lengths: Sequence[tuple[Sequence[int], Sequence[int]]]
) -> dict[str, float]:
    """Count traces and comparisons in a batch of pairs.

    Args:
        pairs: winner's scores, loser's scores and rewards of each pair.
        lengths: lengths, in tokens, of the winner's and of the loser's traces of each pair.

    Returns:
        Sums over the batch, always with the same keys: ``pairs``, ``pairs_without_signal``, ``traces``, ``parsed_winner``
        and ``parsed_loser`` (traces with a score), ``score_winner`` and ``score_loser`` (sums of scores), ``comparisons``,
        ``wins``, ``ties``, and ``weighted_advantage`` (sum of A / T, where A is the advantage of a trace and T its length).
    """
    stats = [pair_stats(*pair) for pair in pairs]
    won = [score for winner, _, _ in pairs for score in winner if score is not None]
    lost = [score for _, loser, _ in pairs for score in loser if score is not None]
    weighted = [
        advantage / max(length, 1)
        for (_, _, rewards), tokens in zip(pairs, lengths, strict=True)
        for advantages, side in zip(rewards.advantages, tokens, strict=True)
        for advantage, length in zip(advantages, side, strict=True)
    ]
    return {
        "pairs": float(len(stats)),
        "pairs_without_signal": float(sum(item.without_signal for item in stats)),
        "traces": float(sum(item.num_traces for item in stats)),
        "parsed_winner": float(len(won)),
        "parsed_loser": float(len(lost)),
        "score_winner": sum(won),
        "score_loser": sum(lost),
        "comparisons": float(sum(item.num_comparisons for item in stats)),
        "wins": float(sum(item.wins for item in stats)),
        "ties": float(sum(item.ties for item in stats)),
        "weighted_advantage": sum(weighted),
    }


def answer_counts(verdicts: Sequence[Any], principles: Sequence[Sequence[Principle]]) -> dict[str, float]:
    """Count the answers of the parsed traces, and those that are 1 (yes), per category of the principles."""
    counts = {f"{kind}_{name}": 0.0 for name in _CATEGORY_NAMES.values() for kind in ("answers", "positive")}
    for verdict, expected in zip(verdicts, principles, strict=True):
        if isinstance(verdict, Verdict):
            for answer, principle in zip(verdict.scores, expected, strict=True):
                name = _CATEGORY_NAMES[principle.category]
                counts[f"answers_{name}"] += 1
                counts[f"positive_{name}"] += answer
    return counts


def rates(counts: Mapping[str, float]) -> dict[str, float]:
    """Compute rates from the sums of counts. A rate whose denominator is 0 is omitted.

    - ``pair_win_rate``, ``pair_tie_rate`` and ``pair_half_credit`` (wins + ties / 2): fractions of the comparisons between
      parsed traces
    - ``parse_rate``: fraction of all traces that could be parsed
    - ``no_signal_rate``: fraction of pairs that do not contribute to the gradient
    - ``score_mean``: mean score of the parsed traces
    - ``score_gap``: mean score of winners minus mean score of losers
    - ``weighted_advantage``: mean of A / T over the traces, the paper's "weighted advantage". A negative value means that
      traces with positive advantages are longer than the others.
    - ``positive_rate_<category>``: fraction of the answers that are 1 (yes), per category of the principles
    """

    def of(name: str) -> float:
        return counts.get(name, 0.0)

    parsed = of("parsed_winner") + of("parsed_loser")
    fractions = {
        "parse_rate": (parsed, of("traces")),
        "no_signal_rate": (of("pairs_without_signal"), of("pairs")),
        "pair_win_rate": (of("wins"), of("comparisons")),
        "pair_tie_rate": (of("ties"), of("comparisons")),
        "pair_half_credit": (of("wins") + of("ties") / 2, of("comparisons")),
        "score_mean": (of("score_winner") + of("score_loser"), parsed),
        "weighted_advantage": (of("weighted_advantage"), of("traces")),
    } | {f"positive_rate_{name}": (of(f"positive_{name}"), of(f"answers_{name}")) for name in _CATEGORY_NAMES.values()}
    metrics = {name: part / whole for name, (part, whole) in fractions.items() if whole}
    if of("parsed_winner") and of("parsed_loser"):
        metrics["score_gap"] = of("score_winner") / of("parsed_winner") - of("score_loser") / of("parsed_loser")
    return metrics
