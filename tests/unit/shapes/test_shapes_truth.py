"""The ground truth of images and the rubric."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from editr1.shapes.agreement import measure_agreement
from editr1.shapes.edits import parse_instruction
from editr1.shapes.rendering import render
from editr1.shapes.scene import NOTHING, Scene, random_scene
from editr1.shapes.truth import read_image, read_images, rubric, true_score, true_scores
from editr1.shapes.vocabulary import OBJECTS

RED, YELLOW = OBJECTS.index("red square"), OBJECTS.index("yellow square")
SOURCE = Scene((RED, NOTHING, OBJECTS.index("blue circle"), NOTHING), 1)
RECOLOR = "make the top-left red square yellow"


def test_rendered_scenes_are_read_exactly() -> None:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, (0, 1, 2, 3, 4)) for _ in range(300)]
    readings = read_images(np.stack([render(scene) for scene in scenes]))
    assert [readings.at(index).scene for index in range(300)] == scenes
    assert float(readings.residuals.max()) < 0.005


def test_agreement_is_high_for_every_kind_of_image() -> None:
    report = measure_agreement(150, seed=1)
    assert report["drawn"].scenes == 1 and report["drawn"].clean == 1
    assert report["editor"].scenes == 1 and report["editor"].clean > 0.85
    assert report["noise"].scenes == report["border"].scenes == 1
    assert report["blur"].scenes > 0.7  # blur can hide an object, but it does not change an empty scene
    assert report["noise"].clean < 0.02 and report["border"].clean == 0 and report["blur"].clean < 0.35


def test_reading_does_not_depend_on_batching_dtype_or_size() -> None:
    rng = np.random.default_rng(2)
    images = np.stack([render(random_scene(rng)) for _ in range(8)])
    batch, floats = read_images(images), read_images(images / np.float32(255))
    for index in range(8):
        single = read_image(images[index])
        assert single.scene == batch.at(index).scene == floats.at(index).scene
        large = Image.fromarray(images[index]).resize((64, 64), Image.Resampling.NEAREST)
        assert read_image(large).scene == single.scene


def test_arrays_of_other_shapes_and_dtypes_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"\(n, 32, 32, 3\)"):
        read_images(np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="int64"):
        read_images(np.zeros((2, 32, 32, 3), np.int64))


@pytest.mark.parametrize(
    ("edited", "score"),
    [
        (SOURCE.with_cell(0, YELLOW), 10.0),
        (SOURCE, 4.0),  # 0 + 3 + 2, capped at 4
        (SOURCE.with_cell(0, YELLOW).with_cell(2, NOTHING), 8.5),
        (SOURCE.with_cell(0, YELLOW).with_cell(2, NOTHING).with_background(0), 7.0),
        (
            SOURCE.with_cell(0, YELLOW).with_cell(1, RED).with_cell(2, NOTHING).with_background(0),
            7.0,
        ),  # the keep term is not negative
        (SOURCE.with_cell(1, RED).with_cell(2, NOTHING), 2.0),
    ],
)
def test_true_score_follows_the_rubric(edited: Scene, score: float) -> None:
    assert true_score(render(SOURCE), RECOLOR, render(edited)).score == score


def test_partial_move_and_noisy_image_reduce_the_score() -> None:
    move = "move the top-left red square to the top-right"
    half = true_score(render(SOURCE), move, render(SOURCE.with_cell(1, RED)))
    assert (half.follow, half.score, half.verdicts) == (0.5, 7.5, (0, 1, 1, 1, 1, 1))
    noisy = np.clip(render(SOURCE) + np.random.default_rng(0).normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
    assert true_score(render(SOURCE), move, noisy).quality == 0
    assert rubric(1.0, 1, 0.0) == 6.5


def test_batched_scores_equal_single_scores() -> None:
    rng = np.random.default_rng(3)
    edited = np.stack([render(random_scene(rng)) for _ in range(5)])
    sources = np.stack([render(SOURCE)] * 5)
    many = true_scores(sources, [RECOLOR] * 5, edited)
    assert many == [true_score(SOURCE_PIXELS, RECOLOR, image) for image in edited]


def test_verdicts_are_aligned_with_the_principles() -> None:
    questions = [item.question for item in parse_instruction(RECOLOR).principles()]
    assert questions == [
        "top-left is yellow square?",
        "top-right kept?",
        "bottom-left kept?",
        "bottom-right kept?",
        "background kept?",
        "picture clean?",
    ]
    faulty = SOURCE.with_cell(0, YELLOW).with_cell(2, NOTHING)
    assert true_score(render(SOURCE), RECOLOR, render(faulty)).verdicts == (1, 1, 0, 1, 1, 1)


SOURCE_PIXELS = render(SOURCE)
