"""The rules that decide whether an instruction, a question, a trace, an image or a preference pair is valid.

The data types (:mod:`editr1.data.types`) limit the length and the format of single fields. This module contains all
other rules for a row. They ensure that the verifier with its tokenizer and image processor, the trace parser and the
table format can process the row. Every entry point uses these rules: import, check, curation, training, evaluation
and the reward server.

The functions are pure. They return the violated rule as text for an error message, or None if the value is valid.
Limits that depend on a model or on a server are arguments.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from editr1.data.images import MAX_PIXELS as OPENED_PIXELS
from editr1.data.images import ImageError, decode_image, image_size
from editr1.data.types import (
    MAX_INSTRUCTION_LENGTH,
    DataModel,
    EditCase,
    EncodedImage,
    PreferencePair,
    Principle,
    Quadruple,
    ScoreItem,
    SftRow,
    Unparsed,
    Verdict,
)

MAX_PIXELS: Final = 25_000_000
"""Maximum number of pixels of an image. The default of the reward server's setting ``max_pixels`` has the same value."""
MAX_BYTES: Final = 20 << 20
"""Maximum size of an image file in bytes.

A score request of the default maximum size (64 MiB) can hold two such files.
"""
MAX_ASPECT_RATIO: Final = 200.0
"""Largest ratio of the longer side to the shorter side that the image processor of Qwen2.5-VL accepts."""

ParseTrace = Callable[[str, Sequence[Principle]], Verdict | Unparsed]
"""Type of the trace parser, :func:`editr1.verifier.trace.parse_trace`."""

_CONTROL_TOKEN: Final = re.compile(r"<[|｜][^|｜<>\n]{1,64}[|｜]>")  # noqa: RUF001  DeepSeek's tokens have fullwidth bars
_BAD_CHARACTER: Final = re.compile("[\x00\ud800-\udfff]")
"""Pattern of the forbidden characters, which are NUL and surrogates.

Models and tables can process all other control characters, and messages show them escaped.
"""
_TRACE_PARTS: Final = re.compile(
    r"""</?score>|<\\score>|\{\s*["']average_score["']\s*:|\[\s*\{\s*["'](?:question|score)["']\s*:"""
)
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})


@dataclass(frozen=True)
class Limits:
    """Image limits that depend on a model or on a server. The defaults are those of the reward server.

    Attributes:
        max_pixels: Maximum number of pixels (width x height).
        max_bytes: Maximum size of the image file in bytes.
        max_aspect_ratio: Largest ratio of the longer side to the shorter side.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    max_aspect_ratio: float = MAX_ASPECT_RATIO


DEFAULT: Final = Limits()


class Violation(NamedTuple):
    """A violated rule: the dotted name of the field, its value, and the rule as text for an error message."""

    field: str
    value: object
    rule: str


def text_fault(text: str) -> str | None:
    """Return the violated rule of a text that a model reads or learns (an instruction, a question or a trace), or None.

    The text must have a visible character. It must not contain control tokens such as ``<|im_end|>``, NUL characters,
    or halves of surrogate pairs.
    """
    if fault := content_fault(text):
        return fault
    if all(unicodedata.category(character) in _INVISIBLE for character in text):
        return "the text has no visible character; write a text, or remove the row"
    return None


def content_fault(text: str) -> str | None:
    """Return the rule that a text violates, as :func:`text_fault` does, but accept an empty text."""
    if found := _CONTROL_TOKEN.search(text):
        return f"the text contains {found.group()!r}, which models read as a control token; remove it"
    return character_fault(text)


def character_fault(text: str) -> str | None:
    """Return the rule that the characters of a text violate, or None.

    NUL characters and halves of surrogate pairs are not allowed, because tokenizers or Parquet cannot process them.
    """
    found = _BAD_CHARACTER.search(text)
    if found is None:
        return None
    name = f"U+{ord(found.group()):04X}"
    if unicodedata.category(found.group()) == "Cs":
        return f"the text contains half of a surrogate pair ({name}); save the text as valid Unicode"
    return f"the text contains the character {name} (NUL); remove it"


def instruction_fault(instruction: str) -> str | None:
    """Return the rule that an instruction violates: those of :func:`text_fault`, and its maximum length."""
    if len(instruction) > MAX_INSTRUCTION_LENGTH:
        return f"the instruction has {len(instruction)} characters; at most {MAX_INSTRUCTION_LENGTH} are allowed; shorten it"
    return text_fault(instruction)


def question_fault(question: str) -> str | None:
    """Return the rule that the question of a principle violates.

    A trace repeats the question word for word (see :mod:`editr1.verifier.trace`). Therefore, the question must not
    contain markers that the trace parser searches for, such as ``<score>``. It must be in Unicode normal form C,
    because tokenizers normalise texts to this form.
    """
    if fault := text_fault(question):
        return fault
    if found := _TRACE_PARTS.search(json.dumps(question, ensure_ascii=False)):
        return (
            f"the question contains {found.group()!r}, which marks a part of the verifier's trace, so no trace that repeats "
            "the question can be parsed; rephrase it"
        )
    if not unicodedata.is_normalized("NFC", question):
        return (
            "the question is not in Unicode normal form C, to which tokenizers convert it, so no trace can repeat it word for "
            "word; normalise the text"
        )
    return None


def trace_fault(trace: str, principles: Sequence[Principle] = (), parse: ParseTrace | None = None) -> str | None:
    """Return the rule that a training trace violates. If ``parse`` is given, it must accept the trace."""
    if fault := text_fault(trace):
        return fault
    verdict = parse(trace, principles) if parse is not None else None
    if isinstance(verdict, Unparsed):
        return f"the trace cannot be parsed: {verdict.reason}; correct the trace, or remove the row"
    return None


def size_fault(width: int, height: int, limits: Limits = DEFAULT) -> str | None:
    """Return the rule that the size of an image violates. ``width`` and ``height`` are in pixels and at least 1."""
    if width * height > limits.max_pixels:
        return (
            f"the image has {width} x {height} pixels; between 1 and {limits.max_pixels} pixels are allowed; "
            "downscale the image"
        )
    ratio = max(width, height) / min(width, height)
    if ratio > limits.max_aspect_ratio:
        return (
            f"the image has {width} x {height} pixels, an aspect ratio of {ratio:.2f}; the verifier accepts images "
            f"up to an aspect ratio of {limits.max_aspect_ratio:g}; crop the image, or remove the row"
        )
    return None


def image_fault(data: bytes, limits: Limits = DEFAULT, *, decode: bool = True) -> str | None:
    """Return the rule that an image file violates. With ``decode=False``, only its header is read.

    Truncated files and pixel values out of range are only detected by decoding.
    """
    if len(data) > limits.max_bytes:
        return (
            f"the image file has {len(data)} bytes; at most {limits.max_bytes} are allowed; downscale the image, or save it "
            "as JPEG or WebP"
        )
    try:
        width, height = image_size(data, max_pixels=max(limits.max_pixels, OPENED_PIXELS))
        if fault := size_fault(width, height, limits):
            return fault
        if decode:
            decode_image(data, max_pixels=limits.max_pixels)
    except ImageError as error:
        return str(error)
    return None


def length_fault(tokens: int, limit: int, *, reserved: int = 0) -> str | None:
    """Return the rule that the length of a prompt violates.

    ``tokens`` is the number of tokens of the prompt, including its images. Together with the ``reserved`` tokens for the
    trace, it must not exceed ``limit``.
    """
    needed = tokens + reserved
    if needed <= limit:
        return None
    trace = f" ({reserved} of them for the trace)" if reserved else ""
    return (
        f"needs {needed} tokens{trace}, but the limit is {limit} (max_length or the model's context); "
        "shorten the text, or lower max_pixels"
    )


def row_violations(
    row: DataModel, *, needs_principles: bool = False, parse: ParseTrace | None = None
) -> Iterator[Violation]:
    """Yield the violated rules of a row of any data type, or of an item to be scored. Images are not checked.

    Use :func:`images_of` and :func:`image_fault` to check the images, which takes much longer.

    Args:
        row: An edit case, a quadruple, an SFT row, a preference pair or a score item.
        needs_principles: Whether the case must have a principle. Pairs labelled "same" need none, because they are
            not used.
        parse: Trace parser. If it is given, it must accept the trace of an SFT row.
    """
    if isinstance(row, EditCase | ScoreItem):
        yield from _case_violations("", row, needs_principles)
    elif isinstance(row, Quadruple):
        yield from _quadruple_violations("", row, needs_principles)
    elif isinstance(row, SftRow):
        yield from _quadruple_violations("quadruple.", row.quadruple, needs_principles)
        if fault := trace_fault(row.trace, row.quadruple.case.principles, parse):
            yield Violation("trace", row.trace, fault)
        if row.agreement is not None and not 0.0 <= row.agreement <= 1.0:
            yield Violation("agreement", row.agreement, "must be a number in [0, 1]")
        if fault := character_fault(row.member):
            yield Violation("member", row.member, fault)
    elif isinstance(row, PreferencePair):
        yield from _case_violations("case.", row.case, needs_principles and row.label != "same")
        for side in ("winner", "loser"):
            if fault := character_fault(getattr(row, side).editor):
                yield Violation(f"{side}.editor", getattr(row, side).editor, fault)
        if row.winner.candidate_id == row.loser.candidate_id:
            yield Violation("loser.candidate_id", row.loser.candidate_id, "must differ from winner.candidate_id")


def text_violations(instruction: str, principles: Sequence[Principle]) -> Iterator[Violation]:
    """Yield the violated rules of an instruction and of the principles of its case."""
    if fault := instruction_fault(instruction):
        yield Violation("instruction", instruction, fault)
    seen: set[str] = set()
    for index, principle in enumerate(principles):
        if fault := question_fault(principle.question):
            yield Violation(f"principles.{index}.question", principle.question, fault)
        elif principle.question in seen:
            rule = "an earlier principle of the case has the same question; remove one of them"
            yield Violation(f"principles.{index}.question", principle.question, rule)
        seen.add(principle.question)


def images_of(row: DataModel) -> Iterator[tuple[str, EncodedImage]]:
    """Yield (dotted name of the field, image) for every image in a row of any data type, or in an item to be scored."""
    if isinstance(row, EncodedImage):
        yield "", row
    for name in type(row).model_fields:
        value = getattr(row, name)
        if isinstance(value, DataModel):
            for place, image in images_of(value):
                yield (f"{name}.{place}" if place else name), image


def _quadruple_violations(place: str, row: Quadruple, needs_principles: bool) -> Iterator[Violation]:
    yield from _case_violations(f"{place}case.", row.case, needs_principles)
    if fault := character_fault(row.candidate.editor):
        yield Violation(f"{place}candidate.editor", row.candidate.editor, fault)


def _case_violations(place: str, case: EditCase | ScoreItem, needs_principles: bool) -> Iterator[Violation]:
    for violation in text_violations(case.instruction, case.principles):
        yield violation._replace(field=f"{place}{violation.field}")
    if needs_principles and not case.principles:
        yield Violation(f"{place}principles", None, "the case has no principles; add at least one, or remove the row")
