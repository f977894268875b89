"""Two ranks continue from the same checkpoint, also if only one of them finds the newest one damaged."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from editr1.artifacts import open_store
from editr1.runs.checkpoints import StageCheckpoints

PROGRAM = """
import sys
from pathlib import Path
import torch
from editr1.artifacts import open_store, reliable
from editr1.parallel.context import DistributedContext
from editr1.runs.checkpoints import StageCheckpoints

root = Path(sys.argv[1])
group = DistributedContext.initialize(cpu=True)
store = open_store((root / f"store-{group.rank}").as_uri())
found = StageCheckpoints(store, "r", "sft", "a" * 64).fetch_newest(root / f"resume-{group.rank}", chooser=group)
text = "none" if found.folder is None else (found.folder / "weights").read_text()
(root / f"chosen-{group.rank}").write_text(f"{text} {found.passed_over}")
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(("damaged_on", "expected"), [((), "2 False"), ((0,), "1 True"), ((1,), "1 True")])
def test_all_ranks_take_the_same_checkpoint(tmp_path: Path, damaged_on: tuple[int, ...], expected: str) -> None:
    store = open_store((tmp_path / "store-0").as_uri())
    checkpoints = StageCheckpoints(store, "r", "sft", "a" * 64)
    for step in (1, 2):
        (tmp_path / "weights").write_text(str(step))
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        shutil.copy(tmp_path / "weights", folder)
        checkpoints.add(step, store.commit(folder, kind="checkpoint", stage="sft", config_digest="a" * 64).digest)
    shutil.copytree(tmp_path / "store-0", tmp_path / "store-1")
    for rank in damaged_on:
        (blob,) = (
            path
            for path in (tmp_path / f"store-{rank}" / "blobs").rglob("*")
            if path.is_file() and path.read_text() == "2"
        )
        blob.write_text("3")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path / "program.py"), str(tmp_path)],
        cwd=root, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert [(tmp_path / f"chosen-{rank}").read_text() for rank in (0, 1)] == [expected] * 2
    assert ("000000002.json: this checkpoint cannot be used" in done.stderr) == bool(damaged_on)
