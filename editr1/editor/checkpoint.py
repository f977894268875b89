"""Checkpoints of editor training.

A checkpoint is a folder with the trained weights and their moving average as safetensors, the optimizer state (loadable
with ``weights_only=True``), and the training state as JSON.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from editr1.artifacts.weights import UnusableModel
from editr1.editor.ema import Ema

_STATE = "state.json"


@dataclass
class TrainingHistory:
    """Statistics of the finished iterations.

    They are part of checkpoints, so they are continued when training is resumed.

    Attributes:
        reward_means: Mean score of each iteration; None if no sample of the iteration has a score.
        failed: Number of samples whose scoring failed.
        failed_by_cause: The same per cause of the failure.
        zero_spread: Number of sample groups without a training signal, as in
            :class:`~editr1.editor.advantages.Advantages`.
        groups: Number of sample groups.
        seconds: Seconds spent in iterations.
    """

    reward_means: list[float | None] = field(default_factory=list)
    failed: int = 0
    zero_spread: int = 0
    groups: int = 0
    seconds: float = 0.0
    failed_by_cause: dict[str, int] = field(default_factory=dict)

    def add_failures(self, causes: Mapping[str, int]) -> None:
        """Count samples whose scoring failed, by cause."""
        self.failed += sum(causes.values())
        for cause, number in causes.items():
            self.failed_by_cause[cause] = self.failed_by_cause.get(cause, 0) + number

    def metrics(self) -> dict[str, float]:
        """Return the final metrics that :func:`editr1.editor.grpo.train_grpo` documents.

        At least one iteration must be finished.
        """
        means = {"reward_first": self.reward_means[:5], "reward_last": self.reward_means[-5:]}
        known = {name: [mean for mean in values if mean is not None] for name, values in means.items()}
        return {
            **{name: fmean(values) for name, values in known.items() if values},
            "failed": float(self.failed),
            **failures_by_cause(self.failed_by_cause),
            "zero_spread": self.zero_spread / self.groups if self.groups else 0.0,
            "seconds": self.seconds,
        }


def failures_by_cause(causes: Mapping[str, int]) -> dict[str, float]:
    """Return one metric ``failed_<cause>`` per cause with the number of samples whose scoring failed for it."""
    return {f"failed_{cause}": float(number) for cause, number in sorted(causes.items()) if number}


@dataclass(frozen=True)
class TrainingState:
    """Training state that a checkpoint stores as JSON.

    Attributes:
        iteration: Number of finished iterations.
        model_digest: Digest of the verifier that scores the samples; None before the first score.
        settings: Settings that must not change when the training resumes.
        history: Statistics of the finished iterations.
    """

    iteration: int
    model_digest: str | None
    settings: dict[str, object]
    history: TrainingHistory


def save_checkpoint(
    folder: Path, weights: Mapping[str, Tensor], ema: Ema | None, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write a checkpoint atomically: ``folder`` appears only when it is complete."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file({n: w.detach().cpu().contiguous() for n, w in weights.items()}, part / "weights.safetensors")
    if ema is not None:
        save_file({n: w.cpu().contiguous() for n, w in ema.shadow.items()}, part / "ema.safetensors")
    torch.save({"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}, part / "optimizer.pt")
    (part / _STATE).write_text(json.dumps(asdict(state), indent=2, sort_keys=True), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def load_checkpoint(
    folder: Path, weights: Mapping[str, Tensor], ema: Ema | None, optimizer: torch.optim.Optimizer
) -> TrainingState:
    """Restore the weights, the EMA, the optimizer and torch's CPU random generator. Return the training state.

    Raises:
        UnusableModel: The folder is not a checkpoint, or the names or shapes of its weights do not match ``weights``.
    """
    if not (folder / _STATE).is_file():
        raise UnusableModel(
            f"{folder} is not a checkpoint of editor training: {_STATE} is missing; use a different checkpoint"
        )
    saved = load_file(folder / "weights.safetensors")
    if {n: w.shape for n, w in saved.items()} != {n: w.shape for n, w in weights.items()}:
        raise UnusableModel(
            f"{folder}: the names or shapes of the checkpoint's weights do not match this editor and its tuning"
            " settings; resume with the editor and the tune and lora settings of the checkpoint"
        )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
    if ema is not None:
        ema.load(load_file(folder / "ema.safetensors"))
    rest = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
    optimizer.load_state_dict(rest["optimizer"])
    torch.set_rng_state(rest["rng"])
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    return TrainingState(**state | {"history": TrainingHistory(**state["history"])})
