"""Sample edits in one iteration of editor training.

Each edit case gets one group of samples. Each batch is submitted for scoring as soon as it is decoded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from editr1.config.grpo import GrpoConfig
from editr1.data.images import decode_image, encode_png
from editr1.data.types import EncodedImage
from editr1.editor.cases import KeyedCase
from editr1.editor.policies.base import EditorPolicy, Size
from editr1.editor.reward import EditedSample, RewardCollector
from editr1.editor.rollout import SdeSettings, sample_trajectories
from editr1.editor.trajectory import SampleSpec, TrajectoryBatch
from editr1.editor.window import draw_window
from editr1.seeding import sample_seed


@dataclass(frozen=True)
class _PreparedCase:
    keyed: KeyedCase
    image: Image.Image
    source: EncodedImage
    """The source image for the verifier. It has the size of the edited image, so that the two images differ only in
    the edit."""


class GroupSampler:
    """Sampler of ``group_size`` edited images per case. The instruction and the reference image are encoded once per case."""

    def __init__(self, policy: EditorPolicy, config: GrpoConfig) -> None:
        self._policy = policy
        self._config = config
        self.settings = SdeSettings(
            num_inference_steps=config.num_inference_steps,
            kind=config.sde,
            noise_level=config.noise_level,
            window_size=config.window_steps,
            log_prob_form="public" if config.sde == "cps" and config.cps_logprob == "public" else "gaussian",
            trajectory_dtype=torch.bfloat16 if config.trajectory_dtype == "bf16" else torch.float32,
        )

    def sample(self, iteration: int, cases: Sequence[KeyedCase], rewards: RewardCollector) -> list[TrajectoryBatch]:
        """Sample the groups of all cases, and submit the decoded images to ``rewards`` for scoring."""
        batches: list[TrajectoryBatch] = []
        for (size, reference_size), members in self._by_size(cases).items():
            condition = self._policy.encode(
                [member.image for member in members],
                [member.keyed.case.instruction for member in members],
                size,
                reference_size,
            )
            specs = [
                self._spec(iteration, row, member.keyed.key, index)
                for row, member in enumerate(members)
                for index in range(self._config.group_size)
            ]
            for start in range(0, len(specs), self._config.micro_batch_size):
                part = specs[start : start + self._config.micro_batch_size]
                batch = sample_trajectories(self._policy, condition, part, self.settings)
                images = self._policy.decode(batch.final_latents, size)
                rewards.submit(
                    [
                        EditedSample(
                            spec.sample_id,
                            members[spec.condition_row].keyed.case,
                            members[spec.condition_row].source,
                            image,
                        )
                        for spec, image in zip(part, images, strict=True)
                    ]
                )
                batches.append(batch)
        return batches

    def _spec(self, iteration: int, condition_row: int, group_key: int, index: int) -> SampleSpec:
        config = self._config
        window_start = draw_window(
            config.seed,
            iteration,
            size=config.window_steps,
            first=config.window_range[0],
            end=config.window_range[1],
            group_key=group_key if config.sde_window_scope == "group" else None,
        )
        return SampleSpec(
            sample_id=group_key * config.group_size + index,
            group_key=group_key,
            condition_row=condition_row,
            window_start=window_start,
            noise_seed=sample_seed(config.seed, iteration, group_key, index),
        )

    def _by_size(self, cases: Sequence[KeyedCase]) -> dict[tuple[Size, Size], list[_PreparedCase]]:
        """Group the cases by the sizes of the edited and the reference image, because all images in a batch must have the same size."""
        by_size: dict[tuple[Size, Size], list[_PreparedCase]] = defaultdict(list)
        for keyed in cases:
            image = decode_image(keyed.case.source.data)
            size = self._policy.working_size(image, self._config.resolution)
            reference_size = size
            if self._config.reference_resolution is not None:
                reference_size = self._policy.working_size(image, self._config.reference_resolution)
            by_size[size, reference_size].append(_PreparedCase(keyed, image, self._scored_source(keyed, image, size)))
        return by_size

    def _scored_source(self, keyed: KeyedCase, image: Image.Image, size: Size) -> EncodedImage:
        if (image.height, image.width) == (size.height, size.width):
            return keyed.case.source
        return EncodedImage(data=encode_png(self._policy.resized(image, size)))
