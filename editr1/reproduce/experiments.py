"""The cells of a reproduction: small runs that build on each other, each with its record. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from editr1.config.reproduce import Budget
from editr1.runs.kinds import Kind
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec

BASE, SMALL_BASE, EDITOR = "builtin:shapes-verifier", "builtin:shapes-verifier-small", "builtin:shapes-editor"
POOL = [
    {"name": "careful", "model": "careful", "temperature": 1.0, "weight": 1},
    {"name": "lenient", "model": "lenient-a", "temperature": 1.0, "weight": 4},
]
"""Four traces in five come from a labeller that calls most real faults fine."""


@dataclass(frozen=True)
class Experiment:
    """One run. ``needs`` are cells whose outputs it reads."""

    name: str
    what: str
    stages: tuple[StageSpec, ...]
    needs: tuple[str, ...] = ()


def run_name(seed: int, cell: str) -> str:
    """Name of a cell's run."""
    return f"s{seed}-{cell}"


def make_cells(seed: int, budget: Budget) -> dict[str, Experiment]:
    """Every cell of one seed, each after those that it needs."""
    made, steps, controls = _Maker(seed, budget), budget.sft_steps, budget.control_iterations
    found = [
        made.data("data", "T+V", "verified traces, preference pairs and cases"),
        made.data("data-t", "T", "traces at random, unverified"),
        made.data("data-v", "V", "gold verdicts without reasoning"),
        made.data("data-holistic", "holistic", "two marks for the whole picture"),
        made.sft("tv", "SFT on verified traces", "data", steps.verified),
        made.sft("t", "SFT on unverified traces", "data-t", steps.unverified),
        made.sft("v", "SFT on bare verdicts", "data-v", steps.verdicts),
        made.sft("holistic", "SFT on holistic marks", "data-holistic", steps.holistic),
        made.sft("small-tv", "SFT of the smaller model", "data", steps.verified, SMALL_BASE),
        made.more("longer", "SFT for longer on the same rows", "rows", steps.verified),
        made.more("picked", "SFT on traces that the same pairs picked", "pairs", budget.picked_steps),
        made.gcpo("gcpo", "GCPO on all pairs", "tv"),
        made.gcpo("gcpo-shuffled", "GCPO on shuffled labels", "tv", shuffle_labels=True),
        made.gcpo("gcpo-half", "GCPO where a tie earns a half", "tv", tie_credit=0.5),
        made.gcpo(
            "gcpo-half-shuffled",
            "GCPO on shuffled labels where a tie earns a half",
            "tv",
            tie_credit=0.5,
            shuffle_labels=True,
        ),
        *(made.gcpo(f"gcpo-{n}", f"GCPO on {n} pairs", "tv", pairs=n) for n in budget.few_pairs),
        made.gcpo("small-gcpo", "GCPO of the smaller model", "small-tv"),
        made.averaged("traces-1", "one greedy trace", 1, temperature=0.0),
        *(
            made.averaged(
                sampled_name(n), f"scores averaged over {n} sampled traces" if n > 1 else "one sampled trace", n
            )
            for n in budget.averaged
        ),
        *(
            made.editor(editor_name(verifier, n, budget), f"editor RL on the {title}, {n} iterations", cell, n)
            for verifier, title, cell in (("rl", "RL-RRM", "gcpo"), ("sft", "SFT-RRM", "tv"))
            for n in (*sorted(budget.editor_curve), budget.iterations)
        ),
        made.editor(
            "editor-shuffled",
            f"editor RL on shuffled rewards, {controls} iterations",
            "gcpo",
            controls,
            shuffle_rewards=True,
        ),
        made.editor(
            "editor-kl",
            f"editor RL on the RL-RRM with a KL term, {controls} iterations",
            "gcpo",
            controls,
            beta=0.04,
        ),
    ]
    return {cell.name: cell for cell in found}


def editor_name(verifier: str, iterations: int, budget: Budget) -> str:
    """Experiment of the editor trained on ``verifier`` (rl or sft) for so many iterations; the longest training has no number."""
    return f"editor-{verifier}" if iterations == budget.iterations else f"editor-{verifier}-{iterations}"


def sampled_name(traces: int) -> str:
    """Experiment in which so many sampled traces are averaged; ``traces-1`` is the greedy one."""
    return f"traces-{traces}" if traces > 1 else "traces-1-sampled"


def with_needs(names: Iterable[str], cells: dict[str, Experiment]) -> list[Experiment]:
    """``names`` and all that they build on, in the order in which they can run."""
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += cells[name].needs
    return [cell for cell in cells.values() if cell.name in wanted]


def run_of(cell: Experiment, seed: int, store: str) -> RunSpec:
    """The run file of a cell, its artifacts in ``store``."""
    return RunSpec(
        api_version=API_VERSION,
        kind="EditRun",
        metadata=Metadata(name=run_name(seed, cell.name)),
        spec=RunBody(seed=seed, store=store, stages=list(cell.stages)),
    )


class _Maker:
    def __init__(self, seed: int, budget: Budget) -> None:
        self._seed, self._budget = seed, budget

    def data(self, name: str, variant: str, what: str) -> Experiment:
        budget = self._budget
        world = budget.model_dump(include={"cases", "candidates", "pairs", "test_pairs", "rl_cases", "test_cases"})
        curation = {
            "variant": variant,
            "members": POOL,
            "traces": 3,
            # Short, since the small model spells what is not of its world letter by letter.
            "holistic": {"follow": "done?", "keep": "kept?"},
            "principles": {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]},
        }
        config = {"judge": "shapes", "world": world, "curation": curation}
        return Experiment(name, what, (StageSpec(name="curate", kind=Kind.CURATE, config=config),))

    def sft(self, name: str, what: str, data: str, steps: int, base: str = BASE) -> Experiment:
        budget = self._budget
        inputs = {"rows": self._of(data, "curate", "rows"), "model": base}
        config = {"steps": steps, "warmup_steps": budget.sft_warmup, "batch_size": budget.batch}
        needs = (data,) if data == "data-holistic" else tuple(dict.fromkeys((data, "data")))
        return Experiment(name, what, (self._training(Kind.SFT, inputs, config), self._judged("sft", data)), needs)

    def more(self, name: str, what: str, source: str, steps: int) -> Experiment:
        budget = self._budget
        inputs = {source: self._of("data", "curate", source), "model": self._of("tv", "sft", "model")}
        config: dict[str, Any] = {
            "steps": steps,
            "warmup_steps": budget.sft_warmup,
            "batch_size": budget.batch,
            "learning_rate": budget.more_learning_rate,
        }
        if source == "pairs":
            config |= {"picked_from": budget.traces, "max_new_tokens": budget.max_new_tokens}
        return Experiment(name, what, (self._training(Kind.SFT, inputs, config), self._judged("sft")), ("data", "tv"))

    def gcpo(self, name: str, what: str, start: str, **changes: object) -> Experiment:
        budget = self._budget
        inputs = {"pairs": self._of("data", "curate", "pairs"), "model": self._of(start, "sft", "model")}
        config = {
            "learning_rate": budget.gcpo_learning_rate,
            "rollouts": budget.rollouts,
            "pairs_per_rollout": budget.pairs_per_rollout,
            "traces": budget.traces,
            "max_new_tokens": budget.max_new_tokens,
            **changes,
        }
        return Experiment(
            name, what, (self._training(Kind.GCPO, inputs, config), self._judged("gcpo")), ("data", start)
        )

    def averaged(self, name: str, what: str, traces: int, temperature: float = 1.0) -> Experiment:
        inputs = {
            "pairs": self._of("data", "curate", "pairs-test"),
            "sft": self._of("tv", "sft", "model"),
            "rl": self._of("gcpo", "gcpo", "model"),
        }
        config = {**self._evaluation(), "pairs": self._budget.trace_pairs, "traces": traces}
        if temperature:
            config["temperature"] = temperature
        stage = StageSpec(name="evaluate", kind=Kind.EVALUATE, inputs=inputs, config=config)
        return Experiment(name, what, (stage,), ("data", "gcpo"))

    def editor(self, name: str, what: str, verifier: str, iterations: int, **changes: object) -> Experiment:
        budget = self._budget
        model = self._of(verifier, "gcpo" if verifier == "gcpo" else "sft", "model")
        cases = {"cases": self._of("data", "curate", "cases"), "editor": EDITOR}
        settings = {
            "resolution": 32,
            "iterations": iterations,
            "cases_per_iteration": budget.cases_per_iteration,
            "group_size": budget.group_size,
            "max_failed_share": max(budget.max_failed, 0.2),
            **changes,
        }
        inputs = {
            "cases": self._of("data", "curate", "cases-test"),
            "rl": model,
            "before": EDITOR,
            "after": "stage:grpo/model",
        }
        judged = {**self._evaluation(), "editor_cases": budget.test_cases, "score_edits": True}
        stages = (
            StageSpec(
                name="serve",
                kind=Kind.SERVE,
                inputs={"model": model},
                config={"port": 0, "max_tokens": budget.max_new_tokens, "golden_must_parse": budget.max_failed < 1},
            ),
            StageSpec(
                name="grpo",
                kind=Kind.GRPO,
                inputs=cases,
                reward="serve",
                config=settings,
            ),
            StageSpec(name="evaluate", kind=Kind.EVALUATE, inputs=inputs, config=judged),
        )
        return Experiment(name, what, stages, ("data", verifier))

    def _training(self, kind: Kind, inputs: dict[str, str], config: dict[str, Any]) -> StageSpec:
        return StageSpec(name=str(kind), kind=kind, inputs=inputs, config=config)

    def _judged(self, trained: str, data: str = "data") -> StageSpec:
        """The new verifier on the held-out pairs, with the principles that its kind of data asks for."""
        held_out = data if data == "data-holistic" else "data"
        inputs = {"pairs": self._of(held_out, "curate", "pairs-test"), "rl": f"stage:{trained}/model"}
        config = {**self._evaluation(), "pairs": self._budget.test_pairs}
        return StageSpec(name="evaluate", kind=Kind.EVALUATE, inputs=inputs, config=config)

    def _evaluation(self) -> dict[str, Any]:
        budget = self._budget
        return {
            "truth": "shapes",
            "max_tokens": budget.max_new_tokens,
            "max_failed": budget.max_failed,
            "bootstrap_samples": max(100, budget.bootstrap_samples),
            "gallery": 4,
        }

    def _of(self, cell: str, stage: str, output: str) -> str:
        return f"run:{run_name(self._seed, cell)}/{stage}/{output}"
