"""Base class of editor policies. A policy wraps a diffusers editing pipeline so that single denoising steps can be trained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from editr1.artifacts.export import remove_origin
from editr1.data.rules import MAX_ASPECT_RATIO
from editr1.editor.policies.components import load_pipeline
from editr1.editor.policies.tokenizers import TokenizerStates

MAX_SIDE = 1024
"""Square root of the maximum area, in pixels, of an edited image if no ``resolution`` is set."""


class NotFinite(ArithmeticError):
    """An image or a training gradient of the editor contains NaN or infinity."""


@dataclass(frozen=True)
class Size:
    """Size of an image in pixels."""

    height: int
    width: int


@dataclass(frozen=True)
class Condition:
    """Conditioning inputs of the transformer: encoded instructions and reference images, for edits of the same size.

    Attributes:
        rows: Tensors with one row per edit.
        shared: Inputs that are the same for all edits, such as position ids and shapes.
        size: Size of the edits.
    """

    rows: Mapping[str, Tensor]
    shared: Mapping[str, Any]
    size: Size

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))

    def take(self, index: Tensor) -> Condition:
        """Return a condition that consists of the rows with the indices ``index`` ``[B]``.

        A row may occur several times.
        """
        return Condition(
            {name: rows[index.to(rows.device)] for name, rows in self.rows.items()}, self.shared, self.size
        )


class EditorPolicy(ABC):
    """An editor as a velocity field over packed latents ``[B, tokens, channels]``.

    Preprocessing, noise levels and velocities are those of the diffusers pipeline. With the same initial noise and
    without stochastic steps, the samples are identical to the output of the pipeline.
    """

    kind: ClassVar[str]
    """Name of the pipeline class in ``model_index.json``."""

    def __init__(self, pipeline: Any, *, guidance: float = 2.5) -> None:
        self.pipeline = pipeline
        self.guidance = guidance
        self._tokenizers = TokenizerStates(pipeline.components)
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                component.requires_grad_(False).eval()

    @classmethod
    def load_pipeline(cls, folder: Path, dtype: torch.dtype) -> Any:
        """Load the pipeline in ``folder`` with weights in ``dtype``. See :func:`load_pipeline`."""
        return load_pipeline(folder, dtype)

    @property
    def transformer(self) -> Any:
        """The denoising transformer, the only component that is trained."""
        return self.pipeline.transformer

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return torch.device(self.transformer.device)

    @property
    def multiple(self) -> int:
        """Number of pixels of which the height and the width of an edited image are multiples: the VAE factor times the packing factor."""
        return int(self.pipeline.vae_scale_factor) * 2

    def to(self, device: torch.device | str) -> EditorPolicy:
        """Move all models to ``device`` and return the policy."""
        self.pipeline.to(device)
        return self

    def working_size(self, image: Image.Image, resolution: int | None) -> Size:
        """Return the size at which ``image`` is edited.

        The area is about ``resolution`` squared, the aspect ratio is preserved, and the sides are multiples of
        ``multiple``. If ``resolution`` is None, the size is unchanged, except that the sides are rounded down to
        multiples and the area is limited to 1024 x 1024 pixels. The aspect ratio is limited to the maximum that a
        verifier accepts (200).
        """
        return working_size(image.width, image.height, resolution, self.multiple)

    def sigmas(self, steps: int, size: Size) -> Tensor:
        """Return the scheduler's noise levels for ``steps`` denoising steps at ``size``: ``[steps + 1]`` fp32 from 1 to 0."""
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        config = scheduler.config
        tokens = (size.height // self.multiple) * (size.width // self.multiple)
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (high - low)
        mu = tokens * slope + config.get("base_shift", 0.5) - slope * low
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps), mu=mu)
        return torch.as_tensor(scheduler.sigmas, dtype=torch.float32)

    def pixels(self, images: Sequence[Image.Image], size: Size) -> Tensor:
        """Return images as VAE inputs ``[B, 3, height, width]`` in [-1, 1], resized as in the pipeline."""
        resized = [self.resized(image, size) for image in images]
        pixels = self.pipeline.image_processor.preprocess(resized, size.height, size.width)
        return torch.as_tensor(pixels).to(self.device)

    def resized(self, image: Image.Image, size: Size) -> Image.Image:
        """Return ``image`` in RGB, resized to ``size`` as in the pipeline."""
        resized: Image.Image = self.pipeline.image_processor.resize(image.convert("RGB"), size.height, size.width)
        return resized

    @abstractmethod
    def encode(
        self, images: Sequence[Image.Image], instructions: Sequence[str], size: Size, reference_size: Size
    ) -> Condition:
        """Encode the instruction and the reference image of each edit. All edits in a call have the same size."""

    @abstractmethod
    def velocity(self, latents: Tensor, sigma: Tensor, condition: Condition, model: nn.Module | None = None) -> Tensor:
        """Predict the velocity (noise - data) with guidance applied, ``[B, tokens, channels]`` fp32.

        Args:
            latents: ``[B, tokens, channels]`` fp32.
            sigma: ``[B]`` noise levels.
            condition: Conditioning inputs with one row per sample.
            model: Transformer to use instead of the trained one, such as a frozen reference.
        """

    @abstractmethod
    def initial_noise(self, size: Size, generator: torch.Generator) -> Tensor:
        """Draw the packed initial noise of one sample, ``[tokens, channels]`` fp32 on the CPU, as the pipeline does."""

    def decode(self, latents: Tensor, size: Size) -> list[Image.Image]:
        """Decode clean packed latents ``[B, tokens, channels]`` to images.

        Raises:
            NotFinite: A decoded image has NaN or infinite pixels. Converted to 8 bits, such an image would be black.
        """
        pixels = self._decoded(latents, size)
        if not bool(pixels.isfinite().all()):
            raise NotFinite("the decoded images have NaN or infinite pixels")
        return list(self.pipeline.image_processor.postprocess(pixels, output_type="pil"))

    @abstractmethod
    def _decoded(self, latents: Tensor, size: Size) -> Tensor:
        """Decode latents with the VAE. Return pixels ``[B, 3, height, width]``, approximately in [-1, 1]."""

    def save(self, folder: Path) -> None:
        """Write a complete pipeline folder with safetensors weights. diffusers can load it without this package."""
        self._tokenizers.restore()
        self._write(folder)
        remove_origin(folder)

    def _write(self, folder: Path) -> None:
        """Write the files of the pipeline folder, as diffusers does."""
        self.pipeline.save_pretrained(folder, safe_serialization=True)


def working_size(width: int, height: int, resolution: int | None, multiple: int) -> Size:
    """Return the size at which a ``width`` x ``height`` image is edited; see :meth:`EditorPolicy.working_size`."""
    if resolution is None:
        scale = min(1.0, math.sqrt(MAX_SIDE * MAX_SIDE / (width * height)))
        sides = [int(side * scale) // multiple * multiple for side in (height, width)]
    else:
        scale = math.sqrt(resolution * resolution / (width * height))
        sides = [round(side * scale / multiple) * multiple for side in (height, width)]
        longest = max(multiple, resolution * resolution // multiple // multiple * multiple)
        sides = [min(side, longest) for side in sides]
    height, width = (max(multiple, side) for side in sides)
    # Rounding must not cause an aspect ratio that the verifier does not accept.
    longest = int(MAX_ASPECT_RATIO) * min(height, width)
    return Size(min(height, longest), min(width, longest))
