"""A full disk is recognised whichever library reports it. /dev/full fails every write with ENOSPC."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from editr1.errors import ExitCode, exit_code_of

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
TENSOR = torch.zeros(200_000)


def _wrapped(file: BinaryIO) -> None:
    try:
        file.write(bytes(1_000_000))
    except OSError as error:
        raise RuntimeError("the dataset could not be generated") from error


# The writers get an open file, because some libraries remove the path of a file that they could not write.
WRITERS: dict[str, Callable[[BinaryIO], object]] = {
    "torch": lambda file: torch.save({"a": TENSOR}, file),
    "torch, legacy format": lambda file: torch.save({"a": TENSOR}, file, _use_new_zipfile_serialization=False),
    "pyarrow": lambda file: pq.write_table(pa.table({"a": np.zeros(100_000)}), file),
    "PIL": lambda file: Image.new("RGB", (500, 500)).save(file, format="bmp"),
    "numpy": lambda file: np.zeros(200_000).tofile(file),
    "another error from it": _wrapped,
}


@pytest.mark.parametrize("name", WRITERS)
def test_full_disk_is_transient_whoever_writes(name: str) -> None:
    with pytest.raises(Exception) as raised, FULL.open("wb", buffering=0) as file:
        WRITERS[name](file)
    assert exit_code_of(raised.value) == ExitCode.TRANSIENT


@pytest.mark.parametrize(
    "error",
    [
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
        shutil.Error([("a", "b", "[Errno 28] No space left on device: 'a' -> 'b'")]),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        OSError("400000 requested and 262128 written"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
)
def test_messages_of_native_libraries_are_recognised(error: Exception) -> None:
    assert exit_code_of(error) == ExitCode.TRANSIENT


def test_other_errors_are_not_taken_for_a_full_disk() -> None:
    assert exit_code_of(OSError(errno.ENOENT, "No such file or directory")) is None
    assert exit_code_of(RuntimeError("[enforce fail at inline_container.cc:300] . file not found: x.pt")) is None
