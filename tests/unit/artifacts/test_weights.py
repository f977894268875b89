"""Check of weight files without loading them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from editr1.artifacts.weights import UnusableModel, check_model_folder
from editr1.errors import ExitCode

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n"


def safetensors(size: int = 4) -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def test_complete_safetensors_and_other_files_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "model.safetensors").write_bytes(safetensors())
    (tmp_path / "config.json").write_text("{}")
    check_model_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("sub/pytorch_model.bin", b"x", "pickle format"),
        ("sub/MODEL.PT", b"x", "pickle format"),
        ("sub/model.ckpt", b"x", "pickle format"),
        ("sub/model.pth", b"x", "pickle format"),
        ("sub/model.pkl", b"x", "pickle format"),
        ("sub/model.safetensors", LFS_POINTER, "git-lfs pointer"),
        ("sub/tokenizer.json", LFS_POINTER, "git-lfs pointer"),
        ("sub/model.safetensors", b"", "truncated or damaged"),
        ("sub/model.safetensors", safetensors()[:20], "truncated or damaged"),
        ("sub/model.safetensors", safetensors()[:-1], "truncated or damaged"),
        ("sub/model.safetensors", safetensors() + b"x", "truncated or damaged"),
        ("sub/model.safetensors", struct.pack("<Q", 2) + b"[]", "not a safetensors file"),
        ("sub/model.safetensors", struct.pack("<Q", 20000) + b"[" * 20000, "not a safetensors file"),
        (
            "sub/model.safetensors.index.json",
            b'{"weight_map": {"w": "model-1-of-2.safetensors"}}',
            "1 of 1 weight files",
        ),
        ("sub/model.safetensors.index.json", b"{}", "not an index"),
    ],
)
def test_damaged_or_pickled_file_is_refused_with_its_name(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    path = tmp_path / name
    path.parent.mkdir()
    path.write_bytes(data)
    with pytest.raises(UnusableModel, match=reason) as raised:
        check_model_folder(tmp_path)
    assert Path(name).name in str(raised.value)
    assert raised.value.exit_code == ExitCode.INPUT
