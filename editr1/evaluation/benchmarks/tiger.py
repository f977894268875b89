"""TIGER's EditReward-Bench (arXiv 2509.26346): human rankings of 2, 3 or 4 edits of one case.

The K edits of one case form a group. Each row is a comparison of two edits of a group, with the columns ``id``,
``dataset`` ("2pair", "3pair" or "4pair", which determines K), ``instruction``, ``source_image``, ``candidate_1``,
``candidate_2``, ``comparison_type`` (such as "AvsB") and ``ranking`` (such as "B>A" or "A=B"). At K = 2, the ``id``
identifies the group. At K = 3 and 4, the part of the ``id`` before the first "_" identifies the group.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from editr1.evaluation.benchmarks.edit_scorer import BenchmarkEdit, EditScorer
from editr1.evaluation.benchmarks.rows import BenchmarkError, Row, image_field, instruction_field, read_rows, text_field
from editr1.evaluation.metrics import (
    DEFAULT,
    Bootstrap,
    Estimate,
    Floats,
    macro_mean,
    mean_estimate,
    pair_credit,
)
from editr1.evaluation.report.model import BenchmarkRow, BenchmarkTable
from editr1.evaluation.resampling import first_distinct

_COLUMNS = ("id", "dataset", "instruction", "source_image", "candidate_1", "candidate_2", "ranking", "comparison_type")
_KINDS = {"2pair": 2, "3pair": 3, "4pair": 4}
_LETTERS = "ABCD"


@dataclass
class TigerGroup:
    """The ``k`` edits of one case, by letter, and the human comparisons of each pair of these edits.

    ``human[(a, b)]`` with a < b is 1 if edit a is better than edit b, -1 if edit a is worse, and 0 for a tie.
    """

    group_id: str
    k: int
    instruction: str
    source: bytes
    edits: dict[str, bytes] = field(default_factory=dict)
    human: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def letters(self) -> str:
        """The letters of the edits in the group: "AB", "ABC" or "ABCD"."""
        return _LETTERS[: self.k]


def load_tiger(path: Path) -> list[TigerGroup]:
    """Load the groups of edits. ``path`` is a local folder or a Parquet file.

    The groups are in the order in which they first occur in the files.

    Raises:
        BenchmarkError: The files do not have the published layout, a comparison of a group is missing or occurs twice,
            a group of 3 or 4 edits has a tie, or a ranking does not rank the two edits of its row.
    """
    groups: dict[tuple[int, str], TigerGroup] = {}
    for row in read_rows(path, _COLUMNS):
        kind = text_field(row, "dataset")
        if kind not in _KINDS:
            raise BenchmarkError(f"{row.where}: dataset must be one of {', '.join(_KINDS)}, got {kind!r}")
        k, name = _KINDS[kind], text_field(row, "id")
        first, second = _letters(row, k)
        group_id = name if k == 2 else name.split("_")[0]
        group = groups.setdefault(
            (k, group_id), TigerGroup(group_id, k, instruction_field(row), image_field(row, "source_image"))
        )
        group.edits[first] = image_field(row, "candidate_1")
        group.edits[second] = image_field(row, "candidate_2")
        preference = _preference(row, first, second)
        low, high = sorted((first, second))
        if (low, high) in group.human:
            raise BenchmarkError(
                f"{row.where}: edits {low} and {high} of group {group_id} are compared twice; remove one of the rows"
            )
        group.human[(low, high)] = preference if (low, high) == (first, second) else -preference
    for group in groups.values():
        expected = group.k * (group.k - 1) // 2
        if len(group.human) != expected:
            raise BenchmarkError(
                f"{path}: group {group.group_id} of {group.k} edits has only {len(group.human)} of {expected} comparisons; "
                "download the benchmark again"
            )
        if group.k > 2 and 0 in group.human.values():
            raise BenchmarkError(
                f"{path}: group {group.group_id} of {group.k} edits has a tie, but rankings of 3 or 4 edits have no "
                "ties; download the benchmark again"
            )
    return list(groups.values())


def score_tiger(groups: Iterable[TigerGroup], score: EditScorer) -> list[dict[str, float | None]]:
    """Score the edits of each group with one call of ``score``.

    Return one mapping per group, from the letter of an edit to its score.
    """
    found = []
    for group in groups:
        edits = [BenchmarkEdit(group.source, group.edits[letter], group.instruction) for letter in group.letters]
        found.append(dict(zip(group.letters, score(edits), strict=True)))
    return found


def tuned_epsilon(human: Floats, gaps: Floats) -> tuple[float, float]:
    """Return the tie threshold (epsilon) that gives the best accuracy on the given pairs, and this accuracy.

    The authors' script tunes epsilon in the same way, and evaluates on the same pairs.

    The gap of a pair is the score of edit A minus the score of edit B. A pair is correct if people labelled it as a tie
    and |gap| <= epsilon, or if they preferred one edit and its score is higher by more than epsilon. The candidates for
    epsilon are 0 and every |gap|. If several candidates are equally good, the smallest one is returned.

    Args:
        human: Human labels, ``[n]``: 1 (A is better), 0 (tie) or -1 (B is better).
        gaps: Gap of each pair, ``[n]``.
    """
    candidates = np.unique(np.concatenate([[0.0], np.abs(gaps)]))
    accuracy = np.array([_tie_credit(human, gaps, epsilon).mean() for epsilon in candidates])
    best = int(accuracy.argmax())
    return float(candidates[best]), float(accuracy[best])


def tiger_table(
    groups: Sequence[TigerGroup],
    scores: Sequence[Mapping[str, float | None]],
    *,
    epsilon: float | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> BenchmarkTable:
    """Return the accuracy on groups of K = 2, 3 and 4 edits, over all groups, and on pairs of edits.

    At K = 2, two edits count as tied if their scores differ by at most epsilon. At K = 3 and 4, a group is correct if
    the scores give the complete human ranking.

    The published rule (EditReward/evaluate/eval_bench.py) tunes epsilon on the benchmark itself. In the row "overall",
    it uses epsilon only for pairs that people labelled as ties, and ranks all other pairs without it. If two edits have
    equal scores, the one with the later letter is ranked higher. A group with a missing score counts as wrong.

    Our rule uses the argument ``epsilon``. If it is None, the pairs are split in half by the digests of their ids,
    and each half uses the epsilon that was tuned on the other half. At K = 3 and 4, a group with equal scores counts
    as wrong. A group with a missing score is excluded and counted, except in the rows "failed as wrong", where it
    counts as wrong. A row has no value if each of its groups has a missing score.

    Groups of edits of one source image are resampled together.
    """
    sources = first_distinct(
        [hashlib.sha256(group.source).hexdigest() for group in groups], [f"{g.k} {g.group_id}" for g in groups]
    )
    complete = [
        all(score.get(letter) is not None for letter in group.letters)
        for group, score in zip(groups, scores, strict=True)
    ]
    credits = [_credits(k, groups, scores, complete, epsilon, sources) for k in (2, 3, 4)]
    rows = [
        BenchmarkRow(
            name=f"K = {credit.k}",
            published=_mean_or_none(credit.published, bootstrap, credit.sources),
            ours=_mean_or_none(credit.ours, bootstrap, credit.sources),
        )
        for credit in credits
    ]
    all_sources = [name for credit in credits for name in credit.sources]
    scored_sources = [name for credit in credits for name in credit.sources[: len(credit.ours)]]
    rows.append(
        BenchmarkRow(
            name="overall, weighted by groups",
            published=_mean_or_none(
                [v for credit in credits for v in credit.published_overall], bootstrap, all_sources
            ),
            ours=_mean_or_none([v for credit in credits for v in credit.ours], bootstrap, scored_sources),
        )
    )
    with_failed = [v for credit in credits for v in [*credit.ours, *[0.0] * (len(credit.sources) - len(credit.ours))]]
    rows.append(
        BenchmarkRow(
            name="overall, weighted by groups, failed as wrong",
            ours=_mean_or_none(with_failed if any(complete) else [], bootstrap, all_sources),
        )
    )
    rows += _pair_rows(groups, scores, complete, sources, bootstrap)
    return BenchmarkTable(
        name="TIGER's EditReward-Bench",
        rows=tuple(rows),
        scale=100.0,
        unit="%",
        missing=complete.count(False),
        notes=tuple(credit.note for credit in credits if credit.note),
    )


class _Credits(NamedTuple):
    """Credit per group of ``k`` edits under each rule: 1 if the scores agree with the human ranking, otherwise 0.

    Groups in which every edit has a score come first, and ``ours`` contains only these groups. ``sources`` identifies
    the source image of each group. ``published_overall`` is the credit that the published rule gives in the row
    "overall", where K = 2 is scored differently.
    """

    k: int
    published: list[float]
    published_overall: list[float]
    ours: list[float]
    sources: list[str]
    note: str = ""


def _credits(
    k: int,
    groups: Sequence[TigerGroup],
    scores: Sequence[Mapping[str, float | None]],
    complete: Sequence[bool],
    epsilon: float | None,
    sources: Sequence[str],
) -> _Credits:
    of_k = [(name, ok) for g, name, ok in zip(groups, sources, complete, strict=True) if g.k == k]
    ordered = [name for name, ok in of_k if ok] + [name for name, ok in of_k if not ok]
    scored = [(g, s) for g, s, ok in zip(groups, scores, complete, strict=True) if g.k == k and ok]
    incomplete = [0.0] * sum(g.k == k and not ok for g, ok in zip(groups, complete, strict=True))
    if not scored:
        # Groups of this size have no row of their own, but each group counts as wrong in the row "overall".
        return _Credits(k, [], incomplete if any(complete) else [], [], ordered)
    ranked = [float(_order(s, g.letters) == _human_order(g)) for g, s in scored]
    if k > 2:
        ours = [float(_has_no_ties(s, g) and credit == 1.0) for (g, s), credit in zip(scored, ranked, strict=True)]
        return _Credits(k, ranked + incomplete, ranked + incomplete, ours, ordered)
    human = np.array([float(g.human[("A", "B")]) for g, _ in scored])
    gaps = np.array([_number(s, "A") - _number(s, "B") for _, s in scored])
    tuned, _ = tuned_epsilon(human, gaps)
    published = list(_tie_credit(human, gaps, tuned))
    overall = list(np.where(human == 0, published, ranked))
    ours, used = _held_out_credit(human, gaps, [g.group_id for g, _ in scored], epsilon)
    note = (
        f"Tie threshold (epsilon) at K = 2: the published rule uses {tuned:g}, tuned on the benchmark itself. "
        f"Our rule uses {used}."
    )
    return _Credits(k, published + incomplete, overall + incomplete, ours, ordered, note)


def _mean_or_none(values: Sequence[float], bootstrap: Bootstrap, sources: Sequence[str]) -> Estimate | None:
    return mean_estimate(values, bootstrap, sources[: len(values)]) if values else None


def _tie_credit(human: Floats, gaps: Floats, epsilon: float) -> Floats:
    tie = np.abs(gaps) <= epsilon
    return np.where(human == 0, tie, ~tie & (human * gaps > 0)).astype(np.float64)


def _held_out_credit(human: Floats, gaps: Floats, ids: Sequence[str], epsilon: float | None) -> tuple[list[float], str]:
    """Return the credit per pair under our rule, and a description of the epsilon that was used.

    If ``epsilon`` is None, it is tuned on one half of the pairs and used for the other half, and vice versa.
    """
    if epsilon is not None:
        return list(_tie_credit(human, gaps, epsilon)), f"{epsilon:g}, set in advance"
    first = np.array([hashlib.sha256(name.encode()).digest()[0] % 2 == 0 for name in ids])
    if first.all() or not first.any():
        return list(_tie_credit(human, gaps, 0.0)), "0, because there are too few pairs to tune it"
    credit = np.empty(len(ids))
    used = []
    for half in (first, ~first):
        other, _ = tuned_epsilon(human[~half], gaps[~half])
        credit[half] = _tie_credit(human[half], gaps[half], other)
        used.append(other)
    return list(credit), f"{used[0]:g} and {used[1]:g}, each tuned on the other half of the pairs"


def _pair_rows(
    groups: Sequence[TigerGroup],
    scores: Sequence[Mapping[str, float | None]],
    complete: Sequence[bool],
    sources: Sequence[str],
    bootstrap: Bootstrap,
) -> list[BenchmarkRow]:
    won: list[float] = []
    lost: list[float] = []
    kinds: list[str] = []
    names: list[str] = []
    failed: list[str] = []
    for group, score, ok, source in zip(groups, scores, complete, sources, strict=True):
        for (a, b), preference in group.human.items():
            if preference and not ok:
                failed.append(source)
            if ok and preference:
                better, worse = (a, b) if preference > 0 else (b, a)
                won.append(_number(score, better))
                lost.append(_number(score, worse))
                kinds.append(str(group.k))
                names.append(source)
    if not won:
        return [BenchmarkRow(name="all pairs with a preference")]
    strict, half = pair_credit(won, lost, "strict"), pair_credit(won, lost, "half_credit")
    with_failed = np.concatenate([strict, np.zeros(len(failed))])
    return [
        BenchmarkRow(name="all pairs with a preference, strict", ours=mean_estimate(strict, bootstrap, names)),
        BenchmarkRow(
            name="all pairs with a preference, failed as wrong",
            ours=mean_estimate(with_failed, bootstrap, [*names, *failed]),
        ),
        BenchmarkRow(name="all pairs with a preference, half credit", ours=mean_estimate(half, bootstrap, names)),
        BenchmarkRow(
            name="pairs with a preference, half credit, mean over K", ours=macro_mean(half, kinds, bootstrap, names)
        ),
    ]


def _number(score: Mapping[str, float | None], letter: str) -> float:
    value = score[letter]
    assert value is not None
    return value


def _order(score: Mapping[str, float | None], letters: str) -> str:
    rising = np.argsort([_number(score, letter) for letter in letters], kind="stable")
    return "".join(letters[i] for i in rising[::-1])


def _has_no_ties(score: Mapping[str, float | None], group: TigerGroup) -> bool:
    return len({_number(score, letter) for letter in group.letters}) == group.k


def _human_order(group: TigerGroup) -> str:
    """Return the letters of the edits in human order, best first, or "cycle" if the comparisons are cyclic.

    The edits are sorted by the number of comparisons that they win. "cycle" differs from every ranking, so a group with
    cyclic comparisons counts as wrong.
    """
    wins = dict.fromkeys(group.letters, 0)
    for (a, b), preference in group.human.items():
        wins[a if preference > 0 else b] += 1
    if len(set(wins.values())) != group.k:
        return "cycle"
    return "".join(sorted(group.letters, key=lambda letter: -wins[letter]))


def _letters(row: Row, k: int) -> tuple[str, str]:
    value = text_field(row, "comparison_type")
    match = re.fullmatch(r"([A-D])\s*vs\s*([A-D])", value)
    if match is None or match[1] == match[2] or not {match[1], match[2]} <= set(_LETTERS[:k]):
        raise BenchmarkError(
            f"{row.where}: comparison_type must name two different edits of {_LETTERS[:k]}, such as 'AvsB', got {value!r}"
        )
    return match[1], match[2]


def _preference(row: Row, first: str, second: str) -> int:
    """Return the human preference in a row: 1 if edit ``first`` is better, -1 if ``second`` is better, and 0 for a tie.

    A tie is written as "A=B", "A=B=Good" or "A=B=Bad".
    """
    value = text_field(row, "ranking").replace(" ", "")
    match = re.fullmatch(r"([A-D])([<>=])([A-D])(=Good|=Bad)?", value)
    if match is None or {match[1], match[3]} != {first, second} or (match[4] and match[2] != "="):
        raise BenchmarkError(
            f"{row.where}: ranking must rank edits {first} and {second}, such as '{first}>{second}', got {value!r:.40}"
        )
    if match[2] == "=":
        return 0
    better = match[1] if match[2] == ">" else match[3]
    return 1 if better == first else -1
