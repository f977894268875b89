"""The processes of one training: rank, device and the few exchanges that GRPO needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState  # type: ignore[import-untyped]
from torch import Tensor


class DistributedContext:
    """One process (started plainly) or N (started by torchrun or accelerate: gloo on CPUs, nccl on GPUs)."""

    def __init__(self, wait_s: float = 0.0) -> None:
        """``wait_s``: so long one process may wait for its scores while the others wait for it, in seconds."""
        timeout = timedelta(seconds=max(1800.0, wait_s + 600.0))  # nccl's own is ten minutes
        state = PartialState(cpu=not torch.cuda.is_available(), timeout=timeout)
        self.rank = int(state.process_index)
        self.size = int(state.num_processes)
        self.device = torch.device(state.device)

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def gather(self, values: Tensor) -> list[Tensor]:
        """Every process's ``values``, in order of rank, on the CPU; shape and dtype must be the same everywhere."""
        if self.size == 1:
            return [values]
        own = values.to(self.device).contiguous()
        found = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(found, own)
        return [part.cpu() for part in found]

    def gather_text(self, text: str) -> list[str]:
        """Every process's ``text`` (not empty), in order of rank. Bytes travel, never pickles."""
        if self.size == 1:
            return [text]
        own = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self.gather(torch.tensor([len(own)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(own)] = own
        parts = self.gather(padded)
        return [bytes(part[:size].tolist()).decode() for part, size in zip(parts, sizes, strict=True)]

    def any(self, value: bool) -> bool:
        """Whether ``value`` is true in some process."""
        return any(bool(part) for part in self.gather(torch.tensor([int(value)])))

    def barrier(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier()

    def broadcast(self, weights: Mapping[str, Tensor]) -> None:
        """Give every process the first one's weights."""
        if self.size > 1:
            for weight in weights.values():
                dist.broadcast(weight.detach(), 0)

    def sum_gradients(self, weights: Iterable[Tensor]) -> None:
        """Add the gradients of all processes; a missing gradient counts as zero."""
        if self.size == 1:
            return
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            dist.all_reduce(weight.grad)
