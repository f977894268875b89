"""Intermediate files of earlier attempts are used again only if they are complete and unchanged."""

from pathlib import Path

from editr1.stages.runtime.sealed import is_intact, seal


def test_only_a_complete_and_unchanged_file_is_intact(tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    assert not is_intact(file)
    file.write_bytes(b"rows")
    assert not is_intact(file), "the attempt may have been killed while it wrote the file"
    seal(file)
    assert is_intact(file)
    file.write_bytes(b"rovs")
    assert not is_intact(file)
    seal(file)
    (tmp_path / "rows.parquet.sha256").write_bytes(b"\xff")
    assert not is_intact(file)
