"""Prompts of curation, and the pool of expert examples."""

from __future__ import annotations

import json

import pytest

from editr1.config.curate import PrincipleCounts
from editr1.curation import prompts
from editr1.curation.experts import load_expert_examples, sample_expert_examples
from editr1.curation.prompts import Task, read_sections, read_task
from editr1.data.types import Category, EncodedImage
from editr1.seeding import curation_rng


def text_of(parts) -> str:
    return "\n".join(part for part in parts if isinstance(part, str))


def test_task_and_sections_of_every_prompt_can_be_parsed(case, quadruple, principles) -> None:
    edited = quadruple.candidate.image
    built = {
        Task.DIFFICULTY: prompts.difficulty(case),
        Task.DECOMPOSE: prompts.decompose(case, load_expert_examples()[:4], PrincipleCounts()),
        Task.THINK: prompts.think(case, edited, principles),
        Task.VERIFY: prompts.verify(case, edited, principles, ["first note", "second note"]),
        Task.HOLISTIC: prompts.holistic(case, edited),
    }
    for task, (system, parts) in built.items():
        sections = read_sections(text_of(parts))
        assert read_task(text_of(parts)) is task
        assert sections["instruction"] == case.instruction
        assert system
        images = [part for part in parts if isinstance(part, EncodedImage)]
        assert images
        assert images == [case.source, edited][: len(images)]
        if task in (Task.THINK, Task.VERIFY):
            shown = json.loads(sections["principles"])
            assert [item["question"] for item in shown] == [item.question for item in principles]
            assert shown[2]["category"] == "Feature Preservation"
    assert "second note" in read_sections(text_of(built[Task.VERIFY][1]))["traces"]


def test_message_without_a_task_is_rejected() -> None:
    with pytest.raises(ValueError, match="Task: decompose"):
        read_task("What do you see?")


@pytest.mark.parametrize("role", ["plain", "sceptic", "retoucher", "surveyor"])
def test_every_role_states_every_rule(case, quadruple, principles, role) -> None:
    system, _ = prompts.think(case, quadruple.candidate.image, principles, role)
    for rule in (
        "Unsure means 0",
        "degree",
        "source again",
        "white",
        "without being asked",
        "boxes",
        "contradict",
        "repair",
    ):
        assert rule in system


def test_verify_prompt_mentions_hints_only_if_there_are_traces(case, quadruple, principles) -> None:
    with_hints, _ = prompts.verify(case, quadruple.candidate.image, principles, ["n"])
    without, parts = prompts.verify(case, quadruple.candidate.image, principles)
    assert "hints" in with_hints
    assert "hints" not in without
    assert "traces" not in read_sections(text_of(parts))
    assert "a tenth" in without


def test_built_in_expert_examples_have_the_principle_counts_of_the_paper() -> None:
    pool = load_expert_examples()
    counts = PrincipleCounts()
    assert len(pool) >= 12
    for expert in pool:
        sizes = {kind: sum(item.category is kind for item in expert.principles) for kind in Category}
        assert len(expert.principles) == 10
        for kind, (least, most) in zip(sizes, (counts.follow, counts.keep, counts.quality), strict=True):
            assert least <= sizes[kind] <= most


def test_expert_examples_are_sampled_per_case_without_replacement() -> None:
    pool = load_expert_examples()
    drawn = sample_expert_examples(pool, 4, curation_rng(0, "c1"))
    assert drawn == sample_expert_examples(pool, 4, curation_rng(0, "c1"))
    assert drawn != sample_expert_examples(pool, 4, curation_rng(0, "c2"))
    assert len({item.instruction for item in drawn}) == 4


def test_invalid_expert_example_is_reported_with_file_and_line(tmp_path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text('{"picture": "p", "instruction": "i", "principles": []}\n')
    with pytest.raises(RuntimeError, match=r"pool\.jsonl: line 1"):
        load_expert_examples(path)
