from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from editr1.config.shapes import AnnotatorSettings, CandidateSettings
from editr1.data.types import Category
from editr1.shapes.annotators import prefer
from editr1.shapes.candidates import make_candidate, make_candidates
from editr1.shapes.cases import draw_cases, principles_for
from editr1.shapes.drawing import draw
from editr1.shapes.edits import Operation, parse_instruction, random_edit
from editr1.shapes.faults import KINDS
from editr1.shapes.questions import parse_question, read_prompt
from editr1.shapes.scene import random_scene
from editr1.shapes.truth import read_picture, true_score
from editr1.shapes.vocabulary import phrases


def test_every_instruction_parses_changes_its_scene_and_has_six_questions() -> None:
    rng = np.random.default_rng(0)
    seen = Counter()
    for _ in range(200):
        scene = random_scene(rng)
        text, edit = random_edit(scene, rng)
        assert parse_instruction(text) == edit
        assert edit.apply(scene) != scene
        assert true_score(draw(scene), text, draw(edit.apply(scene))).score == 10
        assert len(principles_for(text)) == 6
        assert all(parse_question(item.question) is not None for item in principles_for(text))
        seen[edit.operation] += 1
    assert set(seen) == set(Operation)


@pytest.mark.parametrize(
    "text", ["make it nicer", "remove the top-left dog", "move the top-left red square to the top-left"]
)
def test_foreign_instructions_are_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_instruction(text)


def test_cases_depend_on_seed_and_prefix_and_not_on_their_number() -> None:
    assert draw_cases(3, 1) == draw_cases(5, 1)[:3]
    assert draw_cases(3, 1) != draw_cases(3, 2)
    assert draw_cases(1, 1, "test")[0].source != draw_cases(1, 1, "train")[0].source
    assert draw_cases(1, 1)[0].principles == ()
    assert len(draw_cases(1, 1, with_principles=True)[0].principles) == 6


def test_candidates_are_repeatable_and_score_as_their_kind_says() -> None:
    cases = draw_cases(40, 0)
    assert make_candidates(cases[0], 3, 4) == make_candidates(cases[0], 3, 4)
    for case in cases:
        perfect, untouched = make_candidate(case, "perfect"), make_candidate(case, "no_edit")
        assert perfect is not None and untouched is not None
        assert true_score(case.source, case.instruction, perfect.image).score == 10
        assert true_score(case.source, case.instruction, untouched.image).follow == 0
        for kind in ("lost", "extra", "ground_leak", "leak"):
            faulty = make_candidate(case, kind)
            if faulty is not None:
                score = true_score(case.source, case.instruction, faulty.image)
                assert (score.follow, score.quality) == (1, 1) and score.keep < 1
        noisy = make_candidate(case, "noise")
        assert noisy is not None and true_score(case.source, case.instruction, noisy.image).quality == 0
    with pytest.raises(ValueError, match="allowed"):
        make_candidate(cases[0], "ugly")


def test_the_share_of_candidates_with_several_faults_is_a_setting() -> None:
    case = draw_cases(1, 0)[0]
    editors = Counter(item.editor for item in make_candidates(case, 0, 400))
    assert 120 < editors["several"] < 200
    assert set(editors) <= {*KINDS, "several"}
    none = make_candidates(case, 0, 50, CandidateSettings(several=0, weights={"perfect": 1}))
    assert {item.editor for item in none} == {"perfect"}
    with pytest.raises(ValueError, match="ugly"):
        make_candidates(case, 0, 1, CandidateSettings(weights={"ugly": 1}))


def test_annotators_follow_the_truth_but_for_their_flips() -> None:
    labels = Counter()
    for case in draw_cases(150, 4):
        a, b = make_candidates(case, 0, 2)
        scores = {item.candidate_id: true_score(case.source, case.instruction, item.image).score for item in (a, b)}
        pair = prefer(case, a, b, 0)
        gap = scores[pair.winner.candidate_id] - scores[pair.loser.candidate_id]
        assert (pair.label == "same") == (abs(gap) < 1)
        labels[(pair.label, gap > 0)] += 1
        honest = prefer(case, a, b, 0, AnnotatorSettings(flips=0))
        if honest.label == "winner":
            assert scores[honest.winner.candidate_id] > scores[honest.loser.candidate_id]
    assert 0 < labels[("winner", False)] < 20


def test_the_last_instruction_of_a_prompt_counts_with_the_questions_after_it() -> None:
    text = """Example: remove the top-left red square
1. top-left is empty?
Now: make the background grey
1. background is grey?
2. picture clean?
Trace: background is grey?"""
    assert read_prompt(text) == ("make the background grey", ("background is grey?", "picture clean?"))
    with pytest.raises(ValueError, match="no instruction"):
        read_prompt("make the dog bark")
    question = parse_question("background is grey?")
    assert question is not None and question.category is Category.FOLLOW
    assert parse_question("is the dog brown?") is None


def test_phrases_are_unique_and_their_order_is_frozen() -> None:
    words = phrases()
    assert len(words) == len(set(words)) == 116
    assert (words[0], words[-1]) == (" top-left", "0.9")


def test_pictures_of_cases_read_back_to_a_scene_with_two_or_three_objects() -> None:
    for case in draw_cases(20, 9):
        assert len(read_picture(case.source).scene.filled) in (2, 3)
