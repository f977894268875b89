"""Faults of edited pictures: in what the picture shows, and in how it looks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from editr1.shapes.drawing import Pixels, draw
from editr1.shapes.edits import GROUND_PLACE, Edit
from editr1.shapes.scene import NOTHING, Scene, near_object, other
from editr1.shapes.vocabulary import BACKGROUNDS, OBJECTS

SceneFault = Callable[[Scene, Edit, Scene, np.random.Generator], Scene | None]
"""(source, edit, picture so far, rng) -> faulty scene, or None where the fault is not possible."""
PixelFault = Callable[[Pixels, Pixels, np.random.Generator], Pixels]
"""(source picture, edited picture, rng) -> faulty picture, all uint8 (32, 32, 3)."""

PERFECT: Final = "perfect"


def make_fault(
    kinds: tuple[str, ...], source: Scene, edit: Edit, rng: np.random.Generator
) -> tuple[Scene, Pixels] | None:
    """The edit done with ``kinds`` of faults: the scene that was drawn, and the picture. None where one is not possible.

    Pixel faults may hide what the scene shows: the truth of the picture is what ``truth`` reads in it.
    """
    scene = edit.apply(source)
    for kind in kinds:
        if kind in SCENE_FAULTS:
            changed = SCENE_FAULTS[kind](source, edit, scene, rng)
            if changed is None:
                return None
            scene = changed
    before, picture = draw(source), draw(scene)
    for kind in kinds:
        if kind in PIXEL_FAULTS:
            picture = PIXEL_FAULTS[kind](before, picture, rng)
    return scene, picture


def _no_edit(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene:
    held = (*source.cells, source.ground)
    for place in edit.touched:
        scene = scene.with_ground(held[place]) if place == GROUND_PLACE else scene.with_cell(place, held[place])
    return scene


def _wrong(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene:
    place, content = edit.wanted[int(rng.integers(len(edit.wanted)))]
    if place == GROUND_PLACE:
        return scene.with_ground(other(content, len(BACKGROUNDS), rng))
    if content == NOTHING:
        left = source.cells[place]
        return scene.with_cell(place, left if rng.random() < 0.5 else near_object(left, rng))
    if rng.random() < 0.2:
        return scene.with_cell(place, NOTHING)
    return scene.with_cell(place, near_object(content, rng))


def _leak(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _changed(edit, scene, rng, 1)


def _leak_two(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _changed(edit, scene, rng, 2)


def _changed(edit: Edit, scene: Scene, rng: np.random.Generator, count: int) -> Scene | None:
    places = [place for place in scene.filled if place not in edit.touched]
    if len(places) < count:
        return None
    for place in rng.permutation(places)[:count]:
        scene = scene.with_cell(int(place), near_object(scene.cells[int(place)], rng))
    return scene


def _lost(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    places = [place for place in scene.filled if place not in edit.touched]
    return scene.with_cell(int(rng.choice(places)), NOTHING) if places else None


def _extra(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    places = [place for place in scene.empty if place not in edit.touched]
    return scene.with_cell(int(rng.choice(places)), int(rng.integers(len(OBJECTS)))) if places else None


def _ground_leak(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    if GROUND_PLACE in edit.touched:
        return None
    return scene.with_ground(other(scene.ground, len(BACKGROUNDS), rng))


def _noise(before: Pixels, picture: Pixels, rng: np.random.Generator) -> Pixels:
    noisy = picture + rng.normal(0, 255 * rng.uniform(0.12, 0.22), picture.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _border(before: Pixels, picture: Pixels, rng: np.random.Generator) -> Pixels:
    light = int(picture[0, 0].astype(int).sum()) > 3 * 150
    framed = np.full_like(picture, 40 if light else 255)
    framed[1:-1, 1:-1] = picture[1:-1, 1:-1]
    return framed


def _partial(before: Pixels, picture: Pixels, rng: np.random.Generator) -> Pixels:
    share = rng.uniform(0.4, 0.6)
    return np.rint(share * picture + (1 - share) * before).astype(np.uint8)


def _blur(before: Pixels, picture: Pixels, rng: np.random.Generator) -> Pixels:
    blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(rng.uniform(1.6, 2.6)))
    return np.asarray(blurred)


SCENE_FAULTS: Final[Mapping[str, SceneFault]] = {
    "no_edit": _no_edit,
    "wrong": _wrong,
    "leak": _leak,
    "leak_two": _leak_two,
    "lost": _lost,
    "extra": _extra,
    "ground_leak": _ground_leak,
}
"""Nothing done; the wrong content; one or two untouched objects changed; one vanished; a new one; another background."""
PIXEL_FAULTS: Final[Mapping[str, PixelFault]] = {"noise": _noise, "border": _border, "partial": _partial, "blur": _blur}
"""Gaussian noise; a frame of one pixel; half a blend with the source; a blur."""
KINDS: Final = (PERFECT, *SCENE_FAULTS, *PIXEL_FAULTS)
