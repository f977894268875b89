"""From edits to scores: build chats, generate traces, parse them. Knows no HTTP."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from PIL.Image import Image

from editr1.data.images import MAX_PIXELS, ImageError, decode_image, image_size
from editr1.data.types import (
    EncodedImage,
    FailureCause,
    Scored,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
    Unparsed,
    Verdict,
)
from editr1.seeding import offset_seed
from editr1.serving.engines.base import Engine, EngineError, EngineUnavailable, Generation, Sampling
from editr1.verifier.chat import Chat, build_chat
from editr1.verifier.trace import parse_trace

BATCH_PIXELS: Final = 200_000_000
"""Pixels of decoded pictures that are held at once: 0.6 GB. A file of 3 KB can announce 25 million."""
_CONTROL: Final = re.compile(r"<\|[A-Za-z0-9_]+\|>")
_decoders = ThreadPoolExecutor(max_workers=min(16, (os.cpu_count() or 1) * 2), thread_name_prefix="editr1-decode")


@dataclass(frozen=True)
class ScoredBatch:
    """Outcomes of a batch and when its traces were generated (nanoseconds since the epoch)."""

    outcomes: list[ScoreOutcome]
    generate_start_ns: int
    generate_end_ns: int


def score_items(engine: Engine, items: Sequence[ScoreItem], sampling: Sampling) -> list[ScoreOutcome]:
    """Score each item by the mean over its traces that parsed; index-aligned, one item's fault costs that item alone.

    An item fails with cause ``invalid`` (a picture that cannot be decoded, control tokens in its text), ``engine`` (no
    traces) or ``unparsed`` (no trace that the strict parser reads). A failure is never a number.
    """
    return score_batch(engine, items, sampling).outcomes


def score_batch(
    engine: Engine, items: Sequence[ScoreItem], sampling: Sampling, *, max_pixels: int = MAX_PIXELS
) -> ScoredBatch:
    """As :func:`score_items`, with the time that generation took.

    Decoded pictures of at most ``BATCH_PIXELS`` are held at once (of one item at least): what is more is scored after.
    """
    outcomes: list[ScoreOutcome] = []
    begun, end = 0, time.time_ns()
    for number, part in enumerate(_parts(items, max_pixels)):
        drawn = (
            sampling
            if sampling.seed is None
            else sampling.model_copy(update={"seed": offset_seed(sampling.seed, number)})
        )
        scored = _score_part(engine, part, drawn, max_pixels)
        outcomes += scored.outcomes
        begun, end = begun or scored.generate_start_ns, scored.generate_end_ns
    return ScoredBatch(outcomes, begun or end, end)


def _score_part(engine: Engine, items: Sequence[ScoreItem], sampling: Sampling, max_pixels: int) -> ScoredBatch:
    pictures = _decoded(items, max_pixels)
    outcomes: dict[int, ScoreOutcome] = {}
    chats: dict[int, Chat] = {}
    for index, item in enumerate(items):
        prepared = _prepared(engine, item, pictures)
        if isinstance(prepared, Chat):
            chats[index] = prepared
        else:
            outcomes[index] = prepared
    start = time.time_ns()
    answers = _generate(engine, list(chats.values()), sampling)
    end = time.time_ns()
    for index, answer in zip(chats, answers, strict=True):
        outcomes[index] = _outcome(answer, items[index], engine.model_digest)
    return ScoredBatch([outcomes[i] for i in range(len(items))], start, end)


def _parts(items: Sequence[ScoreItem], max_pixels: int) -> Iterator[list[ScoreItem]]:
    """``items`` in runs whose distinct pictures have at most ``BATCH_PIXELS`` by their headers."""
    part: list[ScoreItem] = []
    held: dict[bytes, int] = {}
    for item in items:
        sizes = {data: _pixels(data, max_pixels) for data in (item.source.data, item.edited.data)}
        new = {data: size for data, size in sizes.items() if data not in held}
        if part and sum(held.values()) + sum(new.values()) > BATCH_PIXELS:
            yield part
            part, held, new = [], {}, sizes
        part.append(item)
        held |= new
    if part:
        yield part


def _pixels(data: bytes, max_pixels: int) -> int:
    try:
        width, height = image_size(data, max_pixels=max_pixels)
    except ImageError:  # said of the item once it is decoded
        return 0
    return width * height


def _decoded(items: Sequence[ScoreItem], max_pixels: int) -> dict[bytes, Image | ImageError]:
    """Every distinct file decoded once, in parallel: the source of a group occurs in all of its items."""

    def decode(picture: EncodedImage) -> Image | ImageError:
        try:
            return decode_image(picture.data, max_pixels=max_pixels)
        except ImageError as error:
            return error

    distinct = {picture.data: picture for item in items for picture in (item.source, item.edited)}
    results = map(decode, distinct.values()) if len(distinct) < 3 else _decoders.map(decode, distinct.values())
    return dict(zip(distinct, results, strict=True))


def _prepared(engine: Engine, item: ScoreItem, pictures: dict[bytes, Image | ImageError]) -> Chat | ScoreFailure:
    for text in (item.instruction, *(p.question for p in item.principles)):
        found = _CONTROL.search(text)
        if found:
            return ScoreFailure(
                cause=FailureCause.INVALID, detail=f"text holds {found.group()!r}, which models read as a control token"
            )
    source, edited = pictures[item.source.data], pictures[item.edited.data]
    if isinstance(source, ImageError):
        return ScoreFailure(cause=FailureCause.INVALID, detail=f"source: {source}")
    if isinstance(edited, ImageError):
        return ScoreFailure(cause=FailureCause.INVALID, detail=f"edited: {edited}")
    return build_chat(engine.template, source, edited, item.instruction, item.principles)


def _generate(engine: Engine, chats: list[Chat], sampling: Sampling) -> list[list[Generation] | EngineError]:
    """Generate; a batch that fails as a whole is halved until what breaks it stands alone."""
    if not chats:
        return []
    try:
        answers = engine.generate(chats, sampling)
        if len(answers) != len(chats):
            raise EngineError(f"engine gave {len(answers)} answers for {len(chats)} chats")
        return answers
    except EngineUnavailable as error:
        return [error] * len(chats)
    except Exception as error:
        if len(chats) == 1:
            return [error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")]
        middle = len(chats) // 2
        return _generate(engine, chats[:middle], sampling) + _generate(engine, chats[middle:], sampling)


def _outcome(answer: list[Generation] | EngineError, item: ScoreItem, digest: str) -> ScoreOutcome:
    if isinstance(answer, EngineError):
        return ScoreFailure(cause=FailureCause.ENGINE, detail=str(answer)[:1000])
    read = [parse_trace(generation.text, item.principles) for generation in answer]
    verdicts = tuple(verdict for verdict in read if isinstance(verdict, Verdict))
    unparsed = tuple(verdict.reason for verdict in read if isinstance(verdict, Unparsed))
    if not verdicts:
        reason = unparsed[0] if unparsed else "the engine wrote no trace"
        written = f"; the trace: {answer[0].text[:500]!r}" if answer else ""
        return ScoreFailure(
            cause=FailureCause.UNPARSED, detail=f"none of {len(answer)} traces parsed: {reason}{written}"
        )
    return Scored(
        score=sum(verdict.score for verdict in verdicts) / len(verdicts),
        verdicts=verdicts,
        unparsed=unparsed,
        texts=tuple(generation.text for generation in answer),
        prompt_tokens=answer[0].prompt_tokens,
        completion_tokens=sum(generation.completion_tokens for generation in answer),
        model_digest=digest,
    )
