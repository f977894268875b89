"""Cached training rows are written again if a file of the cache was changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from editr1.parallel.context import DistributedContext
from editr1.verifier.rows import RowCache


def test_changed_file_of_the_cache_is_written_again(tmp_path: Path) -> None:
    table, calls = tmp_path / "rows.parquet", 0
    table.write_bytes(b"rows")

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal calls
        calls += 1
        yield from ({"text": f"row {i}"} for i in range(3))

    def texts() -> list[str]:
        return list(RowCache(tmp_path / "cache", DistributedContext()).dataset(rows, table, "sft")["text"])

    expected = ["row 0", "row 1", "row 2"]
    assert texts() == expected == texts()
    assert calls == 1, "the second call uses the cache"
    (file,) = (tmp_path / "cache").rglob("*.arrow")
    data = file.read_bytes()
    assert data.count(b"row 1") == 1
    file.write_bytes(data.replace(b"row 1", b"row 7"))
    assert texts() == expected
    assert calls == 2
