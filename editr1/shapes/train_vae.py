"""Training of the small VAE: 32 px pictures to 4x4x4 latents whose channels have mean 0 and variance 1."""

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
    """Settings of the VAE's training."""

    steps: int = 2000
    """AdamW updates."""
    batch_size: int = 48
    """Pictures an update."""
    learning_rate: float = 2e-3
    """Highest learning rate, after 50 steps of warm-up, before the cosine decay to 0."""
    noise_start: float = 0.03
    """Standard deviation of the noise on normalised latents at the first step."""
    noise_end: float = 0.15
    """The same at the last step; it makes decoding forgive what a sampler leaves over."""
    latent_penalty: float = 1e-4
    """Weight of the mean square of the raw latents, which keeps them from drifting."""
    edge_weight: float = 4.0
    """How much more a pixel on an edge of full contrast counts in the L1 term."""
    polish_steps: int = 600
    """Further updates of the decoder alone, on fixed latents."""
    polish_noise: float = 0.12
    """Standard deviation of the noise on the latents while polishing."""


def train_vae(vae: AutoencoderKL, pictures: Tensor, recipe: VaeRecipe, seed: int) -> AutoencoderKL:
    """Train ``vae`` in place on ``pictures`` (n, 3, S, S) uint8 and return it in eval mode.

    Loss: edge-weighted L1 + 2 L2, without KL. Latents are normalised a channel by the statistics of the batch while
    training; at the end the statistics of the whole set go into ``quant_conv`` (and the log-variance rows become -12),
    so that the pipeline's scaling factor is 1 and its shift 0. Needs the ``quant_conv`` layer.
    """
    generator = torch_generator(seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.learning_rate, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, recipe.steps))
    vae.train()
    for step in range(recipe.steps):
        rows = torch.randint(len(pictures), (recipe.batch_size,), generator=generator)
        batch = to_model_range(pictures[rows])
        noise_std = recipe.noise_start + (recipe.noise_end - recipe.noise_start) * step / max(1, recipe.steps - 1)
        latents = raw_latents(vae, batch)
        mean, std = latents.mean((0, 2, 3), keepdim=True), latents.std((0, 2, 3), keepdim=True)
        normal = (latents - mean) / (std + 1e-5)
        decoded = vae.decode(normal + noise_std * torch.randn(normal.shape, generator=generator)).sample
        loss = _picture_loss(decoded, batch, recipe) + recipe.latent_penalty * latents.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 0 or step == recipe.steps - 1:
            logger.info("vae step %d loss %.4f", step, loss.item())
    vae.eval()
    bake_normalisation(vae, pictures[:4096])
    return vae


def polish_decoder(vae: AutoencoderKL, pictures: Tensor, recipe: VaeRecipe, seed: int) -> None:
    """Train the decoder alone, in place, on the fixed latents of ``pictures`` (n, 3, S, S) uint8; eval mode at the end.

    The latents stay what they are, so that a flow trained on them stays valid.
    """
    generator = torch_generator(seed)
    latents = encode_pictures(vae, pictures)
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate / 2, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, recipe.polish_steps))
    vae.train()
    for step in range(recipe.polish_steps):
        rows = torch.randint(len(pictures), (recipe.batch_size,), generator=generator)
        batch = to_model_range(pictures[rows])
        noise = torch.randn(latents[rows].shape, generator=generator)
        decoded = vae.decode(latents[rows] + recipe.polish_noise * noise).sample
        loss = _picture_loss(decoded, batch, recipe)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        scheduler.step()
        if step % 100 == 0 or step == recipe.polish_steps - 1:
            logger.info("decoder step %d loss %.4f", step, loss.item())
    vae.eval()


@torch.no_grad()
def bake_normalisation(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Fold the channel statistics of ``pictures``' latents into ``quant_conv``, so that latents come out normalised."""
    latents = torch.cat([raw_latents(vae, to_model_range(part)) for part in pictures.split(256)])
    channels = latents.shape[1]
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    convolution = vae.quant_conv
    convolution.weight[:channels] /= std[:, None, None, None]
    convolution.bias[:channels] = (convolution.bias[:channels] - mean) / std
    convolution.weight[channels:] = 0
    convolution.bias[channels:] = -12


@torch.no_grad()
def encode_pictures(vae: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Return the latents (n, 4, S/8, S/8), float32, of ``pictures`` (n, 3, S, S) uint8, as the pipeline would."""
    return torch.cat([vae.encode(to_model_range(part)).latent_dist.mode() for part in pictures.split(256)])


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Return the pictures (n, 3, S, S) uint8 of ``latents`` (n, 4, S/8, S/8)."""
    decoded = torch.cat([vae.decode(part).sample for part in latents.split(256)])
    return ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def raw_latents(vae: AutoencoderKL, batch: Tensor) -> Tensor:
    """Return the means (b, 4, S/8, S/8) of the latents of ``batch`` (b, 3, S, S), values in [-1, 1]."""
    mean: Tensor = vae.encode(batch).latent_dist.mean
    return mean


def to_model_range(pictures: Tensor) -> Tensor:
    """Map uint8 to float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def _picture_loss(decoded: Tensor, batch: Tensor, recipe: VaeRecipe) -> Tensor:
    error = decoded - batch
    weight = 1 + recipe.edge_weight * _edges(batch)
    return (weight * error.abs()).mean() + 2 * error.square().mean()


def _edges(batch: Tensor) -> Tensor:
    """Return (b, 1, S, S) in [0, 1]: the largest step to the right or lower neighbour, over the channels."""
    right = functional.pad((batch[..., :, 1:] - batch[..., :, :-1]).abs(), (0, 1, 0, 0))
    down = functional.pad((batch[..., 1:, :] - batch[..., :-1, :]).abs(), (0, 0, 0, 1))
    return torch.maximum(right, down).amax(1, keepdim=True) / 2


def _warm_cosine(step: int, steps: int, warmup: int = 50) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
