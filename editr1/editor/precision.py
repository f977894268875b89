"""Numerical precision and attention kernels of the editor.

Sampling and the update must use the same precision and kernels. Otherwise, the update could not reproduce the
log-probabilities from sampling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_ATTENTION_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@contextmanager
def attention_kernels() -> Iterator[None]:
    """Context manager that disables cuDNN's attention kernels.

    The backward pass of cuDNN's attention failed with an illegal memory access on a full-size FLUX.1-Kontext at 512
    pixels (torch 2.11, H200).
    """
    with sdpa_kernel(_ATTENTION_BACKENDS):
        yield


@contextmanager
def precision_context(device: torch.device, precision: Literal["fp32", "bf16-mixed"]) -> Iterator[None]:
    """Context manager that disables cuDNN's attention kernels and, for ``bf16-mixed``, enables autocast to bfloat16.

    Autocast keeps the bfloat16 copies of fp32 weights until the outermost autocast context ends. A block must
    therefore not contain an optimizer step: forward passes after the step would still use the old weights.
    """
    with attention_kernels(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
        yield
