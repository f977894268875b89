from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from editr1.shapes.audit import audit
from editr1.shapes.drawing import draw
from editr1.shapes.edits import parse_instruction
from editr1.shapes.scene import NOTHING, Scene, random_scene
from editr1.shapes.truth import read_picture, read_pictures, rubric, true_score, true_scores
from editr1.shapes.vocabulary import OBJECTS

RED, YELLOW = OBJECTS.index("red square"), OBJECTS.index("yellow square")
SOURCE = Scene((RED, NOTHING, OBJECTS.index("blue circle"), NOTHING), 1)
RECOLOR = "make the top-left red square yellow"


def test_drawn_scenes_are_read_back_exactly() -> None:
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, (0, 1, 2, 3, 4)) for _ in range(300)]
    readings = read_pictures(np.stack([draw(scene) for scene in scenes]))
    assert [readings.at(index).scene for index in range(300)] == scenes
    assert float(readings.residuals.max()) < 0.005


def test_audit_reports_high_agreement_for_every_way_a_picture_may_look() -> None:
    report = audit(150, seed=1)
    assert report["drawn"].scenes == 1 and report["drawn"].clean == 1
    assert report["editor"].scenes == 1 and report["editor"].clean > 0.85
    assert report["noise"].scenes == report["border"].scenes == 1
    assert report["blur"].scenes > 0.7  # a blur may really hide what was drawn, or leave an empty scene as it is
    assert report["noise"].clean < 0.02 and report["border"].clean == 0 and report["blur"].clean < 0.35


def test_pictures_are_read_alike_alone_in_a_batch_as_floats_and_at_another_size() -> None:
    rng = np.random.default_rng(2)
    pictures = np.stack([draw(random_scene(rng)) for _ in range(8)])
    batch, floats = read_pictures(pictures), read_pictures(pictures / np.float32(255))
    for index in range(8):
        alone = read_picture(pictures[index])
        assert alone.scene == batch.at(index).scene == floats.at(index).scene
        large = Image.fromarray(pictures[index]).resize((64, 64), Image.Resampling.NEAREST)
        assert read_picture(large).scene == alone.scene


def test_wrong_shapes_and_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(n, 32, 32, 3\)"):
        read_pictures(np.zeros((2, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="int64"):
        read_pictures(np.zeros((2, 32, 32, 3), np.int64))


@pytest.mark.parametrize(
    ("edited", "score"),
    [
        (SOURCE.with_cell(0, YELLOW), 10.0),
        (SOURCE, 4.0),  # 0 + 3 + 2, capped
        (SOURCE.with_cell(0, YELLOW).with_cell(2, NOTHING), 8.5),
        (SOURCE.with_cell(0, YELLOW).with_cell(2, NOTHING).with_ground(0), 7.0),
        (SOURCE.with_cell(0, YELLOW).with_cell(1, RED).with_cell(2, NOTHING).with_ground(0), 7.0),  # keep not under 0
        (SOURCE.with_cell(1, RED).with_cell(2, NOTHING), 2.0),
    ],
)
def test_true_score_follows_the_rubric(edited: Scene, score: float) -> None:
    assert true_score(draw(SOURCE), RECOLOR, draw(edited)).score == score


def test_half_followed_moves_and_dirty_pictures_lose_their_share() -> None:
    move = "move the top-left red square to the top-right"
    half = true_score(draw(SOURCE), move, draw(SOURCE.with_cell(1, RED)))
    assert (half.follow, half.score, half.verdicts) == (0.5, 7.5, (0, 1, 1, 1, 1, 1))
    noisy = np.clip(draw(SOURCE) + np.random.default_rng(0).normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
    assert true_score(draw(SOURCE), move, noisy).quality == 0
    assert rubric(1.0, 1, 0.0) == 6.5


def test_many_scores_at_once_equal_each_alone() -> None:
    rng = np.random.default_rng(3)
    edited = np.stack([draw(random_scene(rng)) for _ in range(5)])
    sources = np.stack([draw(SOURCE)] * 5)
    many = true_scores(sources, [RECOLOR] * 5, edited)
    assert many == [true_score(SOURCE_PIXELS, RECOLOR, picture) for picture in edited]


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
    assert true_score(draw(SOURCE), RECOLOR, draw(faulty)).verdicts == (1, 1, 0, 1, 1, 1)


SOURCE_PIXELS = draw(SOURCE)
