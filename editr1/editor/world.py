"""The processes of one training: rank, device and the few exchanges that GRPO needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import PartialState  # type: ignore[import-untyped]
from torch import Tensor

T = TypeVar("T")


class World:
    """One process (started plainly) or N (started by torchrun or accelerate: gloo on CPUs, nccl on GPUs)."""

    def __init__(self) -> None:
        state = PartialState(cpu=not torch.cuda.is_available())
        self.rank = int(state.process_index)
        self.size = int(state.num_processes)
        self.device = torch.device(state.device)

    @property
    def first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Every process's ``value``, in order of rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def any(self, value: bool) -> bool:
        """Whether ``value`` is true in some process."""
        return any(self.gather(value))

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
