"""Editor policy for FLUX.1-Kontext, which wraps diffusers' ``FluxKontextPipeline``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor, nn

from editr1.editor.policies.base import Condition, EditorPolicy, Size


class FluxKontextPolicy(EditorPolicy):
    """Editor policy for FLUX.1-Kontext. ``guidance`` is the distilled guidance scale.

    The transformer's input sequence consists of the noisy latents and then the latents of the reference image. The first
    component of a position id is 0 for the noisy latents and 1 for the reference image. The pipeline would resize the
    reference image to about 1 megapixel (``_auto_resize``). The policy resizes it to ``reference_size`` instead. A transformer
    without guidance embedding ignores ``guidance``.
    """

    kind = "FluxKontextPipeline"

    def __init__(self, pipeline: Any, *, guidance: float = 2.5, text_length: int | None = None) -> None:
        super().__init__(pipeline, guidance=guidance)
        self.text_length = text_length or min(512, int(self.pipeline.tokenizer_2.model_max_length))

    @torch.no_grad()
    def encode(
        self, images: Sequence[Image.Image], instructions: Sequence[str], size: Size, reference_size: Size
    ) -> Condition:
        """Encode instructions with CLIP (pooled) and T5, and reference images as latents.

        T5 embeddings are padded without a mask, as in the training of FLUX.
        """
        pipe = self.pipeline
        text, pooled, text_ids = pipe.encode_prompt(
            prompt=list(instructions), prompt_2=None, device=self.device, max_sequence_length=self.text_length
        )
        batch, channels = len(images), pipe.transformer.config.in_channels // 4
        pixels = self.pixels(images, reference_size).to(pipe.vae.dtype)
        placeholder = torch.empty(0, device=self.device)
        _, reference, ids, reference_ids = pipe.prepare_latents(
            pixels, batch, channels, size.height, size.width, text.dtype, self.device, None, placeholder
        )
        return Condition(
            rows={"text": text, "pooled": pooled, "reference": reference.float()},
            shared={"text_ids": text_ids, "image_ids": torch.cat([ids, reference_ids], dim=0)},
            size=size,
        )

    def velocity(self, latents: Tensor, sigma: Tensor, condition: Condition, model: nn.Module | None = None) -> Tensor:
        """See :meth:`EditorPolicy.velocity`."""
        transformer = self.transformer if model is None else model
        dtype = self.pipeline.transformer.dtype
        hidden = torch.cat([latents, condition.rows["reference"]], dim=1).to(dtype)
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full((len(latents),), self.guidance, device=latents.device, dtype=torch.float32)
        out = transformer(
            hidden_states=hidden,
            timestep=(sigma * 1000.0).to(dtype) / 1000.0,
            guidance=guidance,
            pooled_projections=condition.rows["pooled"],
            encoder_hidden_states=condition.rows["text"],
            txt_ids=condition.shared["text_ids"],
            img_ids=condition.shared["image_ids"],
            return_dict=False,
        )[0]
        return torch.as_tensor(out[:, : latents.shape[1]]).float()

    def initial_noise(self, size: Size, generator: torch.Generator) -> Tensor:
        """See :meth:`EditorPolicy.initial_noise`."""
        channels = self.transformer.config.in_channels // 4
        factor = self.pipeline.vae_scale_factor
        height, width = size.height // factor, size.width // factor
        noise = randn_tensor((1, channels, height, width), generator=generator, dtype=torch.float32)
        return torch.as_tensor(self.pipeline._pack_latents(noise, 1, channels, height, width))[0]

    @torch.no_grad()
    def _decoded(self, latents: Tensor, size: Size) -> Tensor:
        pipe = self.pipeline
        grid = pipe._unpack_latents(latents, size.height, size.width, pipe.vae_scale_factor).to(pipe.vae.dtype)
        grid = grid / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor
        pixels: Tensor = pipe.vae.decode(grid, return_dict=False)[0]
        return pixels
