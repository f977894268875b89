"""A simulated labelling model for the photographs of ``editr1.data.demo_photos``.

It measures which operations were applied to a photograph. With this model, every stage can run on the demo
photographs without a VLM. A question that is not part of the photo demo gets the same answer as the question about
image quality. If an instruction is not part of the photo demo, ValueError is raised.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editr1.data.demo_photos import CENTRE, OPERATIONS, Operation, principles_of
from editr1.data.images import decode_image
from editr1.data.types import Category, EncodedImage, Principle
from editr1.seeding import derive_rng
from editr1.shapes.truth import rubric_from_categories
from editr1.verifier.trace import format_trace

Pixels = NDArray[np.float32]
SIDE: Final = 96
"""Side length in pixels to which photographs are resized before they are compared."""
FLIP_RATE: Final = 0.1
"""Probability that a verdict in a trace is wrong, at temperature 1."""
SCORE_NOISE: Final = 0.7
"""Standard deviation of the noise in the final score (0 to 10) of a trace, at temperature 1."""


@dataclass(frozen=True)
class Photo:
    """The properties of a decoded photograph that :func:`measure` compares."""

    pixels: Pixels
    """The photograph, resized to 96 x 96 pixels, as float32 (96, 96, 3) in [0, 1]."""
    sharpness: float
    """Standard deviation of the Laplacian of the greyscale image, which is first resized to 384 x 384 pixels."""


class PhotoLabeller:
    """The labelling model for photographs. It has the methods of :class:`editr1.shapes.labeller.ShapesLabeller`."""

    models: Mapping[str, object] = {"photo-judge": None}

    def decode(self, encoded: EncodedImage) -> Photo:
        """Decode a photograph into the form that :func:`measure` accepts."""
        image = decode_image(encoded.data)
        grey = np.asarray(image.convert("L").resize((384, 384), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
        small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32) / np.float32(255)
        return Photo(small, float(laplacian.std()))

    def decompose(self, instruction: str) -> str:
        """Return the principles of an instruction as a JSON array of {question, category}."""
        found = [{"question": p.question, "category": p.category.value} for p in principles_of(_operation(instruction))]
        return json.dumps(found)

    def difficulty(self, instruction: str) -> str:
        """Return ``{"hard": false, ...}``, because every operation is a single step."""
        return json.dumps({"hard": False, "kinds": [], "reason": f"{_operation(instruction).name}: one step"})

    def think(
        self,
        source: Photo,
        edited: Photo,
        instruction: str,
        questions: Sequence[str],
        *,
        temperature: float,
        **options: Any,
    ) -> str:
        """Return a trace with random errors.

        At temperature 1, 10 % of the verdicts are wrong, and the score is noisy.
        """
        rng = derive_rng(
            "think",
            instruction,
            *questions,
            edited.pixels.tobytes(),
            options["model"],
            options["system"],
            options["seed"],
        )
        measured = measure(source, edited)
        bits, lines, principles = [], [], []
        for question in questions:
            bit, why = _answer(question, instruction, measured)
            bit ^= int(rng.random() < FLIP_RATE * temperature)
            bits.append(bit)
            lines.append(f"{question} {why}; {'yes' if bit else 'no'}.")
            principles.append(Principle(question=question, category=_category(question)))
        score = rubric_from_categories([p.category for p in principles], bits) + temperature * rng.normal(
            0, SCORE_NOISE
        )
        return format_trace("\n".join(lines), principles, bits, round(min(10.0, max(0.0, score)) * 2) / 2)

    def verify(self, source: Photo, edited: Photo, instruction: str, questions: Sequence[str], **_options: Any) -> str:
        """Return the gold verdicts as ``{"gold": [{question, gold, reason}]}``. They contain no random errors."""
        measured = measure(source, edited)
        answers = [(question, *_answer(question, instruction, measured)) for question in questions]
        return json.dumps({"gold": [{"question": q, "gold": bit, "reason": why} for q, bit, why in answers]})

    def holistic(self, source: Photo, edited: Photo, instruction: str, **_options: Any) -> str:
        """Return two scores in [0, 10], one for follow and one for keep, as JSON."""
        measured = measure(source, edited)
        follow, keep = (
            _answer(p.question, instruction, measured)[0] for p in principles_of(_operation(instruction))[:2]
        )
        return json.dumps({"reasoning": ", ".join(sorted(measured)), "score": [10.0 * follow, 10.0 * keep]})


def demo_phrases() -> list[str]:
    """Return the phrases in the instructions, questions and traces of the photo demo.

    The tokenizers of the small models have one token per phrase.
    """
    questions = dict.fromkeys(p.question for operation in OPERATIONS for p in principles_of(operation))
    seen = [f" {name}" for name in (*(operation.name for operation in OPERATIONS), "border", "false-colours")]
    return [
        *(operation.instruction for operation in OPERATIONS),
        *questions,
        *(" seen:", " also changed:", " faults:", " nothing changed", " nothing", " none", "; yes.", "; no."),
        *seen,
    ]


def measure(source: Photo, edited: Photo) -> frozenset[str]:
    """Compare two photographs and return the names of all detected changes.

    The possible names are the names of the demo's operations, ``border`` and ``false-colours``.
    """
    before, after = source.pixels, edited.pixels
    mirrored, centre = before[:, ::-1], _resized_centre(before)
    same = _correlation(before, after)
    detected = {
        "grey": _saturation(after) < 0.04 < _saturation(before),
        "brighter": float(after.mean() - before.mean()) > 0.06,
        "mirror": _correlation(mirrored, after) > max(0.7, same + 0.02),
        "crop": _correlation(centre, after) > max(0.6, same + 0.02),
        "warm": _warmth(after) - _warmth(before) > 0.06,
        "blur": edited.sharpness < 0.5 * source.sharpness,
        "border": _white_edge(after) and not _white_edge(before),
        "false-colours": _saturation(after) > _saturation(before) + 0.12,
    }
    return frozenset(name for name, found in detected.items() if found)


def _answer(question: str, instruction: str, measured: frozenset[str]) -> tuple[int, str]:
    requested = _operation(instruction).name
    names = {operation.question: operation.name for operation in OPERATIONS}
    if question in names:
        return int(names[question] in measured), f"seen: {', '.join(sorted(measured)) or 'nothing changed'}"
    faults = {"border", "false-colours", "blur"}
    if _category(question) is Category.KEEP:
        other = measured - {requested} - faults
        return int(not other), f"also changed: {', '.join(sorted(other)) or 'nothing'}"
    found = (measured & faults) - {requested}
    return int(not found), f"faults: {', '.join(sorted(found)) or 'none'}"


def _operation(instruction: str) -> Operation:
    for operation in OPERATIONS:
        if operation.instruction == instruction:
            return operation
    allowed = "; ".join(operation.instruction for operation in OPERATIONS)
    raise ValueError(f"instruction: {instruction!r} is not an instruction of the photo demo; use one of: {allowed}")


def _category(question: str) -> Category:
    categories = {p.question: p.category for operation in OPERATIONS for p in principles_of(operation)}
    return categories.get(question, Category.QUALITY)


def _saturation(pixels: Pixels) -> float:
    return float((pixels.max(axis=2) - pixels.min(axis=2)).mean())


def _warmth(pixels: Pixels) -> float:
    return float((pixels[..., 0] - pixels[..., 2]).mean())


def _correlation(one: Pixels, other: Pixels) -> float:
    a, b = one.mean(axis=2).ravel(), other.mean(axis=2).ravel()
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9))


def _resized_centre(pixels: Pixels) -> Pixels:
    image = Image.fromarray((pixels * 255).astype(np.uint8))
    margin = round(SIDE * (1 - CENTRE) / 2)
    cut = image.crop((margin, margin, SIDE - margin, SIDE - margin)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(cut, dtype=np.float32) / np.float32(255)


def _white_edge(pixels: Pixels) -> bool:
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool((edge.min(axis=1) > 0.85).mean() > 0.8)
