"""The cache of model answers survives damage of its file."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from editr1.llm.cache import AnswerCache

DIGEST = bytes(range(32))


def fill(path: Path) -> None:
    with AnswerCache(path) as cache:
        cache.put(DIGEST, b"answer")
        for i in range(500):
            cache.put(i.to_bytes(32, "big"), b"x" * 200)


@pytest.mark.parametrize("damage", ["cut off", "garbage", "page overwritten"])
def test_damaged_file_is_set_aside_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "answers.sqlite"
    fill(path)
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut off": data[:5000],
            "garbage": b"garbage" * 999,
            "page overwritten": data[:8192] + b"\xff" * 8192 + data[16384:],
        }[damage]
    )
    with caplog.at_level(logging.WARNING), AnswerCache(path) as cache:
        assert cache.get(DIGEST) is None
        cache.put(DIGEST, b"again")
        assert cache.get(DIGEST) == b"again"
    assert str(path) in caplog.text and (tmp_path / "answers.sqlite.damaged").is_file()


def test_whole_file_is_used_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "answers.sqlite")
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        assert cache.get(DIGEST) == b"answer"
    assert not caplog.text


def test_changed_answer_is_removed_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "answers.sqlite"
    with AnswerCache(path) as cache:
        cache.put(DIGEST, b"answer")
    database = sqlite3.connect(path)
    database.execute("UPDATE checked_answers SET reply = ?", (b"ansver",))
    database.commit()
    database.close()
    with AnswerCache(path) as cache:
        assert cache.get(DIGEST) is None
        cache.put(DIGEST, b"again")
        assert cache.get(DIGEST) == b"again"
    assert str(path) in caplog.text and DIGEST.hex() in caplog.text
