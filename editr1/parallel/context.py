"""Ranks, device and collectives for stages that run on several processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DistributedContext:
    """Ranks, device and collectives of the processes that run one stage together.

    ``DistributedContext()`` only reads the ranks that torchrun sets in the environment. It imports neither torch nor
    accelerate and creates no process group, so every stage can use it to decide which process writes files.
    :meth:`initialize` joins the process group as well. Collectives require the process group if ``world_size`` is above
    1. In a process that was started without torchrun, they return their input.
    """

    def __init__(self) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        """Rank of this process among all processes of the stage."""
        self.local_rank = int(os.environ.get("LOCAL_RANK", "0"))
        """Rank of this process among the processes on its node."""
        self.node_rank = int(os.environ.get("GROUP_RANK", "0"))
        """Rank of the node on which this process runs."""
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))
        """Number of processes of the stage."""
        self._state: Any = None

    @classmethod
    def initialize(cls, *, cpu: bool | None = None, timeout_s: float | None = None) -> DistributedContext:
        """Join the process group (gloo on CPUs, NCCL on GPUs) and select the device of this process.

        Args:
            cpu: whether to use the CPU instead of a GPU. By default, the CPU is used only if CUDA is not available.
            timeout_s: how long a collective waits for the other ranks, in seconds. The default is torch's default
                timeout. Only the first call in a process sets the timeout, because the process group is created only
                once.

        Raises:
            RuntimeError: accelerate uses a different number of processes than torchrun started.
        """
        import torch
        from accelerate import PartialState  # type: ignore[import-untyped]

        context = cls()
        options = {} if timeout_s is None else {"timeout": timedelta(seconds=timeout_s)}
        state = PartialState(cpu=not torch.cuda.is_available() if cpu is None else cpu, **options)
        if int(state.num_processes) != context.world_size:
            raise RuntimeError(
                f"torchrun started {context.world_size} processes, but accelerate uses {state.num_processes};"
                " unset the ACCELERATE_* variables and start the stage with torchrun"
            )
        context._state = state
        return context

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, which writes files and reports progress."""
        return self.rank == 0

    @property
    def is_local_main(self) -> bool:
        """Whether this process is the first process on its node."""
        return self.local_rank == 0

    @property
    def device(self) -> torch.device:
        """Device of this process. Raises RuntimeError if the context was not created by :meth:`initialize`."""
        import torch

        if self._state is None:
            raise RuntimeError("no device has been selected; create the context with DistributedContext.initialize()")
        return torch.device(self._state.device)

    def all_gather(self, values: Tensor) -> list[Tensor]:
        """Return a list with the ``values`` of every rank, in rank order and on the CPU.

        ``values`` must have the same shape and dtype on all ranks.
        """
        if self.world_size == 1:
            return [values]
        import torch
        import torch.distributed as dist

        local = values.to(self.device).contiguous()
        gathered = [torch.empty_like(local) for _ in range(self.world_size)]
        dist.all_gather(gathered, local)
        return [part.cpu() for part in gathered]

    def all_gather_text(self, text: str) -> list[str]:
        """Return a list with the ``text`` of every rank, in rank order. ``text`` must not be empty."""
        if self.world_size == 1:
            return [text]
        import torch

        encoded = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        sizes = [int(size) for size in self.all_gather(torch.tensor([len(encoded)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(encoded)] = encoded
        parts = self.all_gather(padded)
        return [bytes(part[:size].tolist()).decode() for part, size in zip(parts, sizes, strict=True)]

    def any_rank(self, value: bool) -> bool:
        """Return True on every rank if ``value`` is true on at least one rank."""
        if self.world_size == 1:
            return value
        import torch
        import torch.distributed as dist

        flag = torch.tensor(int(value), device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

    def barrier(self) -> None:
        """Wait until every rank has reached this call."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.barrier()

    @contextmanager
    def local_main_process_first(self) -> Iterator[None]:
        """Run the ``with`` block on the first process of each node, and then on the other processes of the node."""
        if self.world_size == 1:
            yield
            return
        if self._state is None:
            raise RuntimeError("there is no process group yet; create the context with DistributedContext.initialize()")
        with self._state.local_main_process_first():
            yield

    def broadcast_parameters(self, parameters: Mapping[str, Tensor]) -> None:
        """Overwrite the parameters of every rank in place with the parameters of rank 0."""
        if self.world_size > 1:
            import torch.distributed as dist

            for parameter in parameters.values():
                dist.broadcast(parameter.detach(), 0)

    def all_reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient in place with its sum over all ranks. A missing gradient counts as zero."""
        if self.world_size == 1:
            return
        import torch
        import torch.distributed as dist

        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
