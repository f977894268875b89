"""Reading and writing a table takes constant memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STREAM = """
import os, resource, sys
from pathlib import Path
from editr1.data.tables import read_table, write_table
from editr1.data.types import Candidate, EditCase, EncodedImage, Quadruple

def row(number):
    source = EncodedImage(data=os.urandom(4000))
    case = EditCase(case_id=f"c{number}", source=source, instruction="do it")
    image = EncodedImage(data=os.urandom(4000))
    return Quadruple(case=case, candidate=Candidate(candidate_id="x", editor="e", image=image))

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

path, images = Path(sys.argv[1]), sys.argv[2]
for count in (2_500, 20_000):
    write_table(path, map(row, range(count)), Quadruple, images=images)
    assert sum(1 for _ in read_table(path, Quadruple)) == count
    print(peak())
"""


@pytest.mark.parametrize("images", ["inline", "digest"])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, images: str) -> None:
    command = [sys.executable, "-c", STREAM, str(tmp_path / "t.parquet"), images]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    small, large = map(float, done.stdout.split())
    # 20,000 rows contain 160 MB of images.
    assert large - small < 50, (small, large)
