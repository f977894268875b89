"""Record files, random choices, settings, candidates and pairs of curation."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from editr1.config.curate import CurateConfig, MemberConfig, PrincipleCounts
from editr1.config.llm import EndpointConfig, VlmConfig
from editr1.curation.candidates import make_candidates
from editr1.curation.choose import split_cases
from editr1.curation.errors import CurationError
from editr1.curation.pairs import attach_principles
from editr1.curation.pipeline import curate
from editr1.curation.records import RecordFile
from editr1.curation.rows import RowBuilder
from editr1.curation.select import verdict_trace
from editr1.curation.steps import CurationContext, run_step
from editr1.curation.think import quadruple_id, sample_members
from editr1.data.images import ImageError
from editr1.data.tables import read_table, write_table
from editr1.data.types import Candidate, EditCase, EncodedImage, PreferencePair, Quadruple, SftRow
from editr1.llm.answers import UnreadableAnswer
from editr1.llm.vlm import VlmClient
from editr1.seeding import curation_rng, curation_seed


def png(seed: int, mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> EncodedImage:
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "PNG")
    return EncodedImage(data=buffer.getvalue())


def test_incomplete_last_record_is_discarded(tmp_path) -> None:
    path = tmp_path / "part.jsonl"
    with RecordFile(path) as part:
        part.put("a", value=1)
        part.put("b", value=[2, "ü"])
    complete = path.read_bytes()
    path.write_bytes(complete + b'{"id": "c", "val')
    with RecordFile(path) as part:
        assert "c" not in part
        assert part.get("b") == {"id": "b", "value": [2, "ü"]}
        part.put("c", value=3)
        assert part.get("a") == {"id": "a", "value": 1}
        part.put("d", value=4)
        assert part.get("c") == {"id": "c", "value": 3}
    with RecordFile(path) as part:
        assert len(part) == 4
    assert path.read_bytes().startswith(complete)


def test_failed_record_is_valid_only_for_the_call_that_wrote_it(tmp_path) -> None:
    path = tmp_path / "part.jsonl"
    with RecordFile(path) as part:
        part.put("a", value=1)
        part.put("b", value=2, failed="no answer")
        assert part.get("b") == {"id": "b", "value": 2, "failed": "no answer"}
    with RecordFile(path) as part:
        assert "a" in part and "b" not in part and len(part) == 1
        part.put("b", value=3)
    with RecordFile(path) as part:
        assert part.get("b") == {"id": "b", "value": 3}


@pytest.mark.parametrize("damaged", [b"[1, 2]", b"{", b"\xff\xfe", b'{"value": 1}', None])
def test_damaged_record_is_ignored_with_a_warning(tmp_path, damaged, caplog) -> None:
    path = tmp_path / "part.jsonl"
    with RecordFile(path) as part:
        for key in "abc":
            part.put(key, value=10)
    lines = path.read_bytes().splitlines()
    lines[1] = lines[1].replace(b"10", b"11") if damaged is None else damaged
    path.write_bytes(b"\n".join(lines) + b"\n")
    with RecordFile(path) as part:
        assert (
            "b" not in part and part.get("a") == {"id": "a", "value": 10} and part.get("c") == {"id": "c", "value": 10}
        )
        part.put("b", value=12)
    assert f"{path}: line 2 is damaged" in caplog.text
    with RecordFile(path) as part:
        assert part.get("b") == {"id": "b", "value": 12}


def test_members_are_sampled_by_weight_for_every_trace() -> None:
    members = [MemberConfig(name="a"), MemberConfig(name="b", weight=3.0)]
    drawn = [sample_members(members, 4, curation_rng(0, index)) for index in range(2000)]
    assert all(sum(count for _, count in one) == 4 for one in drawn)
    fraction = sum(count for one in drawn for member, count in one if member.name == "b") / 8000
    assert abs(fraction - 0.75) < 0.02


def test_seeds_depend_only_on_the_key() -> None:
    assert curation_seed(0, "a", 1) == curation_seed(0, "a", 1)
    assert (
        len({curation_seed(0, "a", 1), curation_seed(1, "a", 1), curation_seed(0, "a", 2), curation_seed(0, "a1")}) == 4
    )
    assert 0 <= curation_seed("x") < 2**31


def test_cases_are_split_into_random_cases_and_cases_to_rate() -> None:
    ids = [f"c{index}" for index in range(100)]
    taken, queue, hard = split_cases(ids, 40, 0.5, 0)
    assert (len(taken), len(queue), hard) == (20, 80, 20)
    assert sorted(taken + queue) == sorted(ids)
    assert split_cases(ids[::-1], 40, 0.5, 0) == (taken, queue, hard)
    assert split_cases(ids, 40, 0.5, 1)[0] != taken


def test_invalid_settings_are_reported() -> None:
    with pytest.raises(ValidationError, match=r"verifier\.endpoint: 'gpu' is not in endpoints \(default\)"):
        CurateConfig(verifier=VlmConfig(endpoint="gpu"))
    with pytest.raises(ValidationError, match="names must be unique"):
        CurateConfig(members=(MemberConfig(name="a"), MemberConfig(name="a")))
    with pytest.raises(ValidationError, match="allow from 8 to 11"):
        PrincipleCounts(total=(12, 12))
    with pytest.raises(ValidationError, match="api_key_env"):
        EndpointConfig(api_key_env="sk-secret")


def cases(tmp_path, count: int = 5):
    path = tmp_path / "cases.parquet"
    write_table(path, (EditCase(case_id=f"c{n}", source=png(n), instruction="do it") for n in range(count)), EditCase)
    return path


def test_every_editor_edits_every_case_and_interrupted_call_is_resumed(tmp_path) -> None:
    calls = []

    def darker(batch):
        calls.append(len(batch))
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return [png(100) for _ in batch]

    editors = {"Darker 1.0": darker, "same": lambda batch: [case.source for case in batch]}
    source, out = cases(tmp_path), tmp_path / "candidates.parquet"
    with pytest.raises(RuntimeError):
        make_candidates(source, editors, out, batch_size=2)
    assert not out.exists()
    assert make_candidates(source, editors, out, batch_size=2) == 10
    assert calls == [2, 2, 2, 1]
    rows = list(read_table(out, Quadruple))
    assert [row.candidate.candidate_id for row in rows[:3]] == ["c0:darker-1-0", "c0:same", "c1:darker-1-0"]
    assert rows[1].candidate.image == rows[1].case.source


def test_editor_that_returns_too_few_images_is_reported(tmp_path) -> None:
    with pytest.raises(CurationError, match="editor lazy: returned 0 images for 5 cases"):
        make_candidates(cases(tmp_path), {"lazy": lambda batch: []}, tmp_path / "x.parquet")


def pairs(tmp_path, instruction: str = "Turn the wall blue"):
    path = tmp_path / "pairs.parquet"
    bare = [EditCase(case_id=name, source=png(1), instruction=instruction) for name in ("c1", "c1", "c2")]
    a, b = (Candidate(candidate_id=name, editor=name, image=png(n)) for n, name in enumerate("ab"))
    rows = (PreferencePair(pair_id=f"p{n}", case=case, winner=a, loser=b) for n, case in enumerate(bare))
    write_table(path, rows, PreferencePair)
    return path


def test_pairs_get_the_principles_of_their_cases(tmp_path, case, principles) -> None:
    write_table(tmp_path / "cases.parquet", [case], EditCase)
    assert attach_principles(pairs(tmp_path), tmp_path / "cases.parquet", tmp_path / "out.parquet") == 2
    got = list(read_table(tmp_path / "out.parquet", PreferencePair))
    assert [pair.pair_id for pair in got] == ["p0", "p1"]
    assert all(pair.case == case for pair in got)


def test_pair_is_rejected_if_its_case_differs_from_the_case_with_the_same_id(tmp_path, case) -> None:
    write_table(tmp_path / "cases.parquet", [case], EditCase)
    with pytest.raises(CurationError, match="pair p0: case c1 has a different instruction"):
        attach_principles(pairs(tmp_path, "Turn it red"), tmp_path / "cases.parquet", tmp_path / "out.parquet")


def test_pairs_of_equal_images_and_contradicting_pairs_are_dropped_and_counted(tmp_path, case) -> None:
    write_table(tmp_path / "cases.parquet", [case], EditCase)
    bare = case.model_copy(update={"principles": ()})
    a, b, c, d = (Candidate(candidate_id=name, editor=name, image=png(n)) for n, name in enumerate("abcd"))
    again = b.model_copy(update={"candidate_id": "again"})
    rows = [
        PreferencePair(pair_id="kept", case=bare, winner=a, loser=b),
        PreferencePair(pair_id="equal", case=bare, winner=b, loser=again, label="same"),
        PreferencePair(pair_id="first", case=bare, winner=c, loser=d),
        PreferencePair(pair_id="second", case=bare, winner=d, loser=c),
        PreferencePair(pair_id="other", case=bare.model_copy(update={"case_id": "no"}), winner=a, loser=b),
    ]
    write_table(tmp_path / "pairs.parquet", rows, PreferencePair)
    dropped: Counter[str] = Counter()
    out = tmp_path / "out.parquet"
    assert attach_principles(tmp_path / "pairs.parquet", tmp_path / "cases.parquet", out, dropped) == 1
    assert [pair.pair_id for pair in read_table(out, PreferencePair)] == ["kept"]
    assert dropped == {"equal_images": 1, "contradicting": 2, "without_principles": 1}


def test_equally_good_traces_do_not_favour_the_first_member(tmp_path, quadruple) -> None:
    rows = [
        quadruple.model_copy(
            update={"candidate": quadruple.candidate.model_copy(update={"candidate_id": f"c1:{number}"})}
        )
        for number in range(300)
    ]
    gold = [1, 0, 1, 1]
    trace = verdict_trace(quadruple.case.principles, gold)
    with RecordFile(tmp_path / "traces.jsonl") as traces, RecordFile(tmp_path / "gold.jsonl") as verdicts:
        for row in rows:
            traces.put(quadruple_id(row), traces=[("first", trace), ("second", trace), ("third", trace)])
            verdicts.put(quadruple_id(row), gold=gold)

        def members(seed: int) -> list[str]:
            builder = RowBuilder(CurateConfig(seed=seed), traces, verdicts)
            made = [builder.build(row) for row in rows]
            return [row.member for row in made if isinstance(row, SftRow)]

        chosen = members(0)
        # Binomial with n = 300 and p = 1/3: mean 100, standard deviation 8.2.
        assert all(70 < chosen.count(name) < 130 for name in ("first", "second", "third"))
        assert chosen == members(0) != members(1)


def test_better_trace_is_selected_wherever_the_shuffle_puts_it(tmp_path, quadruple) -> None:
    gold = [1, 0, 1, 1]
    good, bad = (verdict_trace(quadruple.case.principles, bits) for bits in (gold, [0, 1, 0, 0]))
    with RecordFile(tmp_path / "traces.jsonl") as traces, RecordFile(tmp_path / "gold.jsonl") as verdicts:
        traces.put(quadruple_id(quadruple), traces=[("bad", bad), ("good", good), ("bad", bad)])
        verdicts.put(quadruple_id(quadruple), gold=gold)
        for seed in range(20):
            row = RowBuilder(CurateConfig(seed=seed), traces, verdicts).build(quadruple)
            assert isinstance(row, SftRow) and (row.member, row.agreement) == ("good", 1.0)


def test_editors_with_names_in_other_scripts_have_different_candidates(tmp_path) -> None:
    editors = {name: lambda batch: [case.source for case in batch] for name in ("画像エディタ", "редактор", "Editor 2")}
    out = tmp_path / "candidates.parquet"
    assert make_candidates(cases(tmp_path), editors, out) == 15
    ids = [row.candidate.candidate_id for row in read_table(out, Quadruple)]
    assert ids[:3] == ["c0:画像エディタ", "c0:редактор", "c0:editor-2"] and len({*ids}) == 15
    with pytest.raises(CurationError, match="needs a letter or a digit"):
        make_candidates(cases(tmp_path), {"!!": lambda batch: []}, tmp_path / "x.parquet")


def _run_items(failing: dict[int, Exception], *, done: int, total: int, max_failed_fraction: float) -> CurationContext:
    config = CurateConfig(max_failed_fraction=max_failed_fraction)

    async def process(item: int) -> None:
        if item in failing:
            raise failing[item]

    async def call() -> CurationContext:
        async with VlmClient(config.endpoints, None) as client:
            context = CurationContext(config, client)
            await run_step(context, "think", range(done, total), process, total=total, done=done)
            return context

    return asyncio.run(call())


def test_images_that_cannot_be_decoded_are_failures_but_not_missing() -> None:
    failing = {1: ImageError("broken"), 4: UnreadableAnswer("no JSON"), 5: UnreadableAnswer("no JSON")}
    context = _run_items(failing, done=0, total=9, max_failed_fraction=1.0)
    assert context.failures == {"think: ImageError": 1, "think: UnreadableAnswer": 2}
    assert context.missing_items() == ({"think: UnreadableAnswer": 2}, 9)


def test_items_that_fail_again_do_not_exceed_the_fraction_that_allowed_them_before() -> None:
    failing: dict[int, Exception] = {item: UnreadableAnswer("no JSON") for item in range(475, 500)}
    context = _run_items(failing, done=475, total=500, max_failed_fraction=0.06)
    assert context.missing_items() == ({"think: UnreadableAnswer": 25}, 500)
    with pytest.raises(CurationError, match="more than the setting max_failed_fraction"):
        _run_items(failing, done=475, total=500, max_failed_fraction=0.03)


@pytest.mark.parametrize("num_examples", [0, 2])
def test_missing_file_of_expert_examples_is_named(tmp_path: Path, case: EditCase, num_examples: int) -> None:
    write_table(tmp_path / "cases.parquet", [case], EditCase)
    config, missing = CurateConfig(num_examples=num_examples), tmp_path / "nope.jsonl"
    with pytest.raises(CurationError, match=r"nope\.jsonl: cannot read the pool of expert examples"):
        curate(config, cases=tmp_path / "cases.parquet", candidates=None, out=tmp_path / "out", experts=missing)
