"""Editor policy for Qwen-Image-Edit, which wraps diffusers' ``QwenImageEditPipeline``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from editr1.editor.policies.base import Condition, EditorPolicy, Size
from editr1.editor.policies.components import load_pipeline
from editr1.editor.policies.qwen_processor import load_image_processor, restore_processor


class QwenImageEditPolicy(EditorPolicy):
    """Editor policy for Qwen-Image-Edit. ``guidance`` is the scale of classifier-free guidance.

    The reference image is used twice: Qwen2.5-VL encodes it together with the instruction, and its latents follow the noisy
    latents in the transformer's input sequence.

    A ``guidance`` above 1 adds a second forward pass with ``negative_prompt``. The combined prediction is rescaled to
    the norm of the conditional prediction, as in the pipeline. Sampling and the update both use guidance.
    """

    kind = "QwenImageEditPipeline"

    def __init__(self, pipeline: Any, *, guidance: float = 4.0, negative_prompt: str = " ") -> None:
        super().__init__(pipeline, guidance=guidance)
        self.negative_prompt = negative_prompt

    @classmethod
    def load_pipeline(cls, folder: Path, dtype: torch.dtype) -> Any:
        """Load the pipeline in ``folder``. If torchvision is not installed, the pipeline's processor does not support videos."""
        processor = load_image_processor(folder)
        components = {} if processor is None else {"processor": processor}
        return load_pipeline(folder, dtype, **components)

    def _write(self, folder: Path) -> None:
        super()._write(folder)
        restore_processor(self.pipeline.processor, folder)

    @torch.no_grad()
    def encode(
        self, images: Sequence[Image.Image], instructions: Sequence[str], size: Size, reference_size: Size
    ) -> Condition:
        """Encode each instruction and its reference image with Qwen2.5-VL, and the reference image also as latents."""
        pipe = self.pipeline
        references = [self.resized(image, reference_size) for image in images]
        rows = self._text(list(instructions), references, "")
        if self.guidance > 1.0:
            rows |= self._text([self.negative_prompt] * len(references), references, "negative_")
        batch, channels = len(images), pipe.transformer.config.in_channels // 4
        pixels = self.pixels(references, reference_size).unsqueeze(2).to(pipe.vae.dtype)
        placeholder = torch.empty(0, device=self.device)
        dtype = rows["text"].dtype
        _, reference = pipe.prepare_latents(
            pixels, batch, channels, size.height, size.width, dtype, self.device, None, placeholder
        )
        shapes = [(1, s.height // self.multiple, s.width // self.multiple) for s in (size, reference_size)]
        return Condition(rows={**rows, "reference": reference.float()}, shared={"shapes": shapes}, size=size)

    def velocity(self, latents: Tensor, sigma: Tensor, condition: Condition, model: nn.Module | None = None) -> Tensor:
        """See :meth:`EditorPolicy.velocity`."""
        transformer = self.transformer if model is None else model
        dtype = self.pipeline.transformer.dtype
        common: dict[str, Any] = {
            "hidden_states": torch.cat([latents, condition.rows["reference"]], dim=1).to(dtype),
            "timestep": (sigma * 1000.0).to(dtype) / 1000.0,
            "guidance": self._distilled_guidance(latents),
            "img_shapes": [condition.shared["shapes"]] * len(latents),
            "return_dict": False,
        }
        velocity = self._forward(transformer, common, condition, "", latents.shape[1])
        if self.guidance <= 1.0:
            return velocity
        negative = self._forward(transformer, common, condition, "negative_", latents.shape[1])
        combined = negative + self.guidance * (velocity - negative)
        scale: Tensor = velocity.norm(dim=-1, keepdim=True) / combined.norm(dim=-1, keepdim=True)
        return combined * scale

    def initial_noise(self, size: Size, generator: torch.Generator) -> Tensor:
        """See :meth:`EditorPolicy.initial_noise`."""
        channels = self.transformer.config.in_channels // 4
        factor = self.pipeline.vae_scale_factor
        height, width = size.height // factor, size.width // factor
        noise = randn_tensor((1, 1, channels, height, width), generator=generator, dtype=torch.float32)
        return torch.as_tensor(self.pipeline._pack_latents(noise, 1, channels, height, width))[0]

    @torch.no_grad()
    def _decoded(self, latents: Tensor, size: Size) -> Tensor:
        pipe, vae = self.pipeline, self.pipeline.vae
        grid = pipe._unpack_latents(latents, size.height, size.width, pipe.vae_scale_factor).to(vae.dtype)
        shape = (1, vae.config.z_dim, 1, 1, 1)
        mean, std = (torch.tensor(v).view(shape).to(grid) for v in (vae.config.latents_mean, vae.config.latents_std))
        pixels: Tensor = vae.decode(grid * std + mean, return_dict=False)[0][:, :, 0]
        return pixels

    def _text(self, prompts: list[str], references: list[Image.Image], prefix: str) -> dict[str, Tensor]:
        text, mask = self.pipeline.encode_prompt(prompt=prompts, image=references, device=self.device)
        rows = {f"{prefix}text": text}
        if mask is not None:
            rows[f"{prefix}mask"] = mask
        return rows

    def _distilled_guidance(self, latents: Tensor) -> Tensor | None:
        if not self.transformer.config.guidance_embeds:
            return None
        return torch.full((len(latents),), self.guidance, device=latents.device, dtype=torch.float32)

    def _forward(
        self, transformer: Any, common: dict[str, Any], condition: Condition, prefix: str, tokens: int
    ) -> Tensor:
        out = transformer(
            encoder_hidden_states=condition.rows[f"{prefix}text"],
            encoder_hidden_states_mask=condition.rows.get(f"{prefix}mask"),
            **common,
        )[0]
        return torch.as_tensor(out[:, :tokens]).float()
