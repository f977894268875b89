"""How the editor computes while it samples and learns: both alike, or replay would not match sampling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_ATTENTION = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@contextmanager
def arithmetic(device: torch.device, precision: Literal["fp32", "bf16"]) -> Iterator[None]:
    """Autocast to bfloat16 if asked for, and attention without cuDNN's kernels.

    cuDNN's backward pass ended a full-size FLUX.1-Kontext at 512 pixels with an illegal memory access (torch 2.11, H200).
    """
    with sdpa_kernel(_ATTENTION), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield
