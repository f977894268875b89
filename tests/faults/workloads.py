"""The small runs into which faults are injected, and the states of their stores before, during and after a stage."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RUN = "case"
_CURATE = {
    "labeller": "shapes",
    "shapes": {"cases": 24, "candidates": 2, "pairs": 8, "test_pairs": 4, "rl_cases": 4, "test_cases": 4},
    "curation": {"num_traces": 2, "principles": {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]}},
}
_SFT = {"max_steps": 8, "checkpoint_every": 2, "batch_size": 4}
_GCPO = {
    "rollouts": 4, "pairs_per_rollout": 2, "num_traces": 4, "max_new_tokens": 56, "checkpoint_every": 1,
    "max_rollouts_without_signal": 0,
}  # fmt: skip
_GRPO = {
    "resolution": 32, "iterations": 4, "checkpoint_every": 1, "cases_per_iteration": 2, "group_size": 4,
    "max_iterations_without_signal": 0, "reward_ready_timeout_seconds": 20, "score_batch_size": 4,
}  # fmt: skip
_SERVE = {"port": 0, "max_new_tokens": 56, "golden_must_parse": False}
_EVALUATE = {"ground_truth": "shapes", "max_new_tokens": 56, "max_failed_fraction": 1.0, "bootstrap_samples": 100}


def _stage(name: str, config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "kind": name, "config": config, **fields}


def _sft(processes: int) -> dict[str, Any]:
    return _stage(
        "sft", _SFT, processes=processes, inputs={"rows": "stage:curate/rows", "model": "builtin:shapes-verifier"}
    )


def _grpo(processes: int, reward: str, **config: Any) -> dict[str, Any]:
    inputs = {"cases": "stage:curate/cases", "editor": "builtin:shapes-editor"}
    return _stage("grpo", {**_GRPO, **config}, processes=processes, inputs=inputs, reward=reward)


@dataclass(frozen=True)
class Workload:
    """A run file whose last stage is the one concerned. The stages before it are complete when a fault is injected.

    Attributes:
        name: Name of the workload.
        stage: Stage concerned.
        after: Workload whose finished store is the starting point; None for an empty store.
        interval: Steps between two checkpoints; 0 if the stage has no checkpoints.
        partial: Number of checkpoints after which the prepared interrupted run was stopped; 0 if there is no such run.
    """

    name: str
    stage: str
    after: str | None
    interval: int = 0
    partial: int = 0

    def run_file(self, reward_url: str) -> dict[str, Any]:
        """Return the content of the run file. ``reward_url`` is the address of a running reward server."""
        stages = [_stage("curate", _CURATE)]
        if self.name in ("sft", "sft-2", "gcpo", "served", "evaluate"):
            stages.append(_sft(2 if self.name == "sft-2" else 1))
        if self.name in ("gcpo", "served", "evaluate"):
            inputs = {"pairs": "stage:curate/pairs", "model": "stage:sft/model"}
            stages.append(_stage("gcpo", _GCPO, inputs=inputs))
        if self.name in ("served", "evaluate"):
            stages.append(_stage("serve", _SERVE, retries=5, inputs={"model": "stage:gcpo/model"}))
            stages.append(_grpo(1, "serve", max_failed_fraction=1.0))
        if self.name == "evaluate":
            models = {"sft": "stage:sft/model", "rl": "stage:gcpo/model"}
            editors = {"before": "builtin:shapes-editor", "after": "stage:grpo/model"}
            tables = {"pairs": "stage:curate/pairs-test", "cases": "stage:curate/cases-test"}
            stages.append(_stage("evaluate", _EVALUATE, inputs={**tables, **models, **editors}))
        if self.name in ("grpo", "grpo-2"):
            stages.append(_grpo(2 if self.name == "grpo-2" else 1, reward_url))
        spec = {"seed": 3, "stages": stages}
        return {"apiVersion": "editr1.dev/v1alpha1", "kind": "EditRun", "metadata": {"name": RUN}, "spec": spec}


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("curate", "curate", None),
        Workload("sft", "sft", "curate", interval=2, partial=2),
        Workload("sft-2", "sft", "curate", interval=2, partial=2),
        Workload("grpo", "grpo", "curate", interval=1, partial=2),
        Workload("grpo-2", "grpo", "curate", interval=1),
        Workload("gcpo", "gcpo", "sft", interval=1, partial=2),
        Workload("served", "grpo", "gcpo", interval=1),
        Workload("evaluate", "evaluate", "served"),
    )
}


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run of a workload leaves in its store: the key, outputs and metrics of its stage, and its duration."""

    key: str
    outputs: dict[str, str]
    metrics: dict[str, float]
    seconds: float

    @classmethod
    def load(cls, base: Path, workload: str) -> Reference:
        """Read the reference that :meth:`save` wrote."""
        return cls(**json.loads((base / workload / "reference.json").read_text()))

    def save(self, base: Path, workload: str) -> None:
        """Write the reference to the folder of prepared states."""
        (base / workload / "reference.json").write_text(json.dumps(asdict(self), indent=1))


def needed(names: Sequence[str]) -> list[str]:
    """Return the workloads to prepare for ``names``: these and those on which they build, in the order of preparation."""
    wanted = set(names)
    for name in reversed(WORKLOADS):
        after = WORKLOADS[name].after
        if name in wanted and after is not None:
            wanted.add(after)
    return [name for name in WORKLOADS if name in wanted]


def link_store(source: Path, target: Path) -> None:
    """Copy a store with hard links. The product replaces files of a store and never writes into them."""
    shutil.copytree(source, target, copy_function=os.link)


def stage_results(store: Path, stage: str) -> list[Path]:
    """Return the result records of a stage in a folder store."""
    return sorted((store / "records" / "runs" / RUN / "stages" / stage).glob("*/result.json"))


def pointers(store: Path, stage: str) -> list[Path]:
    """Return the checkpoint records of a stage in a folder store, oldest first."""
    return sorted((store / "records" / "runs" / RUN / "stages" / stage).glob("*/checkpoints/*.json"))
