"""Reading of responses: unusual forms of a chat completion, and the words of errors."""

from __future__ import annotations

import json
import time

import pytest

from editr1.llm.completion import Answer, NotACompletion, quote_body, read_completion
from editr1.llm.reasoning import strip_reasoning

ARRAY = '[{"question": "a"}]'


def response(*choices: dict, **fields) -> bytes:
    return json.dumps({"choices": list(choices)} | fields).encode()


def choice(content: object, reason: str = "stop", **message) -> dict:
    return {"finish_reason": reason, "message": {"role": "assistant", "content": content} | message}


def read(*choices: dict, **fields) -> list[Answer]:
    return read_completion(response(*choices, **fields), "max_tokens = 64").answers


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (None, (0, 0)),
        ({"prompt_tokens": None, "completion_tokens": None}, (0, 0)),
        ({"prompt_tokens": "many", "completion_tokens": -1}, (0, 0)),
        ([], (0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 7.0}, (5, 7)),
    ],
)
def test_missing_or_invalid_token_counts_are_zero(usage, tokens) -> None:
    found = read_completion(response(choice("a"), usage=usage), "")
    assert (found.prompt_tokens, found.completion_tokens) == tokens


@pytest.mark.parametrize(("indices", "order"), [((1, 0), "ba"), ((None, None), "ab"), ((None, 0), "ab")])
def test_choices_are_sorted_only_if_all_have_an_index(indices, order) -> None:
    choices = [choice(text) | {"index": index} for text, index in zip("ab", indices, strict=True)]
    assert "".join(answer.text for answer in read(*choices)) == order


@pytest.mark.parametrize(
    "content",
    [
        ["x", "y"],
        [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}],
        [{"type": "thinking", "thinking": "z"}, {"text": "x"}, {"type": "output_text", "text": "y"}, None, 3],
        "<think>z</think>\nxy",
    ],
)
def test_content_parts_are_joined_without_reasoning(content) -> None:
    assert read(choice(content, reasoning_content="z")) == [Answer("xy")]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (
            choice(None, "length", reasoning_content="long"),
            "cut off at max_tokens = 64; it contains only reasoning, in reasoning_content",
        ),
        (choice("<think>long", "length"), "cut off at max_tokens = 64; it contains only reasoning, in <think>"),
        (choice(None, "length"), "cut off at max_tokens = 64"),
        (
            choice("", reasoning_content="the words"),
            "the answer is in the field reasoning_content, and the field content is empty: the words",
        ),
        (
            choice("", reasoning=[{"type": "text", "text": "the words"}]),
            "the answer is in the field reasoning, and the field content is empty: the words",
        ),
        (choice("<think>long"), "only reasoning, in <think>"),
        (choice(None, refusal="I cannot do that"), "refused to answer: I cannot do that"),
        (choice(None, "content_filter"), "content filter"),
        (choice(None, "tool_calls", tool_calls=[{"id": "a"}]), "tool call"),
        (choice(None), r"empty \(finish_reason: stop\)"),
        ({"message": None, "finish_reason": "content_filter"}, "no message .*content_filter"),
        ({"error": {"message": "GPU lost"}, "message": None}, "reported an error: GPU lost"),
    ],
)
def test_answer_without_text_says_why(answer, problem) -> None:
    (found,) = read(answer)
    assert found.text == ""
    assert found.truncated == (answer.get("finish_reason") == "length")
    with pytest.raises(ValueError, match=problem):
        raise ValueError(found.explain("no array"))
    assert "no array" not in found.explain("no array")


def test_truncated_answer_keeps_its_text_and_is_reported() -> None:
    (found,) = read(choice('[{"question', "length"))
    assert found == Answer('[{"question', "the answer was cut off at max_tokens = 64", truncated=True)
    assert found.explain("no array") == "the answer was cut off at max_tokens = 64; no array"


def test_one_choice_without_text_does_not_affect_the_others() -> None:
    assert [answer.text for answer in read(choice("a"), {"message": None}, choice("c"))] == ["a", "", "c"]


@pytest.mark.parametrize(
    ("data", "problem", "status"),
    [
        (
            b"<html><head><style>p{}</style></head><body>Please <b>log</b> in</body></html>",
            "not JSON: Please log in",
            None,
        ),
        (b"", r"not JSON: \(empty\)", None),
        (b'{"choices": [', "not JSON", None),
        (b"[" * 100_000, "not JSON", None),
        (b"[]", "not a chat completion", None),
        (b"null", "not a chat completion", None),
        (b'{"choices": []}', "no choices", None),
        (
            b'{"choices": null, "error": {"message": "context window exceeded", "code": 400}}',
            "is an error: context window exceeded",
            400,
        ),
        (b'{"error": {"message": "busy", "code": "503"}}', "is an error: busy", 503),
        (b'{"error": "quota exceeded"}', "is an error: quota exceeded", None),
    ],
)
def test_response_that_is_no_completion_is_quoted(data, problem, status) -> None:
    with pytest.raises(NotACompletion, match=problem) as caught:
        read_completion(data, "")
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b'{"error": {"message": "Unsupported parameter: max_tokens", "type": "x"}}',
            "Unsupported parameter: max_tokens",
        ),
        (b'{"error": "no"}', "no"),
        (b'{"detail": [{"loc": ["body"], "msg": "field required"}]}', "field required"),
        (b'{"object": "error", "message": "too long", "code": 400}', "too long"),
        (b'[{"error": {"message": "quota"}}]', "quota"),
        (b'{"status": 7}', '{"status": 7}'),
        (b"plain\n  text", "plain text"),
        (b"\x1b[31mred", r"\x1b[31mred"),
        (
            b"<!DOCTYPE html><title>502 Bad &amp; Gateway</title><script>if (a<b) x()</script><hr>nginx",
            "502 Bad & Gateway nginx",
        ),
        (b"x" * 400, "x" * 300 + " ..."),
        (b"\xff", "\ufffd"),
    ],
)
def test_words_of_an_error_are_quoted(data, words) -> None:
    assert quote_body(data) == words


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (ARRAY, ARRAY),
        (f"Sure!\n{ARRAY}", f"Sure!\n{ARRAY}"),
        (f"<think>\nThe box is [12, 40].\n</think>\n{ARRAY}", ARRAY),
        (f"<think>[1]</think> <think>[2]</think>\n{ARRAY}", ARRAY),
        (f"Well. <THINKING>[1]</THINKING>{ARRAY}", ARRAY),
        (f"The box is [12, 40].\n</think>\n{ARRAY}", ARRAY),
        (f"<think>a<think>b</think>c</think>{ARRAY}", ARRAY),
        (f"<think>I close the <think> tag, [1]</think>{ARRAY}", ARRAY),
        (f"<think>never closed {ARRAY}", ""),
        (f"<think>a</think><think>never closed {ARRAY}", ""),
        ('[{"question": "Is <think> shown?"}]', '[{"question": "Is <think> shown?"}]'),
        ('[{"question": "Is </think> shown?"}]', '[{"question": "Is </think> shown?"}]'),
        ('<think>x</think>[{"q": "<think>a</think>"}]', '[{"q": "<think>a</think>"}]'),
    ],
)
def test_reasoning_before_the_answer_is_removed(text, answer) -> None:
    assert strip_reasoning(text) == answer


@pytest.mark.parametrize("unit", ["<think>", "</think>", "<think>[</think>", "<think></think> ", "[</think>", "<"])
def test_reasoning_is_removed_in_linear_time(unit) -> None:
    started = time.process_time()
    strip_reasoning(unit * 200_000)
    assert time.process_time() - started < 2.0
