"""Check the files of a model folder before a library loads them.

Only safetensors files are accepted as weights. Pickled files can execute code when they are loaded, and libraries
silently fall back to such files.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from editr1.errors import Editr1Error, ExitCode

PICKLED_SUFFIXES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Suffixes of files that are in a pickle format."""
PICKLED_PATTERNS: Final = [f"*{suffix}" for suffix in PICKLED_SUFFIXES]
"""Patterns of pickled files, to exclude from downloads."""

_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
_INDEX: Final = ".safetensors.index.json"
_MAX_HEADER: Final = 100_000_000  # This limit is part of the safetensors format.


class UnusableModel(Editr1Error, ValueError):
    """A model folder is incomplete or damaged, or its weights are not safetensors.

    The message contains the folder and the files.
    """

    exit_code = ExitCode.INPUT


def check_model_folder(folder: str | Path) -> None:
    """Check that all weights in ``folder`` and its subfolders are complete safetensors files.

    Only the headers of the weight files are read.

    Raises:
        UnusableModel: a file is pickled, truncated or a git-lfs pointer, its header is invalid, or a shard is missing.
    """
    root = Path(folder)
    check_no_pickle(root)
    for path in _files(root):
        if path.suffix == ".safetensors":
            _check_safetensors(path)
        elif path.name.endswith(_INDEX):
            _check_index(path)
        elif _is_lfs_pointer(path):
            raise UnusableModel(_pointer_message(path))


def check_no_pickle(folder: str | Path) -> None:
    """Raise UnusableModel if ``folder`` or a subfolder contains a pickled file."""
    root = Path(folder)
    pickled = [path.relative_to(root).as_posix() for path in _files(root) if path.suffix.lower() in PICKLED_SUFFIXES]
    if pickled:
        raise UnusableModel(
            f"{root}: contains {first_of(pickled)}, which is in a pickle format; weights must be safetensors files: convert"
            " the weights with save_pretrained(..., safe_serialization=True), or remove the file if it is not needed"
        )


def first_of(names: Sequence[str], limit: int = 3) -> str:
    """Format the first names for an error message, followed by the number of the remaining names."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _files(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.rglob("*")) if path.is_file())


def _is_lfs_pointer(path: Path) -> bool:
    if path.stat().st_size > 1024:
        return False
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def _pointer_message(path: Path) -> str:
    return (
        f"{path}: is a git-lfs pointer instead of the file itself; run `git lfs pull` in the repository, or "
        "download the file"
    )


def _check_safetensors(path: Path) -> None:
    if _is_lfs_pointer(path):
        raise UnusableModel(_pointer_message(path))
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else None
        if length is None or length > min(size - 8, _MAX_HEADER):
            raise UnusableModel(_truncated(path, size, "its header is incomplete"))
        header = file.read(length)
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        expected = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
        raise UnusableModel(
            f"{path}: is not a safetensors file: its header cannot be read; use an undamaged copy"
        ) from None
    if size != expected:
        raise UnusableModel(_truncated(path, size, f"its header describes {expected} bytes"))


def _truncated(path: Path, size: int, reason: str) -> str:
    return f"{path}: is truncated or damaged: the file has {size} bytes, but {reason}; copy or download the file again"


def _check_index(path: Path) -> None:
    try:
        shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        missing = [shard for shard in shards if not (path.parent / shard).is_file()]
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise UnusableModel(
            f"{path}: is not an index of safetensors shards; use an undamaged copy of the checkpoint"
        ) from None
    if missing:
        raise UnusableModel(
            f"{path.parent}: {len(missing)} of {len(shards)} weight files of {path.name} are missing, first"
            f" {first_of(missing)}; copy or download these files"
        )
