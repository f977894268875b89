"""One iteration's samples: groups in chunks, each chunk handed to the scorer as soon as it is decoded."""

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
from editr1.editor.reward import Edit, RewardCollector
from editr1.editor.rollout import Chunk, Draw, SdeSettings, sample_chunk
from editr1.editor.window import draw_window
from editr1.seeding import sample_seed


@dataclass(frozen=True)
class _Prepared:
    keyed: KeyedCase
    image: Image.Image
    shown: EncodedImage


class GroupSampler:
    """Draws ``group_size`` samples a case. Text and reference are encoded once a case."""

    def __init__(self, policy: EditorPolicy, config: GrpoConfig) -> None:
        self._policy = policy
        self._config = config
        self.settings = SdeSettings(
            steps=config.steps,
            kind=config.sde,
            noise_level=config.noise_level,
            window=config.window_steps,
            log_prob_form="public" if config.sde == "cps" and config.cps_logprob == "public" else "gaussian",
            storage=torch.bfloat16 if config.storage_dtype == "bf16" else torch.float32,
        )

    def sample(self, iteration: int, cases: Sequence[KeyedCase], rewards: RewardCollector) -> list[Chunk]:
        """Sample all groups and submit their edits to ``rewards`` in the order of the chunks' rows."""
        chunks: list[Chunk] = []
        for (size, reference), members in self._buckets(cases).items():
            condition = self._policy.encode(
                [m.image for m in members], [m.keyed.case.instruction for m in members], size, reference
            )
            draws = [
                self._draw(iteration, at, member.keyed.key, sample)
                for at, member in enumerate(members)
                for sample in range(self._config.group_size)
            ]
            for start in range(0, len(draws), self._config.micro_batch):
                part = draws[start : start + self._config.micro_batch]
                chunk = sample_chunk(self._policy, condition, part, self.settings)
                pictures = self._policy.decode(chunk.final, size)
                rewards.submit(
                    [
                        Edit(members[draw.case].keyed.case, members[draw.case].shown, picture)
                        for draw, picture in zip(part, pictures, strict=True)
                    ]
                )
                chunks.append(chunk)
        return chunks

    def _draw(self, iteration: int, case: int, key: int, sample: int) -> Draw:
        config = self._config
        start = draw_window(
            config.seed,
            iteration,
            size=config.window_steps,
            first=config.window_first,
            end=config.window_end,
            group=key if config.window_scope == "group" else None,
        )
        return Draw(case, key, start, sample_seed(config.seed, iteration, key, sample))

    def _buckets(self, cases: Sequence[KeyedCase]) -> dict[tuple[Size, Size], list[_Prepared]]:
        buckets: dict[tuple[Size, Size], list[_Prepared]] = defaultdict(list)
        for keyed in cases:
            image = decode_image(keyed.case.source.data)
            size = self._policy.working_size(image, self._config.resolution)
            reference = size
            if self._config.reference_resolution is not None:
                reference = self._policy.working_size(image, self._config.reference_resolution)
            buckets[size, reference].append(_Prepared(keyed, image, self._shown(keyed, image, size)))
        return buckets

    def _shown(self, keyed: KeyedCase, image: Image.Image, size: Size) -> EncodedImage:
        """The source as the verifier sees it: at the size of the edit, so that only the edit differs."""
        if (image.height, image.width) == (size.height, size.width):
            return keyed.case.source
        return EncodedImage(data=encode_png(self._policy.resized(image, size)))
