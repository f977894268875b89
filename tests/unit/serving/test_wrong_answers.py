"""Responses that do not belong to the request or contradict themselves: they are refused, repeated and counted, never used."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from editr1.config.serve import ClientConfig
from editr1.data.types import Category, FailureCause, Principle, Scored, ScoreFailure
from editr1.errors import ExitCode
from editr1.serving.client import RewardClient
from editr1.serving.model_of_run import ModelMismatch
from editr1.verifier.trace import format_trace

from .outside_server import MODEL, Forge, Json, outside_server, score_of

FAST = ClientConfig(backoff_seconds=0.01, max_attempts=3, max_request_items=8)
OTHER = "sha256:" + "cd" * 32


def each(change: Callable[[Json], object]) -> Forge:
    """Change every result."""

    def forge(_request: Json, response: Json) -> Json:
        for result in response["results"]:
            change(result)
        return response

    return forge


def change_verdicts(**values: object) -> Forge:
    return each(lambda result: [verdict.update(values) for verdict in result["verdicts"]])


def results(function: Callable[[list[Json]], list[Json]]) -> Forge:
    return lambda _request, response: response | {"results": function(response["results"])}


def stated(field: str, value: object) -> Forge:
    """Set a field of every result, and keep the rest."""
    return each(lambda result: result.update({field: value}))


def written(field: str, write: Callable[[float], object]) -> Forge:
    return each(lambda result: result.update({field: write(result[field])}))


def with_traces(*texts: Callable[[Json, Json], str]) -> Forge:
    """Add raw traces, which ``texts`` return for each item and its result."""

    def forge(request: Json, response: Json) -> Json:
        for item, result in zip(request["items"], response["results"], strict=True):
            result["texts"] = [text(item, result) for text in texts]
        return response

    return forge


def trace(item: Json, result: Json, *, add: float = 0.0, bit: int = 1, question: str | None = None) -> str:
    principles = [Principle(question=question or p["question"], category=p["category"]) for p in item["principles"]]
    score = (result["score"] + add) % 10
    return format_trace("seen", principles, [bit] * len(principles), score, 1.0)


WHOLE: dict[str, Forge] = {
    "no name of the request": lambda _, response: {k: v for k, v in response.items() if k != "request_id"},
    "name of another request": lambda _, response: response | {"request_id": "other"},
    "no name of the edited image": stated("edited", None),
    "name of another image": stated("edited", OTHER),
    "reversed order": results(lambda found: found[::-1]),
    "one result for all items": results(lambda found: [found[0]] * len(found)),
    "fewer results": results(lambda found: found[:-1]),
    "more results": results(lambda found: [*found, found[-1]]),
    "no results": results(lambda found: []),
    "score as a string": written("score", str),
    "score as a boolean": stated("score", True),
    "score NaN": stated("score", float("nan")),
    "score infinite": stated("score", float("inf")),
    "score null": stated("score", None),
    "score above 10": stated("score", 10.5),
    "score below 0": stated("score", -0.5),
    "ok as a string": stated("ok", "true"),
    "verdict score as a string": change_verdicts(score="8.5"),
    "answer as a boolean": change_verdicts(scores=[True, True]),
    "answer as a string": change_verdicts(scores=["1", "1"]),
    "answer as a fraction": change_verdicts(scores=[1.0, 1.0]),
    "answer 2": change_verdicts(scores=[2, 1]),
    "average above 1": change_verdicts(average=1.5),
    "negative token count": stated("prompt_tokens", -1),
    "token count as a string": stated("prompt_tokens", "7"),
    "score of another model": stated("model_digest", OTHER),
    "error body with status 200": lambda _, __: {"cause": "invalid", "detail": "the queue is on fire"},
    "error object with status 200": lambda _, __: {"error": "no"},
    "list instead of a response": lambda _, response: [response],
    "HTML": lambda _, __: b"<html>welcome</html>",
    "empty body": lambda _, __: b"",
    "truncated JSON": lambda _, response: json.dumps(response).encode()[:-20],
    "status 204": lambda _, __: (204, b""),
    "redirect": lambda _, response: (302, response),
}
ITEMS: dict[str, Forge] = {
    "score that is not the mean": written("score", lambda score: (score + 5) % 10),
    "rounded score": written("score", lambda score: (score + 0.01) % 10),
    "no verdicts": stated("verdicts", []),
    "verdicts of one principle": change_verdicts(scores=[1]),
    "verdicts of three principles": change_verdicts(scores=[1, 1, 1]),
    "verdicts of no principle": change_verdicts(scores=[]),
    "more verdicts than traces": each(lambda result: result.update(verdicts=result["verdicts"] * 2)),
    "more unparsed traces than requested": stated("unparsed", ["no <score> tag"]),
    "more traces than requested": with_traces(trace, trace),
    "trace with another score": with_traces(lambda i, r: trace(i, r, add=5)),
    "trace with other answers": with_traces(lambda i, r: trace(i, r, bit=0)),
    "trace of other questions": with_traces(lambda i, r: trace(i, r, question="is it blue?")),
    "trace that cannot be parsed": with_traces(lambda i, r: "it looks good"),
}


def expected(items) -> list[float]:
    return [score_of(item.edited.digest) for item in items]


def scores(outcomes) -> list[float]:
    return [outcome.score for outcome in outcomes if isinstance(outcome, Scored)]


@pytest.mark.parametrize("name", [*WHOLE, *ITEMS])
def test_wrong_response_is_refused_and_asked_for_again(name: str, make_items) -> None:
    forge, calls = (WHOLE | ITEMS)[name], []

    def first_only(request: Json, response: Json) -> Any:
        calls.append(request)
        return forge(request, response) if len(calls) == 1 else response

    items = make_items(4)
    with outside_server(first_only) as server, RewardClient([server.url], config=FAST) as client:
        outcomes = client.score(items)
    assert scores(outcomes) == expected(items)
    assert len(calls) == 2
    assert calls[0]["request_id"] != calls[1]["request_id"]


@pytest.mark.parametrize("name", [*WHOLE, *ITEMS])
def test_service_that_always_answers_wrongly_yields_failures_with_a_cause(name: str, make_items) -> None:
    with outside_server((WHOLE | ITEMS)[name]) as server, RewardClient([server.url], config=FAST) as client:
        outcomes = client.score(make_items(4))
    assert [o.cause for o in outcomes if isinstance(o, ScoreFailure)] == [FailureCause.BAD_RESPONSE] * 4
    assert len(server.requests) == FAST.max_attempts


def test_score_that_is_wrong_in_all_but_the_last_attempt_is_used(make_items) -> None:
    calls: list[Json] = []

    def forge(request: Json, response: Json) -> Any:
        calls.append(request)
        return response if len(calls) == FAST.max_attempts else ITEMS["score that is not the mean"](request, response)

    items = make_items(4)
    with outside_server(forge) as server, RewardClient([server.url], config=FAST) as client:
        assert scores(client.score(items)) == expected(items)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no name of the request", "must return the request_id"),
        ("no name of the edited image", "must return the digest of the edited image in the field edited"),
        ("reversed order", "results are not those of the request: outcome 0 is for the edited image"),
        ("fewer results", "3 outcomes for 4 edits"),
        ("error body with status 200", "error response with status 200: invalid: the queue is on fire"),
        ("HTML", "the body starts with '<html>welcome</html>'"),
        ("score as a string", ".score: Input should be a valid number"),
        ("no verdicts", 'must declare it with "verdicts": false in the response of /v1/info'),
        ("verdicts of one principle", "verdict 0 answers 1 principles, but the item has 2"),
    ],
)
def test_failure_says_what_is_wrong_with_the_response(name: str, words: str, make_items, caplog) -> None:
    with outside_server((WHOLE | ITEMS)[name]) as server, RewardClient([server.url], config=FAST) as client:
        outcomes = client.score(make_items(4))
    assert isinstance(outcomes[0], ScoreFailure)
    assert words in outcomes[0].detail
    assert f"refused a response of the reward service {server.url}" in caplog.text


def test_response_to_an_earlier_request_is_refused(make_items) -> None:
    kept: list[Json] = []

    def forge(_request: Json, response: Json) -> Json:
        kept.append(deepcopy(response))
        return kept[0] if len(kept) == 2 else response

    first, second = make_items(4), make_items(4, seed=1)
    with outside_server(forge) as server, RewardClient([server.url], config=FAST) as client:
        assert scores(client.score(first)) == expected(first)
        assert scores(client.score(second)) == expected(second)
    assert len(kept) == 3


def test_earlier_response_for_the_same_edits_is_refused(make_items) -> None:
    """Only the name of the request tells the two apart."""
    kept: list[Json] = []

    def forge(_request: Json, response: Json) -> Json:
        kept.append(deepcopy(response))
        return kept[0] if len(kept) == 2 else response

    items = make_items(2)
    with outside_server(forge) as server, RewardClient([server.url], config=FAST) as client:
        assert scores(client.score(items)) == scores(client.score(items)) == expected(items)
    assert len(kept) == 3


def test_other_replica_is_asked_after_a_wrong_response(make_items) -> None:
    items = make_items(6)
    with (
        outside_server(WHOLE["reversed order"]) as wrong,
        outside_server() as right,
        RewardClient([wrong.url, right.url], config=FAST) as client,
    ):
        for _ in range(4):
            assert scores(client.score(items)) == expected(items)


def test_only_the_contradicting_score_fails(make_items) -> None:
    def forge(_request: Json, response: Json) -> Json:
        for result in response["results"]:
            if result["edited"] == items[1].edited.digest:
                result["score"] = (result["score"] + 5) % 10
        return response

    items = make_items(3)
    with outside_server(forge) as server, RewardClient([server.url], config=FAST) as client:
        outcomes = client.score(items)
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert [len(request["items"]) for request in server.requests] == [3, *[1] * (FAST.max_attempts - 1)]


def test_several_traces_and_partial_verdicts_are_accepted(make_items) -> None:
    def one_unparsed(_request: Json, response: Json) -> Json:
        for result in response["results"]:
            result |= {"verdicts": result["verdicts"][1:], "unparsed": ["no <score> tag"]}
        return response

    items = make_items(2)
    with outside_server(one_unparsed) as server, RewardClient([server.url], config=FAST) as client:
        assert scores(client.score(items, 4)) == pytest.approx(expected(items))
    with outside_server(with_traces(trace)) as server, RewardClient([server.url], config=FAST) as client:
        assert scores(client.score(items)) == expected(items)


def test_score_may_differ_from_the_mean_by_the_rounding_of_32_bit_numbers(make_items) -> None:
    near = written("score", lambda score: min(10.0, score + 1e-6))
    with outside_server(near) as server, RewardClient([server.url], config=FAST) as client:
        assert all(outcome.ok for outcome in client.score(make_items(4)))


def test_duplicates_of_an_edit_are_scored_in_one_request(make_items) -> None:
    items = make_items(2) * 2
    with outside_server() as server, RewardClient([server.url], config=FAST) as client:
        assert scores(client.score(items)) == expected(items)
    assert len(server.requests) == 1


def test_same_image_with_another_instruction_is_sent_in_another_request(make_items) -> None:
    """Results name only the edited image, so that the order of such items could not be checked."""
    (item,) = make_items(1)
    other = item.model_copy(update={"instruction": "make it blue"})
    more = Principle(question="is it sharp?", category=Category.QUALITY)
    third = item.model_copy(update={"principles": (*item.principles, more)})
    with outside_server() as server, RewardClient([server.url], config=FAST) as client:
        assert len(scores(client.score([item, other, third, item]))) == 4
    sent = [[(part["instruction"], len(part["principles"])) for part in r["items"]] for r in server.requests]
    assert sorted(sent) == sorted([[("make it 0", 2)], [("make it blue", 2)], [("make it 0", 3)], [("make it 0", 2)]])


def test_service_that_declares_scores_without_verdicts_is_exempt(make_items) -> None:
    items = make_items(3)
    with outside_server(verdicts=False) as server, RewardClient([server.url], config=FAST) as client:
        assert scores(client.score(items, 2)) == expected(items)
    with (
        outside_server(WHOLE["reversed order"], verdicts=False) as server,
        RewardClient([server.url], config=FAST) as client,
    ):
        assert not scores(client.score(items)), "the exemption covers the verdicts only"


@pytest.mark.parametrize("info", [{}, {"model": MODEL}, {"verdicts": True}, {"verdicts": 0}, {"verdicts": "false"}])
def test_undeclared_scores_without_verdicts_are_refused(info: Json, make_items) -> None:
    with outside_server(verdicts=False, info=info) as server, RewardClient([server.url], config=FAST) as client:
        assert not scores(client.score(make_items(2)))


def test_response_that_names_another_model_once_is_only_refused(make_items) -> None:
    def once(_request: Json, response: Json) -> Json:
        results = [result | {"model_digest": OTHER} for result in response["results"]]
        return {**response, "model": OTHER, "results": results} if len(server.requests) == 1 else response

    items = make_items(2)
    with outside_server(once) as server, RewardClient([server.url], config=FAST, expected_digest=MODEL) as client:
        assert scores(client.score(items)) == expected(items)


def test_mixture_of_models_behind_one_address_ends_the_run(make_items) -> None:
    def every_second(_request: Json, response: Json) -> Json:
        results = [result | {"model_digest": OTHER} for result in response["results"]]
        return {**response, "model": OTHER, "results": results} if len(server.requests) % 2 else response

    with (
        outside_server(every_second) as server,
        RewardClient([server.url], config=FAST, expected_digest=MODEL) as client,
    ):
        client.score(make_items(1))
        with pytest.raises(ModelMismatch, match=OTHER) as caught:
            client.score(make_items(1))
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.parametrize("status", [400, 413, 422])
def test_item_that_the_service_refuses_fails_alone(status: int, make_items) -> None:
    items = make_items(8)

    def refuse_the_sixth(request: Json, response: Json) -> Any:
        names = [result["edited"] for result in response["results"]]
        if items[5].edited.digest in names:
            return status, {"cause": "invalid", "detail": "the image is too dark"}
        return response

    with outside_server(refuse_the_sixth) as server, RewardClient([server.url], config=FAST) as client:
        outcomes = client.score(items)
    assert [outcome.ok for outcome in outcomes] == [True] * 5 + [False] + [True] * 2
    failure = outcomes[5]
    assert isinstance(failure, ScoreFailure)
    assert failure.cause is FailureCause.REFUSED
    assert f"{status}: the image is too dark" in failure.detail
    assert len(server.requests) <= 9


@pytest.mark.parametrize("status", [401, 403, 404, 405, 415])
def test_status_about_the_service_fails_all_items_at_once(status: int, make_items) -> None:
    with (
        outside_server(lambda _, __: (status, {"detail": "no"})) as server,
        RewardClient([server.url], config=FAST) as client,
    ):
        outcomes = client.score(make_items(4))
    assert {o.cause for o in outcomes if isinstance(o, ScoreFailure)} == {FailureCause.REFUSED}
    assert len(server.requests) == 1
