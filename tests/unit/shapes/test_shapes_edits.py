"""Instructions, cases, candidates and annotators of the shapes dataset."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from editr1.config.shapes import AnnotatorSettings, CandidateSettings
from editr1.data.types import Category
from editr1.shapes.annotators import label_pair
from editr1.shapes.candidates import make_candidate, make_candidates
from editr1.shapes.cases import generate_cases, principles_for
from editr1.shapes.edits import Operation, parse_instruction, random_edit
from editr1.shapes.faults import KINDS
from editr1.shapes.questions import parse_question
from editr1.shapes.rendering import render
from editr1.shapes.scene import random_scene
from editr1.shapes.truth import read_image, true_score
from editr1.shapes.vocabulary import phrases


def test_every_random_instruction_changes_its_scene_and_has_six_principles() -> None:
    rng = np.random.default_rng(0)
    seen = Counter()
    for _ in range(200):
        scene = random_scene(rng)
        text, edit = random_edit(scene, rng)
        assert parse_instruction(text) == edit
        assert edit.apply(scene) != scene
        assert true_score(render(scene), text, render(edit.apply(scene))).score == 10
        assert len(principles_for(text)) == 6
        assert all(parse_question(item.question) is not None for item in principles_for(text))
        seen[edit.operation] += 1
    assert set(seen) == set(Operation)


@pytest.mark.parametrize(
    "text", ["make it nicer", "remove the top-left dog", "move the top-left red square to the top-left"]
)
def test_unknown_instructions_are_rejected_with_their_text(text: str) -> None:
    with pytest.raises(ValueError, match=text):
        parse_instruction(text)


def test_cases_depend_on_seed_and_prefix_but_not_on_their_number() -> None:
    assert generate_cases(3, 1) == generate_cases(5, 1)[:3]
    assert generate_cases(3, 1) != generate_cases(3, 2)
    assert generate_cases(1, 1, "test")[0].source != generate_cases(1, 1, "train")[0].source
    assert generate_cases(1, 1)[0].principles == ()
    assert len(generate_cases(1, 1, with_principles=True)[0].principles) == 6


def test_candidates_are_reproducible_and_have_the_score_of_their_kind() -> None:
    cases = generate_cases(40, 0)
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
    with pytest.raises(ValueError, match="not a kind of candidate"):
        make_candidate(cases[0], "ugly")


def test_fraction_of_candidates_with_several_faults_is_configurable() -> None:
    case = generate_cases(1, 0)[0]
    editors = Counter(item.editor for item in make_candidates(case, 0, 400))
    assert 120 < editors["several"] < 200
    assert set(editors) <= {*KINDS, "several"}
    none = make_candidates(case, 0, 50, CandidateSettings(multiple_faults_rate=0, weights={"perfect": 1}))
    assert {item.editor for item in none} == {"perfect"}
    with pytest.raises(ValueError, match="ugly"):
        make_candidates(case, 0, 1, CandidateSettings(weights={"ugly": 1}))


def test_annotators_follow_the_true_score_except_for_flips() -> None:
    labels = Counter()
    for case in generate_cases(150, 4):
        a, b = make_candidates(case, 0, 2)
        scores = {item.candidate_id: true_score(case.source, case.instruction, item.image).score for item in (a, b)}
        pair = label_pair(case, a, b, 0)
        gap = scores[pair.winner.candidate_id] - scores[pair.loser.candidate_id]
        assert (pair.label == "same") == (abs(gap) < 1)
        labels[(pair.label, gap > 0)] += 1
        accurate = label_pair(case, a, b, 0, AnnotatorSettings(flip_rate=0))
        if accurate.label == "winner":
            assert scores[accurate.winner.candidate_id] > scores[accurate.loser.candidate_id]
    assert 0 < labels[("winner", False)] < 20


def test_questions_are_parsed_into_category_and_content() -> None:
    question = parse_question("background is grey?")
    assert question is not None and question.category is Category.FOLLOW
    assert parse_question("is the dog brown?") is None


def test_phrases_are_unique_and_in_a_fixed_order() -> None:
    words = phrases()
    assert len(words) == len(set(words)) == 116
    assert (words[0], words[-1]) == (" top-left", "0.9")


def test_images_of_cases_show_two_or_three_objects() -> None:
    for case in generate_cases(20, 9):
        assert len(read_image(case.source).scene.filled) in (2, 3)
