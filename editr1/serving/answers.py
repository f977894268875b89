"""Check a response of a reward service before its scores are used.

A response is accepted only if it names the request and the edited image of every score, its values have the documented types, and
each score is the mean over its verdicts. Verdicts must answer the principles of the item and agree with the raw traces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from editr1.data.types import FailureCause, Scored, ScoreFailure, ScoreItem, ScoreOutcome, Verdict, outcomes_fault
from editr1.serving.api import ErrorResponse, ScoreResponse, explain
from editr1.verifier.trace import parse_trace

SCORE_TOLERANCE: Final = 1e-5
"""Largest difference between a score and the mean over its verdicts' scores. It allows for 32-bit floating-point numbers."""


class InvalidResponse(ValueError):
    """A response cannot be used as a whole. The message gives the reason."""


def read_response(content: bytes, items: Sequence[ScoreItem], request_id: str) -> ScoreResponse:
    """Parse the body of a response with status 200, and check that it belongs to the request.

    Values are not converted: the string "8.5", true and NaN are not scores.

    Args:
        content: The body of the response.
        items: The items of the request.
        request_id: The ``request_id`` of the request.

    Raises:
        InvalidResponse: The body is not a score response, belongs to another request, or does not have one result per item
            in the order of the items, each with the digest of the item's edited image.
    """
    try:
        response = ScoreResponse.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise InvalidResponse(_describe(content, error)) from None
    if response.request_id != request_id:
        raise InvalidResponse(
            f"it belongs to the request {response.request_id!r}, but the request is {request_id!r}; the service must return the"
            " request_id of the request"
        )
    if fault := outcomes_fault(items, response.results):
        raise InvalidResponse(f"its results are not those of the request: {fault}")
    for index, result in enumerate(response.results):
        if isinstance(result, ScoreFailure):
            continue
        if result.edited is None:
            raise InvalidResponse(
                f"results.{index}: it does not name what it scored; the service must return the digest of the edited image in"
                " the field edited"
            )
        if result.model_digest != response.model:
            raise InvalidResponse(
                f"results.{index}: the score is from the model {result.model_digest}, but the response from {response.model}"
            )
    return response


def checked_results(
    response: ScoreResponse, items: Sequence[ScoreItem], num_traces: int, *, scores_only: bool
) -> list[ScoreOutcome]:
    """Return the results of a response, with a failure in place of every score that contradicts its verdicts or traces.

    Args:
        response: The response, as :func:`read_response` returned it.
        items: The items of the request.
        num_traces: Number of traces per item that the request asked for.
        scores_only: Whether the service declares that its scores have no verdicts.
    """
    results: list[ScoreOutcome] = []
    for item, result in zip(items, response.results, strict=True):
        fault = (
            "" if isinstance(result, ScoreFailure) else score_fault(result, item, num_traces, scores_only=scores_only)
        )
        results.append(_bad(result, fault) if fault else result)
    return results


def score_fault(result: Scored, item: ScoreItem, num_traces: int, *, scores_only: bool = False) -> str:
    """Return why a score contradicts its verdicts, its traces or the principles of ``item``; an empty string if it does not.

    ``num_traces`` is the number of traces that the request asked for. With ``scores_only``, a score without verdicts and traces
    is accepted.
    """
    verdicts, unparsed, texts = result.verdicts, result.unparsed, result.texts
    if not verdicts:
        if scores_only and not unparsed and not texts:
            return ""
        return (
            "the score has no verdicts; a service that gives scores without verdicts and traces must declare it with"
            ' "verdicts": false in the response of /v1/info'
        )
    if len(verdicts) + len(unparsed) != num_traces:
        return (
            f"the score has {len(verdicts)} verdicts and {len(unparsed)} reasons for unparsed traces, but {num_traces} traces were"
            " requested"
        )
    for index, verdict in enumerate(verdicts):
        if len(verdict.scores) != len(item.principles):
            return f"verdict {index} answers {len(verdict.scores)} principles, but the item has {len(item.principles)}"
    mean = sum(verdict.score for verdict in verdicts) / len(verdicts)
    if abs(result.score - mean) > SCORE_TOLERANCE:
        return f"the score is {result.score:g}, but the mean over its verdicts is {mean:g}"
    return _trace_fault(result, item, num_traces) if texts else ""


def _trace_fault(result: Scored, item: ScoreItem, num_traces: int) -> str:
    """Return how the verdicts differ from those in the raw traces; an empty string if they do not."""
    if len(result.texts) != num_traces:
        return f"the score has {len(result.texts)} traces, but {num_traces} were requested"
    parsed = [parse_trace(text, item.principles) for text in result.texts]
    found = [verdict for verdict in parsed if isinstance(verdict, Verdict)]
    if len(found) != len(result.verdicts):
        return f"the score has {len(result.verdicts)} verdicts, but {len(found)} of its traces can be parsed"
    for index, (stated, verdict) in enumerate(zip(result.verdicts, found, strict=True)):
        # The average in a trace can contradict its answers. It is not used, so a server may repeat it or correct it.
        if stated.model_copy(update={"average": verdict.average}) != verdict:
            return f"verdict {index} differs from the one in its trace"
    return ""


def _bad(result: ScoreOutcome, fault: str) -> ScoreFailure:
    return ScoreFailure(edited=result.edited, cause=FailureCause.BAD_RESPONSE, detail=fault)


def _describe(content: bytes, error: ValidationError) -> str:
    """Say what is wrong with the body of a response, and quote the message if it is an error response."""
    try:
        refused = ErrorResponse.model_validate_json(content)
    except ValidationError:
        return f"{explain(error)}; the body starts with {content[:100].decode(errors='replace')!r}"
    return f"it is an error response with status 200: {refused.cause}: {refused.detail[:300]}"
