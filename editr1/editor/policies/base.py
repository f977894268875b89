"""What an editor policy is: a diffusers editing pipeline taken apart so that single denoising steps can be trained."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor, nn

MAX_SIDE = 1024
"""Side of a square whose area bounds pictures that are taken at their own size."""


class NotFinite(ArithmeticError):
    """An editor gave NaN or infinity."""


@dataclass(frozen=True)
class Size:
    """Pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Condition:
    """What the transformer is told about some edits of one size: encoded text and reference.

    ``rows`` are tensors whose first dimension is the edit; ``shared`` are the same for all (position ids, shapes).
    """

    rows: Mapping[str, Tensor]
    shared: Mapping[str, Any]
    size: Size

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    def take(self, index: Tensor) -> Condition:
        """The edits at ``index`` ``[B]``, repeated as often as they are named."""
        return Condition(
            {name: rows[index.to(rows.device)] for name, rows in self.rows.items()}, self.shared, self.size
        )


class EditorPolicy(ABC):
    """An editor as velocity field over packed latents ``[B, tokens, channels]``.

    Every quantity follows the pipeline's own call: with equal noise and no stochastic step, sampling here gives what
    the pipeline gives.
    """

    kind: ClassVar[str]
    """Class name of the pipeline in ``model_index.json``."""

    def __init__(self, pipeline: Any, *, guidance: float = 2.5) -> None:
        self.pipeline = pipeline
        self.guidance = guidance
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                component.requires_grad_(False).eval()

    @classmethod
    def load_pipeline(cls, folder: Path, dtype: torch.dtype) -> Any:
        """The pipeline in ``folder``, weights in ``dtype``."""
        loader: Any = DiffusionPipeline
        return loader.from_pretrained(folder, dtype=dtype)

    @property
    def transformer(self) -> Any:
        """The denoiser, the only part that is ever trained."""
        return self.pipeline.transformer

    @property
    def device(self) -> torch.device:
        """Where the models are."""
        return torch.device(self.transformer.device)

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of this many pixels (VAE factor times packing)."""
        return int(self.pipeline.vae_scale_factor) * 2

    def to(self, device: torch.device | str) -> EditorPolicy:
        """Move all models; returns itself."""
        self.pipeline.to(device)
        return self

    def working_size(self, image: Image.Image, resolution: int | None) -> Size:
        """Size at which ``image`` is edited: area about ``resolution`` squared, aspect kept, sides multiples.

        None keeps the picture's own size (rounded down, at most 1024 x 1024 of area).
        """
        return working_size(image.width, image.height, resolution, self.multiple)

    def sigmas(self, steps: int, size: Size) -> Tensor:
        """Noise levels of a sample, ``[steps + 1]`` fp32 from 1 to 0, by the pipeline's scheduler for this size."""
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        config = scheduler.config
        tokens = (size.height // self.multiple) * (size.width // self.multiple)
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
        mu = tokens * slope + config.get("base_shift", 0.5) - slope * low
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), mu=mu)
        return torch.as_tensor(scheduler.sigmas, dtype=torch.float32)

    def pixels(self, images: Sequence[Image.Image], size: Size) -> Tensor:
        """Pictures as the VAE reads them: ``[B, 3, height, width]`` in [-1, 1], resized as the pipeline does."""
        resized = [self.resized(image, size) for image in images]
        pixels = self.pipeline.image_processor.preprocess(resized, size.height, size.width)
        return torch.as_tensor(pixels).to(self.device)

    def resized(self, image: Image.Image, size: Size) -> Image.Image:
        """``image`` in RGB at ``size``, by the pipeline's own resampling."""
        picture: Image.Image = self.pipeline.image_processor.resize(image.convert("RGB"), size.height, size.width)
        return picture

    @abstractmethod
    def encode(
        self, images: Sequence[Image.Image], instructions: Sequence[str], size: Size, reference_size: Size
    ) -> Condition:
        """Encode text and reference once for each edit; all edits of a call share one size."""

    @abstractmethod
    def velocity(self, latents: Tensor, sigma: Tensor, condition: Condition, model: nn.Module | None = None) -> Tensor:
        """V = noise - data, ``[B, tokens, channels]`` fp32, guidance included.

        ``latents`` fp32 of that shape, ``sigma`` ``[B]``; ``model`` replaces the transformer (a frozen reference).
        """

    @abstractmethod
    def initial_noise(self, size: Size, generator: torch.Generator) -> Tensor:
        """Packed starting noise of one sample, ``[tokens, channels]`` fp32 on the CPU, drawn as in the pipeline."""

    def decode(self, latents: Tensor, size: Size) -> list[Image.Image]:
        """Pictures of clean packed latents ``[B, tokens, channels]``. Raises :class:`NotFinite`, where they would be black."""
        pixels = self._decoded(latents, size)
        if not bool(pixels.isfinite().all()):
            raise NotFinite("its pictures are not finite numbers")
        return list(self.pipeline.image_processor.postprocess(pixels, output_type="pil"))

    @abstractmethod
    def _decoded(self, latents: Tensor, size: Size) -> Tensor:
        """The VAE's pixels ``[B, 3, height, width]``, about [-1, 1]."""

    def save(self, folder: Path) -> None:
        """Write the whole pipeline folder (safetensors), loadable by plain diffusers."""
        self.pipeline.save_pretrained(folder, safe_serialization=True)
        _forget_origin(folder)


def working_size(width: int, height: int, resolution: int | None, multiple: int) -> Size:
    """Size of the edit for a picture of ``width`` x ``height``; see :meth:`EditorPolicy.working_size`."""
    if resolution is None:
        scale = min(1.0, math.sqrt(MAX_SIDE * MAX_SIDE / (width * height)))
        sides = [int(side * scale) // multiple * multiple for side in (height, width)]
    else:
        scale = math.sqrt(resolution * resolution / (width * height))
        sides = [round(side * scale / multiple) * multiple for side in (height, width)]
        longest = max(multiple, resolution * resolution // multiple // multiple * multiple)
        sides = [min(side, longest) for side in sides]
    return Size(max(multiple, sides[0]), max(multiple, sides[1]))


def _forget_origin(folder: Path) -> None:
    """Take out of the configs where this machine had loaded them from: equal models have equal digests."""
    for file in [folder / "model_index.json", *folder.rglob("config.json")]:
        told = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(told, dict) and told.pop("_name_or_path", None) is not None:
            file.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
