"""What the paper claims, and the contrast of cells that decides each part of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from editr1.config.reproduce import Budget
from editr1.evaluation.metrics import Estimate
from editr1.reproduce.experiments import editor_name, sampled_name
from editr1.reproduce.measures import Measure


class Outcome(StrEnum):
    """What the figures say of a claim."""

    HOLDS = "holds"
    FAILS = "does not hold"
    OPEN = "undecided"
    MISSING = "not measured"


@dataclass(frozen=True)
class Comparison:
    """A part of a claim: ``first`` above ``second`` by at least ``least`` (in the figure's unit), or no gain at all.

    ``kind`` "gain": the difference is above 0 with its whole interval, and at least ``least``. "control": nothing may be
    gained, and so little uncertain that ``most`` is excluded. ``paper`` is what the paper reports.
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
    def cells(self) -> tuple[str, ...]:
        """Cells that must have been run."""
        return self.first.cell, self.second.cell

    @property
    def unit(self) -> str:
        """Of the figure as it is shown."""
        if self.first.figure == "score":
            return "of 10"
        return "%" if self.first.figure == "better" else "points"

    @property
    def scale(self) -> float:
        """Factor from the figure to what is shown."""
        return 1.0 if self.first.figure == "score" else 100.0


def outcome(contrast: Comparison, found: Estimate | None) -> Outcome:
    """Whether the claim's part holds by the difference ``found``.

    A gain holds when the interval lies above 0 and the value reaches ``least``; it does not hold when the interval lies
    below 0, or wholly below ``least``; else it is undecided. A control holds when the interval reaches neither above
    ``most`` nor lies above 0, and does not hold when it lies above 0.
    """
    if found is None:
        return Outcome.MISSING
    if contrast.kind == "control":
        if found.low > 0:
            return Outcome.FAILS
        return Outcome.HOLDS if found.high < contrast.most else Outcome.OPEN
    if found.low > 0 and found.value >= contrast.least:
        return Outcome.HOLDS
    if found.high < 0 or found.high < contrast.least:
        return Outcome.FAILS
    return Outcome.OPEN


TITLES = {
    1: "Verified traces beat unverified ones; reasoning beats bare verdicts and holistic marks",
    2: "GCPO on few human preferences beats SFT alone",
    3: "The larger model is better",
    4: "Averaging traces helps",
    5: "An editor trained on the better verifier is better",
    6: "The editor is preferred after RL",
}
NAMES = {1: "curation", 2: "gcpo", 3: "size", 4: "traces", 5: "editor", 6: "gsb"}
"""Names for ``--only``."""


def make_contrasts(budget: Budget) -> list[Comparison]:
    """Every part of every claim."""
    tv, rl = Measure("tv", "half_credit"), Measure("gcpo", "half_credit")
    many = budget.averaged[1:]
    after = Measure("editor-rl", "score", "after")
    before = Measure("editor-rl", "score", "before")
    found = [
        Comparison(1, "T+V over V", tv, Measure("v", "half_credit"), "+4.5 points (7B)"),
        Comparison(1, "V over T", Measure("v", "half_credit"), Measure("t", "half_credit"), "+2.0 points (7B)"),
        Comparison(1, "T+V over holistic marks", tv, Measure("holistic", "half_credit")),
        *_over_sft("gcpo", "GCPO", "+6.8 points (7B), +2.7 (3B)"),
        *_over_sft("gcpo-half", "GCPO with half a win for a tie"),
        Comparison(
            2,
            f"GCPO over SFT where {many[-1]} traces are averaged, so that ties are rare",
            Measure(sampled_name(many[-1]), "half_credit", "rl"),
            Measure(sampled_name(many[-1]), "half_credit", "sft"),
        ),
        *(
            Comparison(2, f"GCPO on {n} pairs over SFT", Measure(f"gcpo-{n}", "half_credit"), tv)
            for n in sorted(budget.few_pairs)
        ),
        Comparison(
            3, "larger over smaller after SFT", tv, Measure("small-tv", "half_credit"), "+6.1 points (7B over 3B)"
        ),
        Comparison(
            3, "larger over smaller after GCPO", rl, Measure("small-gcpo", "half_credit"), "+10.2 points (7B over 3B)"
        ),
        *(
            Comparison(
                4,
                f"{title}: {n} traces over {one}",
                Measure(sampled_name(n), "half_credit", role),
                Measure(cell, "half_credit", role),
            )
            for role, title in (("sft", "SFT-RRM"), ("rl", "RL-RRM"))
            for one, cell in (("1 sampled trace", sampled_name(1)), ("1 greedy trace", "traces-1"))
            for n in many
        ),
        Comparison(
            4,
            f"RL-RRM at 1 greedy trace over SFT-RRM at {many[0]} traces",
            Measure("traces-1", "half_credit", "rl"),
            Measure(sampled_name(many[0]), "half_credit", "sft"),
        ),
        Comparison(
            5,
            "after RL on the RL-RRM over before, by 1.5 or more",
            after,
            before,
            "5.77 to 6.24 (GEdit-Bench, 7B)",
            least=1.5,
        ),
        Comparison(
            5,
            "after RL on the SFT-RRM over before",
            Measure("editor-sft", "score", "after"),
            Measure("editor-sft", "score", "before"),
            "5.77 to 6.20 (GEdit-Bench, 7B)",
        ),
        Comparison(
            5,
            "RL on the RL-RRM over RL on the SFT-RRM",
            after,
            Measure("editor-sft", "score", "after"),
            "+.04 (GEdit-Bench, 7B)",
        ),
        *(
            Comparison(
                5,
                f"{n} iterations on the {title} over before",
                Measure(editor_name(verifier, n, budget), "score", "after"),
                Measure(editor_name(verifier, n, budget), "score", "before"),
            )
            for verifier, title in (("rl", "RL-RRM"), ("sft", "SFT-RRM"))
            for n in sorted(budget.editor_curve)
        ),
        Comparison(
            5,
            f"{budget.control_iterations} iterations on shuffled rewards gain nothing",
            Measure("editor-shuffled", "score", "after"),
            Measure("editor-shuffled", "score", "before"),
            kind="control",
            most=0.5,
        ),
        Comparison(
            5,
            f"{budget.control_iterations} iterations with a KL term over before",
            Measure("editor-kl", "score", "after"),
            Measure("editor-kl", "score", "before"),
        ),
        Comparison(
            6,
            "edits after RL better than before, less those worse",
            Measure("editor-rl", "better", "after"),
            Measure("editor-rl", "better", "before"),
            "+23.2 % (by people)",
        ),
    ]
    return found


def _over_sft(cell: str, title: str, paper: str = "") -> list[Comparison]:
    """What claim 2 asks of one way to reward ties."""
    rl, shuffled = Measure(cell, "half_credit"), Measure(f"{cell}-shuffled", "half_credit")
    return [
        Comparison(
            2,
            f"{title} over SFT by 5 points or more, ties count half",
            rl,
            Measure("tv", "half_credit"),
            paper,
            least=0.05,
        ),
        Comparison(2, f"{title} over SFT, strictly right", Measure(cell, "strict"), Measure("tv", "strict")),
        Comparison(2, f"{title} over longer SFT", rl, Measure("longer", "half_credit")),
        Comparison(2, f"{title} over SFT on traces that the pairs picked", rl, Measure("picked", "half_credit")),
        Comparison(2, f"{title} over the same on shuffled labels", rl, shuffled),
        Comparison(
            2,
            f"{title} on shuffled labels gains nothing",
            shuffled,
            Measure("tv", "half_credit"),
            kind="control",
            most=0.025,
        ),
    ]


def chosen(contrasts: Iterable[Comparison], only: Iterable[str]) -> list[Comparison]:
    """Those of the claims named in ``only`` (see :data:`NAMES`); all where nothing is named. Raises ValueError."""
    numbers = {name: number for number, name in NAMES.items()}
    wanted = list(only)
    if unknown := [name for name in wanted if name not in numbers]:
        raise ValueError(f"no claim {unknown[0]!r}; there are: {', '.join(numbers)}")
    return [item for item in contrasts if not wanted or item.claim in {numbers[name] for name in wanted}]


def cell_names(contrasts: Iterable[Comparison]) -> list[str]:
    """Cells that ``contrasts`` compare, each once."""
    return sorted({name for contrast in contrasts for name in contrast.cells})
