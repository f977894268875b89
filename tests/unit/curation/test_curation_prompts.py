from __future__ import annotations

import json

import pytest

from editr1.config.curate import PrincipleCounts
from editr1.curation import prompts
from editr1.curation.experts import draw_experts, load_experts
from editr1.curation.prompts import Task, read_sections, read_task
from editr1.data.types import Category, EncodedImage
from editr1.seeding import curation_rng


def text_of(parts) -> str:
    return "\n".join(part for part in parts if isinstance(part, str))


def test_task_and_sections_of_every_prompt_can_be_read_back(case, quadruple, principles) -> None:
    edited = quadruple.candidate.image
    built = {
        Task.DIFFICULTY: prompts.difficulty(case),
        Task.DECOMPOSE: prompts.decompose(case, load_experts()[:4], PrincipleCounts()),
        Task.THINK: prompts.think(case, edited, principles),
        Task.VERIFY: prompts.verify(case, edited, principles, ["first note", "second note"]),
        Task.HOLISTIC: prompts.holistic(case, edited),
    }
    for task, (system, parts) in built.items():
        sections = read_sections(text_of(parts))
        assert read_task(text_of(parts)) is task
        assert sections["instruction"] == case.instruction
        assert system
        pictures = [part for part in parts if isinstance(part, EncodedImage)]
        assert pictures == [case.source, edited][: len(pictures)]
        if task in (Task.THINK, Task.VERIFY):
            asked = json.loads(sections["principles"])
            assert [item["question"] for item in asked] == [item.question for item in principles]
            assert asked[2]["category"] == "Feature Preservation"
    assert "second note" in read_sections(text_of(built[Task.VERIFY][1]))["traces"]


def test_a_message_without_a_task_is_refused() -> None:
    with pytest.raises(ValueError, match="Task: decompose"):
        read_task("What do you see?")


@pytest.mark.parametrize("variant", ["plain", "sceptic", "retoucher", "surveyor"])
def test_every_member_gets_every_rule(case, quadruple, principles, variant) -> None:
    system, _ = prompts.think(case, quadruple.candidate.image, principles, variant)
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


def test_gold_is_asked_for_with_notes_as_hints_only_when_there_are_notes(case, quadruple, principles) -> None:
    with_notes, _ = prompts.verify(case, quadruple.candidate.image, principles, ["n"])
    without, parts = prompts.verify(case, quadruple.candidate.image, principles)
    assert "hints" in with_notes
    assert "hints" not in without
    assert "traces" not in read_sections(text_of(parts))
    assert "a tenth" in without


def test_the_shipped_experts_keep_the_papers_counts() -> None:
    pool = load_experts()
    counts = PrincipleCounts()
    assert len(pool) >= 12
    for expert in pool:
        sizes = {kind: sum(item.category is kind for item in expert.principles) for kind in Category}
        assert len(expert.principles) == 10
        for kind, (least, most) in zip(sizes, (counts.follow, counts.keep, counts.quality), strict=True):
            assert least <= sizes[kind] <= most


def test_experts_are_drawn_by_the_case_and_without_repeats() -> None:
    pool = load_experts()
    drawn = draw_experts(pool, 4, curation_rng(0, "c1"))
    assert drawn == draw_experts(pool, 4, curation_rng(0, "c1"))
    assert drawn != draw_experts(pool, 4, curation_rng(0, "c2"))
    assert len({item.instruction for item in drawn}) == 4


def test_a_bad_expert_is_named_by_file_and_line(tmp_path) -> None:
    path = tmp_path / "pool.jsonl"
    path.write_text('{"picture": "p", "instruction": "i", "principles": []}\n')
    with pytest.raises(RuntimeError, match=r"pool\.jsonl: line 1"):
        load_experts(path)
