"""Train the flow transformer and the text encoders of the base editor.

The method is rectified flow in latent space. As in FLUX.1 Kontext, the transformer receives the tokens
of the source image as a reference.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FluxKontextPipeline
from torch import Tensor

from editr1.seeding import torch_generator
from editr1.shapes.tiny_editor import T5_LENGTH

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FlowRecipe:
    """Training settings of the flow transformer."""

    steps: int = 3200
    """Number of optimizer steps."""
    batch_size: int = 64
    """Number of training examples (source, instruction, target) per optimizer step."""
    learning_rate: float = 1.5e-3
    """Peak learning rate, reached after 50 warm-up steps. At the end of the training, it decays linearly to 0."""
    decay: float = 0.4
    """Fraction of the optimizer steps, counted from the end of the training, in which the learning rate decays."""
    imperfect: float = 0.65
    """Fraction of the training examples whose target is a faulty edit. They teach the base editor to make faults."""


@dataclass(frozen=True)
class FlowData:
    """Training examples: n instructions, and latents (n, 4, h, w) of source images, perfect edits and faulty edits."""

    sources: Tensor
    perfect: Tensor
    faulty: Tensor
    instructions: Sequence[str]


def train_flow(pipeline: FluxKontextPipeline, data: FlowData, recipe: FlowRecipe, seed: int) -> None:
    """Train the transformer and both text encoders of ``pipeline`` in place, and set them to eval mode.

    With x_t = (1 - t) x_0 + t noise, the model predicts noise - x_0, as the scheduler requires. Each time t is drawn from a
    uniform or from a logit-normal distribution, with equal probability. As in the pipeline, prompts are padded to
    ``T5_LENGTH`` tokens, and attention to the padding is not masked.
    """
    generator = torch_generator(seed)
    parts = (pipeline.transformer, pipeline.text_encoder, pipeline.text_encoder_2)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_linear(step, recipe))
    sources, perfect, faulty = (pack(part) for part in (data.sources, data.perfect, data.faulty))
    clip_ids, t5_ids = _tokenize(pipeline, data.instructions)
    image_ids, text_ids = _positions(data.sources)
    for part in parts:
        part.train()
    running = 0.0
    for step in range(recipe.steps):
        rows = torch.randint(len(sources), (recipe.batch_size,), generator=generator)
        imperfect = torch.rand(recipe.batch_size, generator=generator) < recipe.imperfect
        target = torch.where(imperfect[:, None, None], faulty[rows], perfect[rows])
        times = _sample_times(recipe.batch_size, generator)
        noise = torch.randn(target.shape, generator=generator)
        mixed = torch.lerp(target, noise, times[:, None, None])
        pooled = pipeline.text_encoder(clip_ids[rows]).pooler_output
        prompt = pipeline.text_encoder_2(t5_ids[rows])[0]
        velocity = pipeline.transformer(
            hidden_states=torch.cat([mixed, sources[rows]], dim=1),
            timestep=times,
            pooled_projections=pooled,
            encoder_hidden_states=prompt,
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0][:, : target.shape[1]]
        loss = (velocity - (noise - target)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        running = loss.item() if step == 0 else 0.99 * running + 0.01 * loss.item()
        if step % 100 == 0 or step == recipe.steps - 1:
            logger.info("Flow training: step %d of %d, loss %.4f", step + 1, recipe.steps, running)
    for part in parts:
        part.eval()


def pack(latents: Tensor) -> Tensor:
    """Convert latents (n, c, h, w) to the tokens (n, h/2 * w/2, 4 c) of the Flux transformer."""
    count, channels, height, width = latents.shape
    cells = latents.reshape(count, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(count, (height // 2) * (width // 2), channels * 4)


def _tokenize(pipeline: Any, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
    texts = list(instructions)
    clip = pipeline.tokenizer(texts, padding="longest", truncation=True, return_tensors="pt")
    t5 = pipeline.tokenizer_2(texts, padding="max_length", max_length=T5_LENGTH, return_tensors="pt")
    if t5.input_ids.shape[1] != T5_LENGTH:
        raise ValueError(
            f"an instruction has {t5.input_ids.shape[1]} tokens; at most {T5_LENGTH} are allowed, so shorten the instruction"
        )
    return clip.input_ids, t5.input_ids


def _positions(latents: Tensor) -> tuple[Tensor, Tensor]:
    """Return the position ids of the image tokens and of the text tokens.

    The image tokens consist of the tokens of the target image, followed by the tokens of the reference image. The
    first component of a position id is 0 in the target image and 1 in the reference image. All position ids of text
    tokens are 0.
    """
    rows, columns = latents.shape[2] // 2, latents.shape[3] // 2
    ids = torch.cartesian_prod(torch.zeros(1), torch.arange(rows).float(), torch.arange(columns).float())
    reference = ids.clone()
    reference[:, 0] = 1
    return torch.cat([ids, reference]), torch.zeros(T5_LENGTH, 3)


def _sample_times(count: int, generator: torch.Generator) -> Tensor:
    uniform = torch.rand(count, generator=generator)
    logit_normal = torch.randn(count, generator=generator).sigmoid()
    return torch.where(torch.rand(count, generator=generator) < 0.5, uniform, logit_normal)


def _warm_linear(step: int, recipe: FlowRecipe, warmup: int = 50) -> float:
    left = (recipe.steps - step) / max(1.0, recipe.decay * recipe.steps)
    return min(1.0, (step + 1) / warmup, left)
