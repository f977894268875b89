"""Score edits with an engine: build the chats, generate traces and parse them. This module does not depend on HTTP."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from PIL.Image import Image

from editr1.data.images import ImageError, decode_image, image_size
from editr1.data.rules import DEFAULT, Limits, image_fault, row_violations
from editr1.data.types import (
    EncodedImage,
    FailureCause,
    Principle,
    Scored,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
    Unparsed,
    Verdict,
)
from editr1.seeding import offset_seed
from editr1.serving.engines.base import Engine, EngineError, EngineUnavailable, Generation, InvalidChat, Sampling
from editr1.verifier.chat import Chat, build_chat
from editr1.verifier.trace import parse_trace

BATCH_PIXELS: Final = 200_000_000
"""Maximum total number of pixels of the decoded images in memory, which corresponds to 0.6 GB.

The limit is needed because an image file of 3 KB can contain 25 million pixels.
"""
_decoders = ThreadPoolExecutor(max_workers=min(16, (os.cpu_count() or 1) * 2), thread_name_prefix="editr1-decode")


@dataclass(frozen=True)
class ScoredBatch:
    """The outcomes of a batch, and the start and end of its generation in nanoseconds since the epoch."""

    outcomes: list[ScoreOutcome]
    generate_start_ns: int
    generate_end_ns: int


def score_items(engine: Engine, items: Sequence[ScoreItem], sampling: Sampling) -> list[ScoreOutcome]:
    """Score each item by the mean over its traces that can be parsed. Return one outcome per item, in order.

    A failed item does not affect the others and has no score. The cause is ``invalid`` (the item violates a rule of
    :mod:`editr1.data.rules`, or the engine cannot process it because of its content), ``engine`` (no trace was generated)
    or ``unparsed`` (fewer traces can be parsed than ``sampling.min_parsed_fraction`` requires).
    """
    return score_batch(engine, items, sampling).outcomes


def score_batch(
    engine: Engine, items: Sequence[ScoreItem], sampling: Sampling, *, limits: Limits = DEFAULT
) -> ScoredBatch:
    """Score items as :func:`score_items` does, and also return the start and end time of the generation.

    Items are scored in parts, so that the decoded images of a part have at most ``BATCH_PIXELS`` pixels, unless one
    item has more. ``limits`` are the limits of the images.
    """
    outcomes: list[ScoreOutcome] = []
    start, end = 0, time.time_ns()
    for number, part in enumerate(_parts(items, limits)):
        part_sampling = sampling
        if sampling.seed is not None:  # Parts with the same seed would get the same random numbers.
            part_sampling = sampling.model_copy(update={"seed": offset_seed(sampling.seed, number)})
        scored = _score_part(engine, part, part_sampling, limits)
        outcomes += scored.outcomes
        start, end = start or scored.generate_start_ns, scored.generate_end_ns
    return ScoredBatch(outcomes, start or end, end)


def _score_part(engine: Engine, items: Sequence[ScoreItem], sampling: Sampling, limits: Limits) -> ScoredBatch:
    images = _decode_images(items, limits)
    outcomes: dict[int, ScoreOutcome] = {}
    chats: dict[int, Chat] = {}
    for index, item in enumerate(items):
        prepared = _prepare(engine, item, images)
        if isinstance(prepared, Chat):
            chats[index] = prepared
        else:
            outcomes[index] = prepared
    start = time.time_ns()
    answers = _generate(engine, list(chats.values()), sampling)
    end = time.time_ns()
    for index, answer in zip(chats, answers, strict=True):
        outcomes[index] = _outcome(answer, items[index], engine.model_digest, sampling.min_parsed_fraction)
    return ScoredBatch([outcomes[i] for i in range(len(items))], start, end)


def _parts(items: Sequence[ScoreItem], limits: Limits) -> Iterator[list[ScoreItem]]:
    """Split ``items`` into parts whose distinct images have at most ``BATCH_PIXELS`` pixels. Only headers are read."""
    part: list[ScoreItem] = []
    held: dict[bytes, int] = {}
    for item in items:
        sizes = {data: _pixels(data, limits) for data in (item.source.data, item.edited.data)}
        new = {data: size for data, size in sizes.items() if data not in held}
        if part and sum(held.values()) + sum(new.values()) > BATCH_PIXELS:
            yield part
            part, held, new = [], {}, sizes
        part.append(item)
        held |= new
    if part:
        yield part


def _pixels(data: bytes, limits: Limits) -> int:
    try:
        width, height = image_size(data, max_pixels=limits.max_pixels)
    except ImageError:  # The error is reported when the image is decoded.
        return 0
    return width * height


def _decode_images(items: Sequence[ScoreItem], limits: Limits) -> dict[bytes, Image | str]:
    """Decode each distinct image file once, in parallel. Several items can have the same source image.

    The result has the image, or the rule that it violates.
    """

    def decode(image: EncodedImage) -> Image | str:
        try:
            return image_fault(image.data, limits, decode=False) or decode_image(
                image.data, max_pixels=limits.max_pixels
            )
        except ImageError as error:
            return str(error)

    distinct = {image.data: image for item in items for image in (item.source, item.edited)}
    results = map(decode, distinct.values()) if len(distinct) < 3 else _decoders.map(decode, distinct.values())
    return dict(zip(distinct, results, strict=True))


def _prepare(engine: Engine, item: ScoreItem, images: dict[bytes, Image | str]) -> Chat | ScoreFailure:
    for violation in row_violations(item):
        return _invalid(item, f"{violation.field}: {violation.rule}")
    source, edited = images[item.source.data], images[item.edited.data]
    if isinstance(source, str):
        return _invalid(item, f"source: {source}")
    if isinstance(edited, str):
        return _invalid(item, f"edited: {edited}")
    return build_chat(engine.template, source, edited, item.instruction, item.principles)


def _invalid(item: ScoreItem, detail: str) -> ScoreFailure:
    return ScoreFailure(edited=item.edited.digest, cause=FailureCause.INVALID, detail=detail)


def _generate(engine: Engine, chats: list[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
    """Generate traces.

    If a batch fails as a whole, it is halved repeatedly until only the chats that cause the failure fail.
    """
    if not chats:
        return []
    try:
        answers = engine.generate(chats, sampling)
        if len(answers) != len(chats):
            raise EngineError(f"the engine returned {len(answers)} answers for {len(chats)} chats")
        return [_complete(answer, sampling.num_traces) for answer in answers]
    except EngineUnavailable as error:
        return [error] * len(chats)
    except Exception as error:
        if len(chats) == 1:
            return [error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")]
        middle = len(chats) // 2
        return _generate(engine, chats[:middle], sampling) + _generate(engine, chats[middle:], sampling)


def _complete(answer: list[Generation] | EngineError, num_traces: int) -> list[Generation] | EngineError:
    """Return ``answer``, or an error if it does not have the requested number of traces."""
    if isinstance(answer, EngineError) or len(answer) == num_traces:
        return answer
    return EngineError(f"the engine generated {len(answer)} of the {num_traces} requested traces")


def _outcome(
    answer: list[Generation] | EngineError, item: ScoreItem, digest: str, min_parsed_fraction: float
) -> ScoreOutcome:
    if isinstance(answer, EngineError):
        cause = FailureCause.INVALID if isinstance(answer, InvalidChat) else FailureCause.ENGINE
        return ScoreFailure(edited=item.edited.digest, cause=cause, detail=str(answer)[:1000])
    parsed = [_parse(generation, item.principles) for generation in answer]
    verdicts = tuple(verdict for verdict in parsed if isinstance(verdict, Verdict))
    unparsed = tuple(verdict.reason for verdict in parsed if isinstance(verdict, Unparsed))
    needed = max(1, math.ceil(min_parsed_fraction * len(answer) - 1e-9))
    if len(verdicts) < needed:
        reason = unparsed[0]
        first = next((g.text for g, found in zip(answer, parsed, strict=True) if isinstance(found, Unparsed)), "")
        excerpt = f"; the first such trace: {first[:500]!r}" if first else ""
        found = f"only {len(verdicts)}" if verdicts else "none"
        wanted = f", but min_parsed_fraction {min_parsed_fraction:g} needs {needed}" if verdicts else ""
        return ScoreFailure(
            edited=item.edited.digest,
            cause=FailureCause.UNPARSED,
            detail=f"{found} of {len(answer)} traces could be parsed{wanted}: {reason}{excerpt}",
            num_parsed=len(verdicts),
            texts=tuple(generation.text for generation in answer),
        )
    return Scored(
        edited=item.edited.digest,
        score=sum(verdict.score for verdict in verdicts) / len(verdicts),
        verdicts=verdicts,
        unparsed=unparsed,
        texts=tuple(generation.text for generation in answer),
        prompt_tokens=answer[0].prompt_tokens,
        completion_tokens=sum(generation.completion_tokens for generation in answer),
        model_digest=digest,
    )


def _parse(generation: Generation, principles: Sequence[Principle]) -> Verdict | Unparsed:
    """Parse a trace. The reason why it cannot be parsed starts with the problem that the engine reported."""
    parsed = parse_trace(generation.text, principles)
    if isinstance(parsed, Unparsed) and generation.problem:
        rule = f"; {parsed.reason}" if generation.text else ""
        return Unparsed(reason=generation.problem + rule)
    return parsed
