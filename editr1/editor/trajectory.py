"""Sampled denoising trajectories.

The sampler creates them, scores and advantages are attached to them, and the update trains on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from editr1.editor.policies.base import Condition


@dataclass(frozen=True)
class SampleSpec:
    """Specification of one sample: its edit case, SDE window and seed.

    Attributes:
        sample_id: Id of the sample, unique within an iteration across all processes.
        group_key: Key of the sample's group: the position of its edit case in the training order.
        condition_row: Row of the :class:`Condition` that encodes the instruction and the reference image of the case.
        window_start: Index of the first stochastic step.
        noise_seed: Random seed for the initial noise and for the noise of the stochastic steps.
    """

    sample_id: int
    group_key: int
    condition_row: int
    window_start: int
    noise_seed: int


@dataclass(frozen=True, eq=False)
class TrajectoryBatch:
    """The samples of one forward pass, with the data that the update needs to recompute their stochastic steps.

    A batch is immutable: :func:`attach_scores` and :func:`attach_advantages` return new batches. B is the number of
    samples, W the number of stochastic steps and T the number of denoising steps. Tensors marked with * are on the
    policy's device, and the others are on the CPU.

    Attributes:
        condition: Encoded instructions and reference images, with one row per edit case.
        sample_ids: ``[B]`` int64, unique.
        group_keys: ``[B]`` int64, equal for the samples of one edit case.
        condition_rows: * ``[B]`` int64, the row of ``condition`` for each sample.
        window_starts: * ``[B]`` int64, index of the first stochastic step.
        sigmas: * ``[T + 1]`` fp32, noise levels from 1 (noise) to 0 (data).
        latents: * ``[B, W + 1, tokens, channels]`` in the storage dtype, the latents before, between and after the
            stochastic steps.
        log_probs: * ``[B, W]`` fp32, log-probability of each stochastic step under the sampling policy.
        final_latents: * ``[B, tokens, channels]`` fp32, the clean latents.
        valid_mask: ``[B]`` bool, initially True. :func:`attach_scores` sets it to False where scoring failed. The update
            ignores these samples.
        scores: ``[B]`` fp64, NaN where scoring failed. None until scores are attached.
        advantages: ``[B]`` fp32, 0 where ``signal_mask`` is False. None until advantages are attached.
        signal_mask: ``[B]`` bool, False where scoring failed or the sample's group has no training signal. These samples
            have no policy loss. None until advantages are attached.

    Raises:
        ValueError: A tensor has the wrong length or dtype, or a sample id occurs twice.
    """

    condition: Condition
    sample_ids: Tensor
    group_keys: Tensor
    condition_rows: Tensor
    window_starts: Tensor
    sigmas: Tensor
    latents: Tensor
    log_probs: Tensor
    final_latents: Tensor
    valid_mask: Tensor
    scores: Tensor | None = None
    advantages: Tensor | None = None
    signal_mask: Tensor | None = None

    def __post_init__(self) -> None:
        size, window = self.log_probs.shape
        for name in (
            "sample_ids", "group_keys", "condition_rows", "window_starts", "latents", "final_latents", "valid_mask",
            "scores", "advantages", "signal_mask",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and len(value) != size:
                raise ValueError(f"trajectory batch: {name} has {len(value)} rows, but log_probs has {size}")
        if self.latents.shape[1] != window + 1:
            raise ValueError(
                f"trajectory batch: latents hold {self.latents.shape[1]} states for {window} steps; expected {window + 1}"
            )
        for name in ("sample_ids", "group_keys"):
            if getattr(self, name).dtype != torch.int64:
                raise ValueError(f"trajectory batch: {name} must be int64, not {getattr(self, name).dtype}")
        for name in ("valid_mask", "signal_mask"):
            mask = getattr(self, name)
            if mask is not None and mask.dtype != torch.bool:
                raise ValueError(f"trajectory batch: {name} must be bool, not {mask.dtype}")
        if len(torch.unique(self.sample_ids)) != size:
            raise ValueError(
                f"trajectory batch: duplicate sample ids in {self.sample_ids.tolist()}; ids must be unique"
            )

    def __len__(self) -> int:
        return len(self.sample_ids)

    def step(self, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the ``k``-th stochastic step of every sample as (before, after, sigma, sigma_next).

        ``before`` and ``after`` are latents ``[B, tokens, channels]`` in fp32; the noise levels are ``[B]``.
        """
        before, after = self.latents[:, k].float(), self.latents[:, k + 1].float()
        return before, after, self.sigmas[self.window_starts + k], self.sigmas[self.window_starts + k + 1]


def attach_scores(
    batches: Sequence[TrajectoryBatch], sample_ids: Tensor, scores: Tensor, valid_mask: Tensor
) -> list[TrajectoryBatch]:
    """Return copies of the batches with scores added. Scores and samples are matched by sample id.

    Args:
        batches: The batches of this process.
        sample_ids: ``[N]`` int64, exactly the sample ids of ``batches``, in any order.
        scores: ``[N]`` fp64, NaN where scoring failed.
        valid_mask: ``[N]`` bool, False where scoring failed.

    Raises:
        ValueError: A sample has no score or more than one, or a score has an unknown sample id.
    """
    rows = _row_by_id(sample_ids)
    unknown = rows.keys() - {sample_id for batch in batches for sample_id in batch.sample_ids.tolist()}
    if unknown:
        raise ValueError(f"unknown sample ids in the scores: {sorted(unknown)}; score only the samples of the batches")
    attached = []
    for batch in batches:
        index = _rows_of(batch, rows, "score")
        attached.append(replace(batch, scores=scores[index], valid_mask=batch.valid_mask & valid_mask[index]))
    return attached


def attach_advantages(
    batches: Sequence[TrajectoryBatch], sample_ids: Tensor, advantages: Tensor, signal_mask: Tensor
) -> list[TrajectoryBatch]:
    """Return copies of the batches with advantages added. Advantages and samples are matched by sample id.

    Args:
        batches: The batches of this process.
        sample_ids: ``[N]`` int64, the sample ids of all processes, in any order.
        advantages: ``[N]`` fp32.
        signal_mask: ``[N]`` bool, False where scoring failed or the group has no training signal.

    Raises:
        ValueError: A sample has no advantage or more than one.
    """
    rows = _row_by_id(sample_ids)
    attached = []
    for batch in batches:
        index = _rows_of(batch, rows, "advantage")
        signal = batch.valid_mask & signal_mask[index]
        attached.append(replace(batch, advantages=advantages[index], signal_mask=signal))
    return attached


def _row_by_id(sample_ids: Tensor) -> dict[int, int]:
    rows = {sample_id: row for row, sample_id in enumerate(sample_ids.tolist())}
    if len(rows) != len(sample_ids):
        raise ValueError(
            f"{len(sample_ids)} samples have only {len(rows)} different ids; each sample needs a unique id"
        )
    return rows


def _rows_of(batch: TrajectoryBatch, rows: dict[int, int], name: str) -> Tensor:
    ids = batch.sample_ids.tolist()
    missing = [sample_id for sample_id in ids if sample_id not in rows]
    if missing:
        raise ValueError(f"no {name} for samples {missing}; every sample of the batches needs one")
    return torch.tensor([rows[sample_id] for sample_id in ids])
