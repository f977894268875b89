"""The VLM judge over HTTP: which answers it requests again, and when it gives up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from editr1.config.llm import EndpointConfig, VlmConfig
from editr1.evaluation.judge import Ratings, Refused, parse_viescore, vlm_judge
from editr1.evaluation.scoring import TooManyFailures
from editr1.llm.errors import RequestRefused
from tests.integration.failing_chat_server import FailingChatServer, failing_chat_server


@pytest.fixture
def server() -> Iterator[FailingChatServer]:
    with failing_chat_server() as found:
        yield found


def answer(content: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}}]}).encode()


def ask(
    server: FailingChatServer, cache: Path, times: int = 1, max_failed_fraction: float = 1.0
) -> list[str | Refused]:
    endpoints = {"default": EndpointConfig(base_url=server.url)}
    judge_settings = {"cache": cache, "max_side": 64, "seed": 0, "max_failed_fraction": max_failed_fraction}
    with vlm_judge(endpoints, VlmConfig(model="judge"), parse_viescore, **judge_settings) as judge:  # type: ignore[arg-type]
        return [judge(f"Prompt {number}", []) for number in range(times)]


def test_degenerate_answer_is_requested_again_and_a_readable_one_is_kept(server, tmp_path) -> None:
    server.script = [answer("[" * 8000), answer('{"score": [8, 6], "reasoning": "fine"}')]
    (first,) = ask(server, tmp_path / "marks.sqlite")
    assert isinstance(first, str) and not isinstance(parse_viescore(first), Ratings)
    for _ in range(2):
        (text,) = ask(server, tmp_path / "marks.sqlite")
        assert isinstance(text, str) and parse_viescore(text) == Ratings(values=(8.0, 6.0), reasoning="fine")
    assert len(server.seen) == 2


def test_judge_that_refuses_twenty_requests_is_given_up(server, tmp_path) -> None:
    server.script = [400] * 30
    assert all(isinstance(found, Refused) for found in ask(server, tmp_path / "a.sqlite", times=19))
    server.script = [400] * 30
    with pytest.raises(RequestRefused, match=r"all 20 requests to the judge failed: .*status 400: no!"):
        ask(server, tmp_path / "a.sqlite", times=25)


def test_judge_with_too_many_unreadable_answers_is_given_up(server, tmp_path) -> None:
    with pytest.raises(TooManyFailures, match=r"20 of 20 scores failed \(unparsed: 20\)"):
        ask(server, tmp_path / "a.sqlite", times=25, max_failed_fraction=0.5)
