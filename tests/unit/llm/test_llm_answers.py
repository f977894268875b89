"""Extraction of JSON from model answers, and the cache of answers."""

from __future__ import annotations

import pytest

from editr1.llm.answers import UnreadableAnswer, find_json, strip_code_fences
from editr1.llm.cache import AnswerCache


def test_code_fence_lines_are_removed_and_inline_backticks_are_kept() -> None:
    assert strip_code_fences("a ``` b") == "a ``` b"
    assert strip_code_fences("x\n```json\n[1]\n```\ny") == "x\n[1]\ny"


def test_json_is_extracted_from_prose_and_code_fences() -> None:
    assert find_json('Here you are:\n```json\n{"a": [1]}\n```\nDone.', "{") == {"a": [1]}
    assert find_json("first [1, 2] then [3]", "[") == [1, 2]


@pytest.mark.parametrize("text", ["no value", "[1, 2", "[" * 100_000], ids=["none", "truncated", "deep"])
def test_answer_without_valid_json_is_unreadable(text) -> None:
    with pytest.raises(UnreadableAnswer):
        find_json(text, "[")


def test_first_cached_answer_is_kept_after_reopening(tmp_path) -> None:
    with AnswerCache(tmp_path / "a.sqlite") as cache:
        assert cache.get(b"k") is None
        cache.put(b"k", b"one")
        cache.put(b"k", b"two")
    with AnswerCache(tmp_path / "a.sqlite") as cache:
        assert cache.get(b"k") == b"one"


def test_cache_without_a_path_stores_nothing() -> None:
    with AnswerCache(None) as cache:
        cache.put(b"k", b"one")
        assert cache.get(b"k") is None
