"""Precision and attention kernels of the editor, shared by sampling and the update.

If the two used different ones, replayed steps would not reproduce the log-probabilities from sampling.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

_ATTENTION_BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@contextmanager
def precision_context(device: torch.device, precision: Literal["fp32", "bf16-mixed"]) -> Iterator[None]:
    """Run the block with attention kernels other than cuDNN's and, for ``bf16-mixed``, autocast to bfloat16.

    The backward pass of cuDNN attention failed with an illegal memory access on a full-size FLUX.1-Kontext at 512 pixels
    (torch 2.11, H200).
    """
    with (
        sdpa_kernel(_ATTENTION_BACKENDS),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"),
    ):
        yield
