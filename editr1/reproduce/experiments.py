"""The experiments of a reproduction. They are small runs, some of which read outputs of other runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from editr1.config.reproduce import Budget
from editr1.runs.kinds import Kind
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec

BASE, SMALL_BASE, EDITOR = "builtin:shapes-verifier", "builtin:shapes-verifier-small", "builtin:shapes-editor"
LABELLING_MODELS = [
    {"name": "careful", "model": "careful", "temperature": 1.0, "weight": 1},
    {"name": "lenient", "model": "lenient-a", "temperature": 1.0, "weight": 4},
]
"""Models that write the traces. The model "lenient" overlooks most errors of an edit. According to its weight, it
writes 80 % of the traces.
"""


@dataclass(frozen=True)
class Experiment:
    """An experiment of a reproduction, which is executed as one run.

    ``what`` is its description. ``needs`` contains the names of its dependencies, the experiments whose outputs it reads.
    """

    name: str
    what: str
    stages: tuple[StageSpec, ...]
    needs: tuple[str, ...] = ()


def run_name(seed: int, experiment: str) -> str:
    """Return the name of the run of an experiment with the given seed."""
    return f"s{seed}-{experiment}"


def make_experiments(seed: int, budget: Budget) -> dict[str, Experiment]:
    """Return all experiments with the given seed, by name.

    Dependencies come before the experiments that need them.
    """
    build, steps, controls = _ExperimentBuilder(seed, budget), budget.sft_steps, budget.control_iterations
    found = [
        build.data("data", "T+V", "verified traces, preference pairs and cases"),
        build.data("data-t", "T", "random traces, unverified"),
        build.data("data-v", "V", "gold verdicts without reasoning"),
        build.data("data-holistic", "holistic", "two ratings for the whole image"),
        build.sft("tv", "SFT on verified traces", "data", steps.verified),
        build.sft("t", "SFT on unverified traces", "data-t", steps.unverified),
        build.sft("v", "SFT on bare verdicts", "data-v", steps.verdicts),
        build.sft("holistic", "SFT on holistic ratings", "data-holistic", steps.holistic),
        build.sft("small-tv", "SFT of the smaller model", "data", steps.verified, SMALL_BASE),
        build.second_sft("longer", "longer SFT on the same rows", "rows", steps.verified),
        build.second_sft("picked", "SFT on best-of-n traces for the same pairs", "pairs", budget.best_of_n_steps),
        build.gcpo("gcpo", "GCPO on all pairs", "tv"),
        build.gcpo("gcpo-shuffled", "GCPO on shuffled labels", "tv", shuffle_labels=True),
        build.gcpo("gcpo-half", "GCPO with tie credit 0.5", "tv", tie_credit=0.5),
        build.gcpo(
            "gcpo-half-shuffled",
            "GCPO on shuffled labels, tie credit 0.5",
            "tv",
            tie_credit=0.5,
            shuffle_labels=True,
        ),
        *(build.gcpo(f"gcpo-{n}", f"GCPO on {n} pairs", "tv", max_pairs=n) for n in budget.few_pairs),
        build.gcpo("small-gcpo", "GCPO of the smaller model", "small-tv"),
        build.averaged("traces-1", "one greedy trace", 1, temperature=0.0),
        *(
            build.averaged(
                sampled_name(n), f"scores averaged over {n} sampled traces" if n > 1 else "one sampled trace", n
            )
            for n in budget.averaged
        ),
        *(
            build.editor(
                editor_name(verifier, n, budget), f"RL of the editor with the {title}, {n} iterations", experiment, n
            )
            for verifier, title, experiment in (("rl", "RL-RRM", "gcpo"), ("sft", "SFT-RRM", "tv"))
            for n in (*sorted(budget.editor_curve), budget.iterations)
        ),
        build.editor(
            "editor-shuffled",
            f"RL of the editor with shuffled rewards, {controls} iterations",
            "gcpo",
            controls,
            shuffle_rewards=True,
        ),
        build.editor(
            "editor-kl",
            f"RL of the editor with the RL-RRM and a KL term, {controls} iterations",
            "gcpo",
            controls,
            beta=0.04,
        ),
    ]
    return {experiment.name: experiment for experiment in found}


def editor_name(verifier: str, iterations: int, budget: Budget) -> str:
    """Return the name of the experiment that trains the editor with a verifier ("rl" or "sft") as reward.

    The name ends with the number of iterations, except for the longest training run.
    """
    return f"editor-{verifier}" if iterations == budget.iterations else f"editor-{verifier}-{iterations}"


def sampled_name(traces: int) -> str:
    """Return the name of the experiment that averages scores over ``traces`` sampled traces.

    For one trace, it is ``traces-1-sampled``, because ``traces-1`` is the experiment with one greedy trace.
    """
    return f"traces-{traces}" if traces > 1 else "traces-1-sampled"


def with_dependencies(names: Iterable[str], experiments: dict[str, Experiment]) -> list[Experiment]:
    """Return the experiments ``names`` and all their dependencies.

    Dependencies come before the experiments that need them.
    """
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting += experiments[name].needs
    return [experiment for experiment in experiments.values() if experiment.name in wanted]


def run_spec(experiment: Experiment, seed: int, store: str) -> RunSpec:
    """Return the run file of an experiment. The run writes its artifacts to ``store``."""
    return RunSpec(
        api_version=API_VERSION,
        kind="EditRun",
        metadata=Metadata(name=run_name(seed, experiment.name)),
        spec=RunBody(seed=seed, store=store, stages=list(experiment.stages)),
    )


class _ExperimentBuilder:
    def __init__(self, seed: int, budget: Budget) -> None:
        self._seed, self._budget = seed, budget

    def data(self, name: str, variant: str, what: str) -> Experiment:
        budget = self._budget
        dataset = budget.model_dump(include={"cases", "candidates", "pairs", "test_pairs", "rl_cases", "test_cases"})
        curation = {
            "variant": variant,
            "members": LABELLING_MODELS,
            "num_traces": 3,
            # The question is short, because the small model encodes words outside its vocabulary letter by letter.
            "holistic": {"follow": "done?", "keep": "kept?"},
            "principles": {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]},
        }
        config = {"labeller": "shapes", "shapes": dataset, "curation": curation}
        return Experiment(name, what, (StageSpec(name="curate", kind=Kind.CURATE, config=config),))

    def sft(self, name: str, what: str, data: str, steps: int, base: str = BASE) -> Experiment:
        budget = self._budget
        inputs = {"rows": self._output(data, "curate", "rows"), "model": base}
        config = {"max_steps": steps, "warmup_steps": budget.sft_warmup_steps, "batch_size": budget.batch_size}
        needs = (data,) if data == "data-holistic" else tuple(dict.fromkeys((data, "data")))
        return Experiment(name, what, (self._training(Kind.SFT, inputs, config), self._evaluated("sft", data)), needs)

    def second_sft(self, name: str, what: str, source: str, steps: int) -> Experiment:
        budget = self._budget
        inputs = {source: self._output("data", "curate", source), "model": self._output("tv", "sft", "model")}
        config: dict[str, Any] = {
            "max_steps": steps,
            "warmup_steps": budget.sft_warmup_steps,
            "batch_size": budget.batch_size,
            "learning_rate": budget.second_sft_learning_rate,
        }
        if source == "pairs":
            config |= {"best_of_n": budget.num_traces, "max_new_tokens": budget.max_new_tokens}
        return Experiment(
            name, what, (self._training(Kind.SFT, inputs, config), self._evaluated("sft")), ("data", "tv")
        )

    def gcpo(self, name: str, what: str, start: str, **changes: object) -> Experiment:
        budget = self._budget
        inputs = {"pairs": self._output("data", "curate", "pairs"), "model": self._output(start, "sft", "model")}
        config = {
            "learning_rate": budget.gcpo_learning_rate,
            "rollouts": budget.rollouts,
            "pairs_per_rollout": budget.pairs_per_rollout,
            "num_traces": budget.num_traces,
            "max_new_tokens": budget.max_new_tokens,
            **({} if budget.must_learn else {"max_rollouts_without_signal": 0}),
            **changes,
        }
        return Experiment(
            name, what, (self._training(Kind.GCPO, inputs, config), self._evaluated("gcpo")), ("data", start)
        )

    def averaged(self, name: str, what: str, traces: int, temperature: float = 1.0) -> Experiment:
        inputs = {
            "pairs": self._output("data", "curate", "pairs-test"),
            "sft": self._output("tv", "sft", "model"),
            "rl": self._output("gcpo", "gcpo", "model"),
        }
        config = {**self._evaluation(), "max_pairs": self._budget.trace_pairs, "num_traces": traces}
        if temperature:
            config["temperature"] = temperature
        stage = StageSpec(name="evaluate", kind=Kind.EVALUATE, inputs=inputs, config=config)
        return Experiment(name, what, (stage,), ("data", "gcpo"))

    def editor(self, name: str, what: str, verifier: str, iterations: int, **changes: object) -> Experiment:
        budget = self._budget
        model = self._output(verifier, "gcpo" if verifier == "gcpo" else "sft", "model")
        cases = {"cases": self._output("data", "curate", "cases"), "editor": EDITOR}
        settings = {
            "resolution": 32,
            "iterations": iterations,
            "cases_per_iteration": budget.cases_per_iteration,
            "group_size": budget.group_size,
            "max_failed_fraction": max(budget.max_failed_fraction, 0.2),
            **({} if budget.must_learn else {"max_iterations_without_signal": 0}),
            **changes,
        }
        inputs = {
            "cases": self._output("data", "curate", "cases-test"),
            "rl": model,
            "before": EDITOR,
            "after": "stage:grpo/model",
        }
        evaluation = {**self._evaluation(), "max_cases": budget.test_cases, "score_edits": True}
        stages = (
            StageSpec(
                name="serve",
                kind=Kind.SERVE,
                inputs={"model": model},
                config={
                    "port": 0,
                    "max_new_tokens": budget.max_new_tokens,
                    "golden_must_parse": budget.must_learn,
                },
            ),
            StageSpec(
                name="grpo",
                kind=Kind.GRPO,
                inputs=cases,
                reward="serve",
                config=settings,
            ),
            StageSpec(name="evaluate", kind=Kind.EVALUATE, inputs=inputs, config=evaluation),
        )
        return Experiment(name, what, stages, ("data", verifier))

    def _training(self, kind: Kind, inputs: dict[str, str], config: dict[str, Any]) -> StageSpec:
        return StageSpec(name=str(kind), kind=kind, inputs=inputs, config=config)

    def _evaluated(self, trained: str, data: str = "data") -> StageSpec:
        """Return the stage that evaluates a verifier on the held-out pairs.

        ``trained`` is the stage that trains the verifier. A verifier for holistic ratings is evaluated with its two
        holistic questions instead of principles.
        """
        held_out = data if data == "data-holistic" else "data"
        inputs = {"pairs": self._output(held_out, "curate", "pairs-test"), "rl": f"stage:{trained}/model"}
        config = {**self._evaluation(), "max_pairs": self._budget.test_pairs}
        return StageSpec(name="evaluate", kind=Kind.EVALUATE, inputs=inputs, config=config)

    def _evaluation(self) -> dict[str, Any]:
        budget = self._budget
        return {
            "ground_truth": "shapes",
            "max_new_tokens": budget.max_new_tokens,
            "max_failed_fraction": budget.max_failed_fraction,
            "bootstrap_samples": max(100, budget.bootstrap_samples),
            "gallery_size": 4,
        }

    def _output(self, experiment: str, stage: str, output: str) -> str:
        return f"run:{run_name(self._seed, experiment)}/{stage}/{output}"
