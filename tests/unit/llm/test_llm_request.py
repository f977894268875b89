"""The JSON of chat requests, and the delay before a retry."""

from __future__ import annotations

import time
from email.utils import formatdate

import orjson
import pytest
from pydantic import ValidationError

from editr1.config.llm import EndpointConfig
from editr1.llm.request import ChatRequest
from editr1.llm.retries import requested_delay, retry_delay

REQUEST = ChatRequest(
    "m", [{"role": "user", "content": "x"}], 64, 0.5, n=2, seed=3, sampling={"top_p": 0.9, "top_k": -1}
)


def sent(request: ChatRequest = REQUEST, **settings) -> dict:
    return orjson.loads(request.encode(EndpointConfig(**settings)))


def test_default_parameters() -> None:
    assert sent() == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "temperature": 0.5,
        "max_tokens": 64,
        "n": 2,
        "seed": 3,
        "top_p": 0.9,
        "top_k": -1,
    }
    assert not {"n", "seed"} & set(sent(ChatRequest("m", [], 1, 0.0)))


def test_length_parameter_is_renamed() -> None:
    body = sent(length_parameter="max_completion_tokens")
    assert body["max_completion_tokens"] == 64
    assert "max_tokens" not in body


@pytest.mark.parametrize("length_parameter", ["max_tokens", "max_completion_tokens"])
def test_parameters_are_omitted(length_parameter) -> None:
    omitted = ["temperature", "seed", "top_k", "max_tokens"]
    assert set(sent(omit_parameters=omitted, length_parameter=length_parameter)) == {"model", "messages", "n", "top_p"}


def test_extra_fields_are_added_and_replace_others() -> None:
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_p": 0.5}
    body = sent(extra_body=extra)
    assert {name: body[name] for name in extra} == extra


@pytest.mark.parametrize(
    "settings", [{"extra_body": {"messages": []}}, {"extra_body": {"stream": True}}, {"omit_parameters": ["model"]}]
)
def test_settings_that_break_requests_are_refused(settings) -> None:
    with pytest.raises(ValidationError):
        EndpointConfig(**settings)


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({"Retry-After": "4"}, 4.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After-Ms": "20", "Retry-After": "9"}, 0.02),
    ],
)
def test_requested_delay_in_seconds_is_observed(headers, delay) -> None:
    assert requested_delay(headers) == delay
    assert delay <= retry_delay(0, delay) <= delay + 1.0


def test_requested_delay_may_be_a_date() -> None:
    delay = requested_delay({"Retry-After": formatdate(time.time() + 30, usegmt=True)})
    assert delay is not None
    assert 20.0 < delay <= 30.0


@pytest.mark.parametrize(
    "value", ["", "soon", "0", "-3", "nan", "inf", "Thu, 01 Jan 1970 00:00:00 GMT", "Thu, 99 Xxx 2026"]
)
def test_unusable_delay_is_ignored(value) -> None:
    assert requested_delay({"Retry-After": value}) is None


def test_delay_grows_to_a_limit() -> None:
    assert 0.5 <= retry_delay(0, None) <= 0.65
    assert 8.0 <= retry_delay(20, None) <= 9.0
    assert 120.0 <= retry_delay(0, 86_400.0) <= 121.0
