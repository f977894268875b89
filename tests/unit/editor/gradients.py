"""Gradients of an editor training: recorded while it runs, and derived again from the formulas of the method.

:func:`record` runs a training and writes what each process sampled and the gradient of each optimizer step.
:func:`derive` computes the same gradients sample by sample from what was sampled. Of the product it uses only the network
(the velocity field); the SDE, the likelihood ratios, the advantages, the KL penalty and all means are written out here.
"""

from __future__ import annotations

import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from editr1.config.grpo import GrpoConfig
from editr1.data.tables import write_table
from editr1.data.types import (
    Category,
    EditCase,
    EncodedImage,
    FailureCause,
    Principle,
    Scored,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
)
from editr1.editor.grpo import train_grpo
from editr1.editor.policies import load_policy
from editr1.editor.policies.base import Condition
from editr1.editor.tuning import Tuning
from editr1.editor.update import Updater
from editr1.telemetry import Progress, TrainHooks

Gradient = dict[str, Tensor]

PASSES: dict[str, Any] = {"passes": 3, "learning_rate": 1e-3, "clip_range": 0.01}
"""More than one pass, with updates so large that some ratios are clipped and others are not."""


@dataclass
class Recording:
    """What one process sampled in an iteration, and the optimizer steps: the weights before each step and its gradient."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    steps: list[tuple[Gradient, Gradient]] = field(default_factory=list)


@dataclass
class Derived:
    """Gradient of each optimizer step, and the metrics that the training should report."""

    gradients: list[Gradient]
    ratio: float
    clip_frac: float
    kl: float | None


def write_unequal_cases(folder: Path) -> Path:
    """Write four edit cases: instructions of different lengths, and one source of another size."""
    rows = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 255, (32, 48 if i == 3 else 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        rows.append(
            EditCase(
                case_id=f"case-{i}",
                source=EncodedImage(data=buffer.getvalue()),
                instruction=f"make number {i} red" + " and brighter" * i,
                principles=(Principle(question="is it red?", category=Category.FOLLOW),),
            )
        )
    write_table(folder / "cases.parquet", rows, EditCase)
    return folder / "cases.parquet"


def training(**changes: Any) -> GrpoConfig:
    """Return the settings of a training with one iteration of four groups of six samples."""
    return GrpoConfig(
        **{
            "iterations": 1,
            "cases_per_iteration": 4,
            "group_size": 6,
            "num_inference_steps": 4,
            "sde_window_size": 2,
            "resolution": None,
            "guidance_scale": 1.0,
            "max_failed_fraction": 1.0,
            "max_grad_norm": 1e9,
            **changes,
        }
    )


def score_by_case(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
    """Score edits. All of the 1st source fail, those of the 2nd are equal, and of the 3rd every third one fails."""
    outcomes: list[ScoreOutcome] = []
    for item in items:
        case = int(item.instruction.split()[2])
        number = sum(item.edited.data) % 997
        if case == 0 or (case == 2 and number % 3 == 0):
            outcomes.append(ScoreFailure(cause=FailureCause.DEADLINE, detail="late"))
        else:
            outcomes.append(Scored(score=5.0 if case == 1 else number / 99.7, verdicts=(), model_digest="m"))
    return outcomes


def record(config: GrpoConfig, editor: Path, cases: Path, out: Path, *, rank: int = 0) -> None:
    """Train, and write the :class:`Recording` of this process to ``out/rank-<rank>.pt``."""
    recording = Recording()
    update, step = Updater.update, torch.optim.AdamW.step
    names: list[str] = []

    def recorded_update(self: Any, batches: Any, *args: Any) -> Any:
        names[:] = list(self._tuning.weights)
        for batch in batches:
            for row, scored in enumerate(batch.valid_mask.tolist()):
                start = int(batch.window_starts[row])
                window = batch.latents.shape[1]
                recording.samples.append(
                    {
                        "group": int(batch.group_keys[row]),
                        "score": float(batch.scores[row]) if scored else math.nan,
                        "latents": batch.latents[row].float(),
                        "sigmas": batch.sigmas[start : start + window],
                        "condition": batch.condition.take(batch.condition_rows[row : row + 1]),
                    }
                )
        return update(self, batches, *args)

    def recorded_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        weights = [p for group in self.param_groups for p in group["params"]]
        before = {n: p.detach().clone() for n, p in zip(names, weights, strict=True)}
        recording.steps.append((before, {n: p.grad.clone() for n, p in zip(names, weights, strict=True)}))
        return step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Updater, "update", recorded_update)
        patch.setattr(torch.optim.AdamW, "step", recorded_step)
        hooks = TrainHooks(progress=Progress(out / "progress.jsonl"))
        train_grpo(config, editor=editor, cases=cases, scorer=score_by_case, output_dir=out / "editor", hooks=hooks)
    torch.save(recording, out / f"rank-{rank}.pt")


def load(out: Path) -> list[Recording]:
    """Return the recordings of all processes."""
    return [torch.load(path, weights_only=False) for path in sorted(out.glob("rank-*.pt"))]


def derive(recordings: Sequence[Recording], config: GrpoConfig, editor: Path) -> Derived:
    """Derive the gradients and metrics of one iteration from what all processes sampled."""
    policy = load_policy(
        str(editor),
        guidance=config.guidance_scale,
        dtype=torch.bfloat16 if config.precision == "bf16-mixed" else torch.float32,
    )
    network = _Network(policy, Tuning(policy, config), config)
    samples = [sample for recording in recordings for sample in recording.samples]
    advantages = _advantages(samples, config)
    steps = recordings[0].steps
    old = network.with_weights(steps[0][0], lambda: [_old_log_probs(network, sample, config) for sample in samples])
    window = samples[0]["latents"].shape[0] - 1
    per_pass = [list(range(window))] if config.update_every == "iteration" else [[k] for k in range(window)]
    signal = sum(a is not None for a in advantages)
    scored = sum(not math.isnan(sample["score"]) for sample in samples)
    ratios: list[float] = []
    clipped = 0
    divergences: list[float] = []
    gradients: list[Gradient] = []
    for weights, ks in zip([before for before, _ in steps], per_pass * config.passes, strict=True):

        def total(ks: list[int] = ks) -> None:
            nonlocal clipped
            for sample, advantage, old_log_probs in zip(samples, advantages, old, strict=True):
                for k in ks:
                    if advantage is not None:
                        ratio = torch.exp(network.log_prob(sample, k) - old_log_probs[k])
                        low, high = config.clip_bounds
                        free, bounded = ratio * advantage, ratio.clamp(low, high) * advantage
                        (-torch.minimum(free, bounded) / (signal * len(ks))).backward()
                        ratios.append(float(ratio.detach()))
                        clipped += bool(free > bounded)
                    if config.beta > 0 and not math.isnan(sample["score"]):
                        kl = network.kl(sample, k)
                        (config.beta * kl / (scored * len(ks))).backward()
                        divergences.append(float(kl.detach()))

        gradients.append(network.gradient(weights, total))
    return Derived(
        gradients,
        ratio=sum(ratios) / len(ratios),
        clip_frac=clipped / len(ratios),
        kl=sum(divergences) / len(divergences) if divergences else None,
    )


def check(recordings: Sequence[Recording], derived: Derived, config: GrpoConfig, out: Path) -> list[float]:
    """Assert that gradients and reported metrics equal the derived ones. Return the relative difference of each gradient.

    In bf16, each activation is rounded to 8 bits, and a product is rounded differently in a batch and for one sample.
    """
    exact = config.precision == "fp32"
    differences = [
        _relative_difference(gradient, expected)
        for (_, gradient), expected in zip(recordings[0].steps, derived.gradients, strict=True)
    ]
    assert max(differences) < (2e-6 if exact else 0.02)
    lines = [json.loads(line) for line in (out / "progress.jsonl").read_text().splitlines()]
    (metrics,) = [line["metrics"] for line in lines if "metrics" in line]
    assert metrics["ratio"] == pytest.approx(derived.ratio, rel=1e-5 if exact else 0.05)
    assert metrics["clip_frac"] == pytest.approx(derived.clip_frac, abs=1e-9 if exact else 0.1)
    assert metrics.get("kl") == (None if derived.kl is None else pytest.approx(derived.kl, rel=1e-4 if exact else 0.05))
    return differences


def _relative_difference(a: Gradient, b: Gradient) -> float:
    """Return the norm of a - b divided by the norm of b, or 0 if both are 0, for example because every ratio is clipped."""
    difference = math.sqrt(sum(float((a[name] - b[name]).double().square().sum()) for name in b))
    norm = math.sqrt(sum(float(b[name].double().square().sum()) for name in b))
    return difference / norm if norm else (0.0 if difference == 0.0 else math.inf)


def _advantages(samples: Sequence[Mapping[str, Any]], config: GrpoConfig) -> list[float | None]:
    groups: dict[int, list[float]] = defaultdict(list)
    for sample in samples:
        if not math.isnan(sample["score"]):
            groups[sample["group"]].append(sample["score"])
    batch = [score for scores in groups.values() for score in scores]

    def std(values: Sequence[float]) -> float:
        mean = sum(values) / len(values)
        return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))

    found: list[float | None] = []
    for sample in samples:
        group = groups[sample["group"]]
        if math.isnan(sample["score"]) or len(group) < 2 or std(group) == 0.0:
            found.append(None)
            continue
        divisor = std(group if config.advantage_std == "group" else batch) + 1e-4
        value = (sample["score"] - sum(group) / len(group)) / divisor
        found.append(max(-config.advantage_clip, min(config.advantage_clip, value)))
    return found


def _old_log_probs(network: _Network, sample: Mapping[str, Any], config: GrpoConfig) -> list[Tensor]:
    with torch.no_grad():
        return [network.log_prob(sample, k) for k in range(sample["latents"].shape[0] - 1)]


class _Network:
    """The velocity field of the editor, and the Gaussian steps and the KL penalty that follow from it, in fp64."""

    def __init__(self, policy: Any, tuning: Tuning, config: GrpoConfig) -> None:
        self._policy, self._tuning, self._config = policy, tuning, config

    def with_weights(self, weights: Gradient, compute: Callable[[], Any]) -> Any:
        with torch.no_grad():
            for name, parameter in self._tuning.weights.items():
                parameter.copy_(weights[name])
        return compute()

    def gradient(self, weights: Gradient, backward: Callable[[], None]) -> Gradient:
        for parameter in self._tuning.weights.values():
            parameter.grad = None
        self.with_weights(weights, backward)
        return {
            name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in self._tuning.weights.items()
        }

    def log_prob(self, sample: Mapping[str, Any], k: int) -> Tensor:
        mean, std, _ = self._step(sample, k, self._velocity(sample, k))
        square = (sample["latents"][k + 1].double() - mean) ** 2
        if self._config.sde == "cps" and self._config.cps_logprob == "public":
            return -square.mean()
        return (-square / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)).mean()

    def kl(self, sample: Mapping[str, Any], k: int) -> Tensor:
        v, v_reference = self._velocity(sample, k), self._velocity(sample, k, reference=True)
        if self._config.kl == "velocity":
            return (v - v_reference).square().mean()
        mean, std, diffusion = self._step(sample, k, v)
        difference = mean - self._step(sample, k, v_reference)[0]
        scale = diffusion if self._config.kl == "flow_grpo" else std
        return (difference**2 / (2 * scale**2)).mean()

    def _step(self, sample: Mapping[str, Any], k: int, v: Tensor) -> tuple[Tensor, float, float]:
        x, a = sample["latents"][k].double(), self._config.noise_level
        sigma, after = float(sample["sigmas"][k]), float(sample["sigmas"][k + 1])
        if self._config.sde == "cps":
            std = after * math.sin(a * math.pi / 2)
            data, noise = x - sigma * v, x + (1 - sigma) * v
            return data * (1 - after) + noise * math.sqrt(after**2 - std**2), std, std
        dt = after - sigma
        s = a * math.sqrt(sigma / (1 - (after if sigma == 1.0 else sigma)))
        mean = x * (1 + s**2 * dt / (2 * sigma)) + v * (1 + s**2 * (1 - sigma) / (2 * sigma)) * dt
        return mean, s * math.sqrt(-dt), s

    def _velocity(self, sample: Mapping[str, Any], k: int, *, reference: bool = False) -> Tensor:
        latents, sigma = sample["latents"][k][None], sample["sigmas"][k][None]
        condition: Condition = sample["condition"]
        predict = self._tuning.reference_velocity if reference else self._policy.velocity
        with self._precision():
            return predict(latents, sigma, condition)[0].double()

    @contextmanager
    def _precision(self) -> Iterator[None]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._config.precision == "bf16-mixed"):
            yield
