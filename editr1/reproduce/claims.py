"""The claims of the paper.

Each claim is a list of comparisons of two experiments, and a rule decides whether a comparison holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Literal

from editr1.config.reproduce import Budget
from editr1.evaluation.metrics import Estimate
from editr1.reproduce.experiments import editor_name, sampled_name
from editr1.reproduce.metrics import Measure


class Outcome(StrEnum):
    """Outcome of a comparison, as displayed in the report."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "undecided"
    MISSING = "not measured"


@dataclass(frozen=True)
class Comparison:
    """A comparison of two experiments, which is one part of a claim.

    A comparison of kind "gain" holds if ``first`` is better than ``second`` by at least ``least``. A comparison of
    kind "control" holds if ``first`` is not better than ``second``: the confidence interval of the difference must
    end below ``most``. :func:`outcome` defines the exact rules. Both limits are values of the metric before it is
    multiplied by ``scale`` for display. ``paper`` is the result that the paper reports.
    """

    claim: int
    text: str
    first: Measure
    second: Measure
    paper: str = ""
    kind: Literal["gain", "control"] = "gain"
    least: float = 0.0
    most: float = 0.0

    @property
    def experiments(self) -> tuple[str, ...]:
        """Names of the two experiments that are compared."""
        return self.first.experiment, self.second.experiment

    @property
    def unit(self) -> str:
        """Unit of the metric as it is displayed."""
        if self.first.metric == "score":
            return "of 10"
        return "%" if self.first.metric == "better" else "points"

    @property
    def scale(self) -> float:
        """Factor by which the metric is multiplied for display."""
        return 1.0 if self.first.metric == "score" else 100.0


def outcome(comparison: Comparison, found: Estimate | None) -> Outcome:
    """Return the outcome of a comparison. ``found`` is the measured difference with its confidence interval, if it was measured.

    A comparison of kind "gain" claims a difference of at least ``least``:

    - It holds if the whole interval is above 0 and the difference is at least ``least``.
    - It does not hold if the whole interval is below 0 or below ``least``.

    A comparison of kind "control" claims that there is no difference of ``most`` or more:

    - It does not hold if the whole interval is above 0.
    - Otherwise, it holds if the whole interval is below ``most``.

    In all other cases, the comparison is undecided.
    """
    if found is None:
        return Outcome.MISSING
    if comparison.kind == "control":
        if found.low > 0:
            return Outcome.FAILS
        return Outcome.HOLDS if found.high < comparison.most else Outcome.OPEN
    if found.low > 0 and found.value >= comparison.least:
        return Outcome.HOLDS
    if found.high < 0 or found.high < comparison.least:
        return Outcome.FAILS
    return Outcome.OPEN


CLAIM_TITLES = {
    1: "Verified traces are better than unverified traces; reasoning is better than bare verdicts and holistic ratings",
    2: "GCPO on few human preferences is better than SFT alone",
    3: "The larger verifier is better",
    4: "Averaging the scores of several traces is better than one trace",
    5: "An editor trained with the better verifier as reward is better",
    6: "Edits after RL are preferred to edits before RL",
}
CLAIM_NAMES = {1: "curation", 2: "gcpo", 3: "size", 4: "traces", 5: "editor", 6: "gsb"}
"""Name of each claim for the option ``--only``."""

_credit = partial(Measure, metric="half_credit")
_editor_score = partial(Measure, metric="score")


def make_comparisons(budget: Budget) -> list[Comparison]:
    """Return every comparison of every claim, in the order of the claims."""
    return [
        *_curation_claim(),
        *_gcpo_claim(budget),
        *_size_claim(),
        *_averaging_claim(budget),
        *_editor_claim(budget),
        *_preference_claim(),
    ]


def select_claims(comparisons: Iterable[Comparison], only: Iterable[str]) -> list[Comparison]:
    """Return the comparisons of the claims in ``only`` (see :data:`CLAIM_NAMES`), or all comparisons if it is empty.

    Raises:
        ValueError: A name in ``only`` is not the name of a claim.
    """
    numbers = {name: number for number, name in CLAIM_NAMES.items()}
    wanted = list(only)
    if unknown := [name for name in wanted if name not in numbers]:
        raise ValueError(f"there is no claim {unknown[0]!r}; choose from: {', '.join(numbers)}")
    return [item for item in comparisons if not wanted or item.claim in {numbers[name] for name in wanted}]


def experiment_names(comparisons: Iterable[Comparison]) -> list[str]:
    """Return the names of the experiments that occur in ``comparisons``, sorted and without duplicates."""
    return sorted({name for comparison in comparisons for name in comparison.experiments})


def _curation_claim() -> list[Comparison]:
    tv, v = _credit("tv"), _credit("v")
    return [
        Comparison(1, "verified reasoning (T+V) over bare verdicts (V)", tv, v, "+4.5 points (7B)"),
        Comparison(1, "bare verdicts (V) over unverified reasoning (T)", v, _credit("t"), "+2.0 points (7B)"),
        Comparison(1, "verified reasoning (T+V) over holistic ratings", tv, _credit("holistic")),
    ]


def _gcpo_claim(budget: Budget) -> list[Comparison]:
    most_traces = budget.averaged[-1]
    averaged = sampled_name(most_traces)
    return [
        *_over_sft("gcpo", "GCPO", "+6.8 points (7B), +2.7 (3B)"),
        *_over_sft("gcpo-half", "GCPO with tie credit 0.5"),
        Comparison(
            2,
            f"GCPO over SFT, scores averaged over {most_traces} traces",
            _credit(averaged, role="rl"),
            _credit(averaged, role="sft"),
        ),
        *(
            Comparison(2, f"GCPO on {n} pairs over SFT", _credit(f"gcpo-{n}"), _credit("tv"))
            for n in sorted(budget.few_pairs)
        ),
    ]


def _over_sft(experiment: str, title: str, paper: str = "") -> list[Comparison]:
    """Return the comparisons of claim 2 for one GCPO experiment. ``title`` describes the experiment."""
    rl, shuffled, sft = _credit(experiment), _credit(f"{experiment}-shuffled"), _credit("tv")
    return [
        Comparison(2, f"{title} over SFT by at least 5 points", rl, sft, paper, least=0.05),
        Comparison(2, f"{title} over SFT, strict accuracy", Measure(experiment, "strict"), Measure("tv", "strict")),
        Comparison(2, f"{title} over longer SFT", rl, _credit("longer")),
        Comparison(2, f"{title} over SFT on best-of-n traces", rl, _credit("picked")),
        Comparison(2, f"{title} over the same training on shuffled labels", rl, shuffled),
        Comparison(2, f"{title} on shuffled labels does not improve on SFT", shuffled, sft, kind="control", most=0.025),
    ]


def _size_claim() -> list[Comparison]:
    return [
        Comparison(
            3, "larger over smaller model after SFT", _credit("tv"), _credit("small-tv"), "+6.1 points (7B over 3B)"
        ),
        Comparison(
            3,
            "larger over smaller model after GCPO",
            _credit("gcpo"),
            _credit("small-gcpo"),
            "+10.2 points (7B over 3B)",
        ),
    ]


def _averaging_claim(budget: Budget) -> list[Comparison]:
    many = budget.averaged[1:]
    return [
        *(
            Comparison(
                4,
                f"{title}: {n} sampled traces over {one}",
                _credit(sampled_name(n), role=role),
                _credit(experiment, role=role),
            )
            for role, title in (("sft", "SFT-RRM"), ("rl", "RL-RRM"))
            for one, experiment in (("1 sampled trace", sampled_name(1)), ("1 greedy trace", "traces-1"))
            for n in many
        ),
        Comparison(
            4,
            f"RL-RRM with 1 greedy trace over SFT-RRM with {many[0]} sampled traces",
            _credit("traces-1", role="rl"),
            _credit(sampled_name(many[0]), role="sft"),
        ),
    ]


def _editor_claim(budget: Budget) -> list[Comparison]:
    controls = budget.control_iterations

    def over_before(experiment: str, text: str, paper: str = "", least: float = 0.0) -> Comparison:
        after, before = _editor_score(experiment, role="after"), _editor_score(experiment, role="before")
        return Comparison(5, text, after, before, paper, least=least)

    return [
        over_before(
            "editor-rl",
            "editor after RL with the RL-RRM over the editor before RL by at least 1.5",
            "5.77 to 6.24 (GEdit-Bench, 7B)",
            1.5,
        ),
        over_before(
            "editor-sft", "editor after RL with the SFT-RRM over the editor before RL", "5.77 to 6.20 (GEdit-Bench, 7B)"
        ),
        Comparison(
            5,
            "editor after RL with the RL-RRM over the editor after RL with the SFT-RRM",
            _editor_score("editor-rl", role="after"),
            _editor_score("editor-sft", role="after"),
            "+0.04 (GEdit-Bench, 7B)",
        ),
        *(
            over_before(
                editor_name(verifier, n, budget),
                f"editor after {n} iterations with the {title} over the editor before RL",
            )
            for verifier, title in (("rl", "RL-RRM"), ("sft", "SFT-RRM"))
            for n in sorted(budget.editor_curve)
        ),
        Comparison(
            5,
            f"editor does not improve in {controls} iterations with shuffled rewards",
            _editor_score("editor-shuffled", role="after"),
            _editor_score("editor-shuffled", role="before"),
            kind="control",
            most=0.5,
        ),
        over_before("editor-kl", f"editor after {controls} iterations with a KL term over the editor before RL"),
    ]


def _preference_claim() -> list[Comparison]:
    return [
        Comparison(
            6,
            "GSB of the edits after RL against the edits before RL",
            Measure("editor-rl", "better", "after"),
            Measure("editor-rl", "better", "before"),
            "+23.2 % (by people)",
        )
    ]
