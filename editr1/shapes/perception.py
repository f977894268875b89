"""Samples that teach the small verifier to look: two pictures that no instruction ties, questions, the true trace.

They are in the words and layout of verdicts, so that what is learnt carries over; but no edit is asked for, the second
picture cannot be guessed from the first, and the final score is random, so how edits are judged is not learnt here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from editr1.data.types import Category, Principle
from editr1.shapes.drawing import Pixels, cell_window, draw
from editr1.shapes.edits import GROUND_PLACE, content_name, place_name
from editr1.shapes.faults import PIXEL_FAULTS
from editr1.shapes.scene import CELLS, NOTHING, Scene, near_object, other, random_scene
from editr1.shapes.truth import read_picture
from editr1.shapes.vocabulary import (
    BACKGROUNDS,
    CLEAN_QUESTION,
    CONTENTS,
    had_line,
    is_question,
    kept_question,
    looks_line,
    want_line,
)
from editr1.verifier.trace import format_trace

NEUTRAL_INSTRUCTION: Final = "compare"
_DENSE: Final = (2, 3, 4, 4)


@dataclass(frozen=True)
class Sample:
    """One sample: two uint8 (32, 32, 3) pictures, the questions about them, the trace to write, and its verdicts."""

    first: Pixels
    second: Pixels
    principles: tuple[Principle, ...]
    trace: str
    verdicts: tuple[int, ...]


def draw_sample(rng: np.random.Generator) -> Sample:
    """Draw a pair of scenes, unrelated or near misses of each other, and one question a place in random order."""
    first = random_scene(rng, _DENSE)
    second = random_scene(rng, _DENSE) if rng.random() < 0.5 else _near_scene(first, rng)
    picture = disturb(draw(second), rng)
    seen = read_picture(picture)
    held, had = (*seen.scene.cells, seen.scene.ground), (*first.cells, first.ground)
    asked: list[tuple[Principle, str, int]] = []
    for place in range(CELLS + 1):
        name, now = place_name(place), content_name(place, held[place])
        if rng.random() < 0.4:
            wanted = _wanted(place, held[place], had[place], rng)
            bit = int(held[place] == wanted)
            word = content_name(place, wanted)
            principle = Principle(question=is_question(name, word), category=Category.FOLLOW)
            asked.append((principle, want_line(name, word, now, bit), bit))
        else:
            bit = int(held[place] == had[place])
            principle = Principle(question=kept_question(name), category=Category.KEEP)
            asked.append((principle, had_line(name, content_name(place, had[place]), now, bit), bit))
    clean = int(seen.clean)
    asked.append((Principle(question=CLEAN_QUESTION, category=Category.QUALITY), looks_line(clean, clean), clean))
    asked = [asked[index] for index in rng.permutation(len(asked))]
    principles, lines, bits = (tuple(part) for part in zip(*asked, strict=True))
    trace = format_trace("\n".join(lines), principles, bits, float(rng.integers(21)) / 2)
    return Sample(draw(first), picture, principles, trace, bits)


def disturb(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """The picture as it is (.3), a little off as editors leave it (.25), or with a fault of how it looks (.45)."""
    kind = rng.random()
    if kind < 0.3:
        return picture
    if kind < 0.55:
        return editor_like(picture, rng)
    if kind < 0.65:
        return _cell_blend(picture, rng)
    name = str(rng.choice(list(PIXEL_FAULTS)))
    return PIXEL_FAULTS[name](draw(random_scene(rng, _DENSE)), picture, rng)


def editor_like(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Slight blur, smooth shifts of colour and fine noise, as an autoencoder leaves them; mostly still clean."""
    values = np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.6))), np.float64)
    shift = rng.normal(0, 255 * 0.03, (4, 4, 3)).repeat(8, axis=0).repeat(8, axis=1)
    values = values + shift * rng.uniform(0, 1) + rng.normal(0, 255 * rng.uniform(0, 0.05), values.shape)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _near_scene(scene: Scene, rng: np.random.Generator) -> Scene:
    for place in range(CELLS):
        if rng.random() < 0.5:
            scene = scene.with_cell(place, _near_content(scene.cells[place], rng))
    return scene.with_ground(other(scene.ground, len(BACKGROUNDS), rng)) if rng.random() < 0.5 else scene


def _near_content(content: int, rng: np.random.Generator) -> int:
    if content == NOTHING:
        return int(rng.integers(NOTHING))
    return NOTHING if rng.random() < 0.2 else near_object(content, rng)


def _wanted(place: int, now: int, before: int, rng: np.random.Generator) -> int:
    kind = rng.random()
    if kind < 0.5:
        return now
    if place == GROUND_PLACE:
        return before if kind < 0.65 else other(now, len(BACKGROUNDS), rng)
    if kind < 0.65:
        return before
    return _near_content(now, rng) if kind < 0.85 else int(rng.integers(len(CONTENTS)))


def _cell_blend(picture: Pixels, rng: np.random.Generator) -> Pixels:
    window = cell_window(int(rng.integers(CELLS)))
    share = rng.uniform(0.55, 0.85)
    mixed = picture.astype(np.float64)
    mixed[window] = share * mixed[window] + (1 - share) * draw(random_scene(rng, _DENSE))[window]
    return np.rint(mixed).astype(np.uint8)
