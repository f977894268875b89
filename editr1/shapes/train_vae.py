"""Train the VAE of the base editor.

It maps images of 32x32 pixels to latents of shape (4, 4, 4), which have mean 0 and variance 1 per channel.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from editr1.seeding import torch_generator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VaeRecipe:
    """Training settings of the VAE."""

    steps: int = 2000
    """Number of optimizer steps."""
    batch_size: int = 48
    """Number of images per optimizer step."""
    learning_rate: float = 2e-3
    """Peak learning rate, reached after 50 warm-up steps and followed by a cosine decay to 0."""
    noise_start: float = 0.03
    """Standard deviation of the noise that is added to the normalised latents at the first optimizer step."""
    noise_end: float = 0.15
    """Standard deviation of the noise that is added to the normalised latents at the last optimizer step.

    Between the first and the last step, it changes linearly. The noise makes the decoder robust to errors in sampled
    latents.
    """
    latent_penalty: float = 1e-4
    """Weight of the mean square of the latents in the loss. This term keeps the latents small."""
    edge_weight: float = 4.0
    """Additional weight of edges in the L1 term of the loss.

    A pixel has the weight 1 + ``edge_weight`` * c, where c in [0, 1] is its contrast to its neighbours.
    """
    decoder_steps: int = 600
    """Number of optimizer steps for fine-tuning the decoder alone, after the training of the whole VAE."""
    decoder_noise: float = 0.12
    """Standard deviation of the noise that is added to the latents during the fine-tuning of the decoder."""


def train_vae(vae: AutoencoderKL, images: Tensor, recipe: VaeRecipe, seed: int) -> AutoencoderKL:
    """Train ``vae`` in place on ``images``, uint8 (n, 3, S, S), and return it in eval mode.

    The loss is the L1 error, weighted by edges, plus twice the L2 error; there is no KL term. During training, latents are
    normalised per channel with the mean and standard deviation of the batch. At the end, the mean and standard deviation
    over the first 4,096 training images are folded into the layer ``quant_conv``, so that the pipeline can use scaling
    factor 1 and shift 0. The log-variances are set to -12. ``vae`` must have the layer ``quant_conv``.
    """
    generator = torch_generator(seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, recipe.steps))
    vae.train()
    for step in range(recipe.steps):
        rows = torch.randint(len(images), (recipe.batch_size,), generator=generator)
        batch = to_model_range(images[rows])
        noise_std = recipe.noise_start + (recipe.noise_end - recipe.noise_start) * step / max(1, recipe.steps - 1)
        latents = raw_latents(vae, batch)
        mean, std = latents.mean((0, 2, 3), keepdim=True), latents.std((0, 2, 3), keepdim=True)
        normal = (latents - mean) / (std + 1e-5)
        decoded = vae.decode(normal + noise_std * torch.randn(normal.shape, generator=generator)).sample
        loss = _image_loss(decoded, batch, recipe) + recipe.latent_penalty * latents.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 0 or step == recipe.steps - 1:
            logger.info("VAE training: step %d of %d, loss %.4f", step + 1, recipe.steps, loss.item())
    vae.eval()
    bake_normalisation(vae, images[:4096])
    return vae


def finetune_decoder(vae: AutoencoderKL, images: Tensor, recipe: VaeRecipe, seed: int) -> None:
    """Fine-tune only the decoder, in place, on the fixed latents of ``images``, uint8 (n, 3, S, S).

    The encoder does not change, so a flow transformer that was trained on its latents can still be used. The VAE is in eval mode
    afterwards.
    """
    generator = torch_generator(seed)
    latents = encode_images(vae, images)
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate / 2, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, recipe.decoder_steps))
    vae.train()
    for step in range(recipe.decoder_steps):
        rows = torch.randint(len(images), (recipe.batch_size,), generator=generator)
        batch = to_model_range(images[rows])
        noise = torch.randn(latents[rows].shape, generator=generator)
        decoded = vae.decode(latents[rows] + recipe.decoder_noise * noise).sample
        loss = _image_loss(decoded, batch, recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 0 or step == recipe.decoder_steps - 1:
            logger.info("Decoder training: step %d of %d, loss %.4f", step + 1, recipe.decoder_steps, loss.item())
    vae.eval()


@torch.no_grad()
def bake_normalisation(vae: AutoencoderKL, images: Tensor) -> None:
    """Change ``quant_conv`` so that the latents of ``images`` have mean 0 and variance 1 per channel."""
    latents = torch.cat([raw_latents(vae, to_model_range(part)) for part in images.split(256)])
    channels = latents.shape[1]
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    convolution = vae.quant_conv
    convolution.weight[:channels] /= std[:, None, None, None]
    convolution.bias[:channels] = (convolution.bias[:channels] - mean) / std
    convolution.weight[channels:] = 0
    convolution.bias[channels:] = -12


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Encode ``images``, uint8 (n, 3, S, S), to float32 latents (n, 4, S/8, S/8), as the pipeline does."""
    return torch.cat([vae.encode(to_model_range(part)).latent_dist.mode() for part in images.split(256)])


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode ``latents`` (n, 4, S/8, S/8) into images, uint8 (n, 3, S, S)."""
    decoded = torch.cat([vae.decode(part).sample for part in latents.split(256)])
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def raw_latents(vae: AutoencoderKL, batch: Tensor) -> Tensor:
    """Encode images, (b, 3, S, S) in [-1, 1], and return the means of their latent distributions, (b, 4, S/8, S/8)."""
    mean: Tensor = vae.encode(batch).latent_dist.mean
    return mean


def to_model_range(images: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def _image_loss(decoded: Tensor, batch: Tensor, recipe: VaeRecipe) -> Tensor:
    error = decoded - batch
    weight = 1 + recipe.edge_weight * _edges(batch)
    return (weight * error.abs()).mean() + 2 * error.square().mean()


def _edges(batch: Tensor) -> Tensor:
    """Return the contrast of each pixel, (b, 1, S, S) in [0, 1].

    The contrast is the largest difference to the right or lower neighbour in any channel.
    """
    right = functional.pad((batch[..., :, 1:] - batch[..., :, :-1]).abs(), (0, 1, 0, 0))
    down = functional.pad((batch[..., 1:, :] - batch[..., :-1, :]).abs(), (0, 0, 0, 1))
    return torch.maximum(right, down).amax(1, keepdim=True) / 2


def _warm_cosine(step: int, steps: int, warmup: int = 50) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
