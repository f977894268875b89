"""DistributedContext: ranks from the environment, and collectives in one process and in two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from editr1.parallel.context import DistributedContext

PROGRAM = """
import json, sys
from pathlib import Path
import torch
from editr1.parallel.context import DistributedContext

context = DistributedContext.initialize(cpu=True, timeout_s=60)
parameter = torch.nn.Parameter(torch.tensor([float(context.rank), 5.0]))
context.broadcast_parameters({"weight": parameter})
after_broadcast = parameter.tolist()
if context.rank == 1:
    parameter.grad = torch.tensor([2.0, 3.0])
context.all_reduce_gradients([parameter])
order = []
with context.local_main_process_first():
    done = Path(sys.argv[1]) / "first"
    order.append(done.exists())
    done.touch()
found = {
    "gathered": [part.tolist() for part in context.all_gather(torch.tensor([context.rank, 7]))],
    "texts": context.all_gather_text(["short", "longer ü"][context.rank]),
    "any": [context.any_rank(context.rank == 1), context.any_rank(False)],
    "weight": after_broadcast,
    "gradient": parameter.grad.tolist(),
    "is_main": context.is_main,
    "saw_first": order[0],
}
context.barrier()
(Path(sys.argv[1]) / f"rank-{context.rank}.json").write_text(json.dumps(found))
torch.distributed.destroy_process_group()
"""


def test_ranks_are_read_without_torch_and_without_a_process_group() -> None:
    program = (
        "import sys; from editr1.parallel.context import DistributedContext as C; c = C();"
        "print(c.rank, c.local_rank, c.node_rank, c.world_size, c.is_main, c.is_local_main, 'torch' in sys.modules)"
    )
    ranks = {"RANK": "5", "LOCAL_RANK": "1", "GROUP_RANK": "2", "WORLD_SIZE": "8"}
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, **ranks}, capture_output=True, text=True)
    assert done.stdout.split() == ["5", "1", "2", "8", "False", "False", "False"], done.stderr


def test_single_process_needs_no_process_group() -> None:
    context = DistributedContext()
    value = torch.tensor([1.0])
    assert context.all_gather(value) == [value]
    assert context.all_gather_text("one") == ["one"]
    assert (context.any_rank(True), context.any_rank(False)) == (True, False)
    with context.local_main_process_first():
        context.barrier()
    assert not torch.distributed.is_initialized()


def test_device_is_available_only_after_initialization() -> None:
    with pytest.raises(RuntimeError, match=r"DistributedContext\.initialize\(\)"):
        _ = DistributedContext().device
    assert DistributedContext.initialize(cpu=True).device == torch.device("cpu")


def test_world_size_that_differs_from_accelerate_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RuntimeError, match="torchrun started 3 processes, but accelerate uses 1"):
        DistributedContext.initialize(cpu=True)


def test_collectives_combine_the_values_of_two_ranks(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(tmp_path / "program.py"), str(tmp_path)], capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    for rank, found in enumerate(ranks):
        assert found["gathered"] == [[0, 7], [1, 7]]
        assert found["texts"] == ["short", "longer ü"]
        assert found["any"] == [True, False]
        assert found["weight"] == [0.0, 5.0]  # the values of rank 0
        assert found["gradient"] == [2.0, 3.0]  # rank 0 has no gradient, which counts as zero
        assert found["is_main"] == (rank == 0)
        assert found["saw_first"] == (rank == 1)
