"""Checkpoints of a training: weights and their running mean as safetensors, the rest loadable with weights_only."""

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

from editr1.editor.ema import Ema

_STATE = "state.json"


@dataclass
class TrainingHistory:
    """What the finished iterations showed; it goes on where a resumed training does."""

    reward_means: list[float] = field(default_factory=list)
    """A mean an iteration; NaN where every score failed."""
    failed: int = 0
    """Scores that failed."""
    zero_spread: int = 0
    """Groups whose scores were all the same."""
    groups: int = 0
    seconds: float = 0.0

    def figures(self) -> dict[str, float]:
        """Final figures of a training of an iteration or more, see :func:`editr1.editor.grpo.train_grpo`."""
        return {
            "reward_first": fmean(self.reward_means[:5]),
            "reward_last": fmean(self.reward_means[-5:]),
            "failed": float(self.failed),
            "zero_spread": self.zero_spread / self.groups if self.groups else 0.0,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class TrainingState:
    """Where a training stands: finished iterations, the verifier's digest, and the settings that must not change."""

    iteration: int
    model_digest: str | None
    settings: dict[str, object]
    course: TrainingHistory


def save_checkpoint(
    folder: Path, weights: Mapping[str, Tensor], ema: Ema | None, optimizer: torch.optim.Optimizer, state: TrainingState
) -> None:
    """Write a checkpoint; ``folder`` appears only when it is complete."""
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
    """Put a checkpoint's values into weights, running mean, optimiser and torch's CPU generator.

    Raises:
        ValueError: the folder is no checkpoint, or its weights have other names or shapes.
    """
    if not (folder / _STATE).is_file():
        raise ValueError(f"{folder}: no {_STATE}: not a checkpoint of an editor training")
    saved = load_file(folder / "weights.safetensors")
    if {n: w.shape for n, w in saved.items()} != {n: w.shape for n, w in weights.items()}:
        raise ValueError(f"{folder}: the checkpoint's weights are not those of this editor and tuning")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])
    if ema is not None:
        ema.load(load_file(folder / "ema.safetensors"))
    rest = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
    optimizer.load_state_dict(rest["optimizer"])
    torch.set_rng_state(rest["rng"])
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    return TrainingState(**state | {"course": TrainingHistory(**state.get("course", {}))})
