"""Generate faulty edits. Scene faults change the content of the edited image, and pixel faults degrade its pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from editr1.shapes.edits import BACKGROUND_PLACE, Edit
from editr1.shapes.rendering import Pixels, render
from editr1.shapes.scene import NOTHING, Scene, different_value, similar_object
from editr1.shapes.vocabulary import BACKGROUNDS, OBJECTS

SceneFault = Callable[[Scene, Edit, Scene, np.random.Generator], Scene | None]
"""Function (source scene, edit, edited scene, rng) that returns a faulty scene, or None if the fault is not possible.
"""
PixelFault = Callable[[Pixels, Pixels, np.random.Generator], Pixels]
"""Function (source image, edited image, rng) that returns a faulty image. All images are uint8 (32, 32, 3)."""

PERFECT: Final = "perfect"


def apply_with_faults(
    kinds: tuple[str, ...], source: Scene, edit: Edit, rng: np.random.Generator
) -> tuple[Scene, Pixels] | None:
    """Apply ``edit`` to ``source`` with the given kinds of faults.

    Returns the resulting scene and its image, or None if one of the faults is not possible. Pixel faults may hide
    parts of the scene. The ground truth is therefore the content that ``truth`` reads from the image, not the returned
    scene.
    """
    scene = edit.apply(source)
    for kind in kinds:
        if kind in SCENE_FAULTS:
            changed = SCENE_FAULTS[kind](source, edit, scene, rng)
            if changed is None:
                return None
            scene = changed
    before, image = render(source), render(scene)
    for kind in kinds:
        if kind in PIXEL_FAULTS:
            image = PIXEL_FAULTS[kind](before, image, rng)
    return scene, image


def _no_edit(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene:
    before = (*source.cells, source.background)
    for place in edit.touched:
        scene = (
            scene.with_background(before[place]) if place == BACKGROUND_PLACE else scene.with_cell(place, before[place])
        )
    return scene


def _wrong(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene:
    place, content = edit.targets[int(rng.integers(len(edit.targets)))]
    if place == BACKGROUND_PLACE:
        return scene.with_background(different_value(content, len(BACKGROUNDS), rng))
    if content == NOTHING:
        removed = source.cells[place]
        return scene.with_cell(place, removed if rng.random() < 0.5 else similar_object(removed, rng))
    if rng.random() < 0.2:
        return scene.with_cell(place, NOTHING)
    return scene.with_cell(place, similar_object(content, rng))


def _leak(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _changed(edit, scene, rng, 1)


def _leak_two(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    return _changed(edit, scene, rng, 2)


def _changed(edit: Edit, scene: Scene, rng: np.random.Generator, count: int) -> Scene | None:
    places = [place for place in scene.filled if place not in edit.touched]
    if len(places) < count:
        return None
    for place in rng.permutation(places)[:count]:
        scene = scene.with_cell(int(place), similar_object(scene.cells[int(place)], rng))
    return scene


def _lost(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    places = [place for place in scene.filled if place not in edit.touched]
    return scene.with_cell(int(rng.choice(places)), NOTHING) if places else None


def _extra(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    places = [place for place in scene.empty if place not in edit.touched]
    return scene.with_cell(int(rng.choice(places)), int(rng.integers(len(OBJECTS)))) if places else None


def _background_leak(source: Scene, edit: Edit, scene: Scene, rng: np.random.Generator) -> Scene | None:
    if BACKGROUND_PLACE in edit.touched:
        return None
    return scene.with_background(different_value(scene.background, len(BACKGROUNDS), rng))


def _noise(before: Pixels, image: Pixels, rng: np.random.Generator) -> Pixels:
    noisy = image + rng.normal(0, 255 * rng.uniform(0.12, 0.22), image.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def _border(before: Pixels, image: Pixels, rng: np.random.Generator) -> Pixels:
    light = int(image[0, 0].astype(int).sum()) > 3 * 150
    framed = np.full_like(image, 40 if light else 255)
    framed[1:-1, 1:-1] = image[1:-1, 1:-1]
    return framed


def _partial(before: Pixels, image: Pixels, rng: np.random.Generator) -> Pixels:
    fraction = rng.uniform(0.4, 0.6)
    return np.rint(fraction * image + (1 - fraction) * before).astype(np.uint8)


def _blur(before: Pixels, image: Pixels, rng: np.random.Generator) -> Pixels:
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(rng.uniform(1.6, 2.6)))
    return np.asarray(blurred)


SCENE_FAULTS: Final[Mapping[str, SceneFault]] = {
    "no_edit": _no_edit,
    "wrong": _wrong,
    "leak": _leak,
    "leak_two": _leak_two,
    "lost": _lost,
    "extra": _extra,
    "ground_leak": _background_leak,
}
"""Functions that create scene faults, by kind of fault.

``no_edit``: the requested change is not made. ``wrong``: a place gets the wrong content. The other kinds change something
that the instruction does not mention. ``leak``, ``leak_two``: one or two objects change. ``lost``: an object disappears.
``extra``: an object is added. ``ground_leak``: the background changes.
"""
PIXEL_FAULTS: Final[Mapping[str, PixelFault]] = {"noise": _noise, "border": _border, "partial": _partial, "blur": _blur}
"""Functions that create pixel faults, by kind of fault.

``noise``: Gaussian noise. ``border``: a border of one pixel. ``partial``: a blend with the source image. ``blur``: Gaussian
blur.
"""
KINDS: Final = (PERFECT, *SCENE_FAULTS, *PIXEL_FAULTS)
"""Every kind of candidate: ``perfect`` and each kind of fault."""
