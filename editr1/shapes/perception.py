"""Generate training samples that teach the small verifier to perceive images.

A sample consists of two images, questions about them, and a trace with the correct answers. The traces have the same
words and layout as traces about edits, so that the verifier can also perceive the images of an edit. Samples do not
teach the verifier to judge edits: no edit is requested, the second image cannot be predicted from the first, and the
final score is random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from editr1.data.types import Category, Principle
from editr1.shapes.edits import BACKGROUND_PLACE, content_name, place_name
from editr1.shapes.faults import PIXEL_FAULTS
from editr1.shapes.rendering import Pixels, cell_window, render
from editr1.shapes.scene import CELLS, NOTHING, Scene, different_value, random_scene, similar_object
from editr1.shapes.truth import read_image
from editr1.shapes.vocabulary import (
    BACKGROUNDS,
    CLEAN_QUESTION,
    CONTENTS,
    follow_line,
    follow_question,
    keep_line,
    keep_question,
    quality_line,
)
from editr1.verifier.trace import format_trace

NEUTRAL_INSTRUCTION: Final = "compare"
_DENSE: Final = (2, 3, 4, 4)


@dataclass(frozen=True)
class Sample:
    """One training sample of the small verifier."""

    first: Pixels
    """First image (in place of the source image), uint8 (32, 32, 3)."""
    second: Pixels
    """Second image (in place of the edited image), uint8 (32, 32, 3)."""
    principles: tuple[Principle, ...]
    trace: str
    """The trace that the verifier learns to write."""
    verdicts: tuple[int, ...]
    """The correct answers to the questions of ``principles``, 0 or 1, in the same order."""


def generate_sample(rng: np.random.Generator) -> Sample:
    """Generate a sample: two images with similar or unrelated scenes, and questions about them in random order.

    There is one question per place (cell or background), and one question about the quality of the second image.
    """
    first = random_scene(rng, _DENSE)
    second = random_scene(rng, _DENSE) if rng.random() < 0.5 else _similar_scene(first, rng)
    image = degrade(render(second), rng)
    seen = read_image(image)
    now, before = (*seen.scene.cells, seen.scene.background), (*first.cells, first.background)
    questions: list[tuple[Principle, str, int]] = []
    for place in range(CELLS + 1):
        name, now_name = place_name(place), content_name(place, now[place])
        if rng.random() < 0.4:
            expected = _expected_content(place, now[place], before[place], rng)
            bit = int(now[place] == expected)
            expected_name = content_name(place, expected)
            principle = Principle(question=follow_question(name, expected_name), category=Category.FOLLOW)
            questions.append((principle, follow_line(name, expected_name, now_name, bit), bit))
        else:
            bit = int(now[place] == before[place])
            principle = Principle(question=keep_question(name), category=Category.KEEP)
            before_name = content_name(place, before[place])
            questions.append((principle, keep_line(name, before_name, now_name, bit), bit))
    clean = int(seen.clean)
    questions.append((Principle(question=CLEAN_QUESTION, category=Category.QUALITY), quality_line(clean, clean), clean))
    questions = [questions[index] for index in rng.permutation(len(questions))]
    principles, lines, bits = (tuple(part) for part in zip(*questions, strict=True))
    trace = format_trace("\n".join(lines), principles, bits, float(rng.integers(21)) / 2)
    return Sample(render(first), image, principles, trace, bits)


def degrade(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Return the image unchanged (probability 30 %), with the artifacts of an editor (25 %), or damaged (45 %)."""
    kind = rng.random()
    if kind < 0.3:
        return image
    if kind < 0.55:
        return editor_like(image, rng)
    if kind < 0.65:
        return _cell_blend(image, rng)
    name = str(rng.choice(list(PIXEL_FAULTS)))
    return PIXEL_FAULTS[name](render(random_scene(rng, _DENSE)), image, rng)


def editor_like(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Add slight blur, smooth colour shifts and fine noise, as an autoencoder does. Most resulting images count as clean."""
    values = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6))), np.float64)
    shift = rng.normal(0, 255 * 0.03, (4, 4, 3)).repeat(8, axis=0).repeat(8, axis=1)
    values = values + shift * rng.uniform(0, 1) + rng.normal(0, 255 * rng.uniform(0, 0.05), values.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _similar_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    for place in range(CELLS):
        if rng.random() < 0.5:
            scene = scene.with_cell(place, _similar_content(scene.cells[place], rng))
    return (
        scene.with_background(different_value(scene.background, len(BACKGROUNDS), rng)) if rng.random() < 0.5 else scene
    )


def _similar_content(content: int, rng: np.random.Generator) -> int:
    if content == NOTHING:
        return int(rng.integers(NOTHING))
    return NOTHING if rng.random() < 0.2 else similar_object(content, rng)


def _expected_content(place: int, now: int, before: int, rng: np.random.Generator) -> int:
    kind = rng.random()
    if kind < 0.5:
        return now
    if place == BACKGROUND_PLACE:
        return before if kind < 0.65 else different_value(now, len(BACKGROUNDS), rng)
    if kind < 0.65:
        return before
    return _similar_content(now, rng) if kind < 0.85 else int(rng.integers(len(CONTENTS)))


def _cell_blend(image: Pixels, rng: np.random.Generator) -> Pixels:
    window = cell_window(int(rng.integers(CELLS)))
    fraction = rng.uniform(0.55, 0.85)
    mixed = image.astype(np.float64)
    mixed[window] = fraction * mixed[window] + (1 - fraction) * render(random_scene(rng, _DENSE))[window]
    return np.rint(mixed).astype(np.uint8)
