"""The faults of a campaign are reproducible, and its harness damages and counts what it says."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from editr1.artifacts import open_store
from tests.faults.catalogue import AREAS, by_id, faults
from tests.faults.compare import IN_FLIGHT, difference, repeated_steps
from tests.faults.damage import apply, is_in_all_checkpoints, is_in_an_input
from tests.faults.relay import RelayFault
from tests.faults.reward import FALSIFICATIONS
from tests.faults.table import markdown
from tests.faults.workloads import WORKLOADS, Reference, needed


def test_id_reproduces_a_fault() -> None:
    drawn = list(islice(faults(7, list(AREAS)), 200))
    assert len({fault.id for fault in drawn}) == 200
    assert all(by_id(fault.id) == fault for fault in drawn)
    assert [fault.id for fault in islice(faults(7, list(AREAS)), 200)] == [fault.id for fault in drawn]
    assert set(Counter(fault.area for fault in drawn)) == set(AREAS)
    with pytest.raises(ValueError, match="AREA-SEED-NUMBER"):
        by_id("other-7-0001")


def test_workloads_are_prepared_after_those_on_which_they_build() -> None:
    assert needed(["evaluate"]) == ["curate", "sft", "gcpo", "served", "evaluate"]
    assert needed(["grpo"]) == ["curate", "grpo"]
    assert needed(list(WORKLOADS)) == list(WORKLOADS)


@pytest.mark.parametrize("kind", ["flip", "truncate", "empty", "garbage", "remove", "foreign", "other-value"])
def test_damage_changes_one_file_and_not_its_hard_links(tmp_path: Path, kind: str) -> None:
    file, link, other = tmp_path / "a.json", tmp_path / "elsewhere" / "link", tmp_path / "b.json"
    link.parent.mkdir()
    file.write_text(json.dumps({"step": 4, "digest": "sha256:00"}))
    other.write_text(json.dumps({"step": 6, "digest": "sha256:11"}))
    link.hardlink_to(file)
    before = link.read_bytes()
    assert "a.json" in apply(kind, file, random.Random(1), tmp_path)
    assert link.read_bytes() == before
    assert not file.exists() if kind == "remove" else file.read_bytes() != before
    if kind == "other-value":
        assert json.loads(file.read_bytes()).keys() == {"step", "digest"}


def test_repeated_steps_are_counted_per_restart(tmp_path: Path) -> None:
    steps = [1, 2, 3, 4, 3, 4, 5, 6, 7, 5, 6, 7, 8]
    lines = [
        json.dumps({"done": 0}),
        *(json.dumps({"done": step, "metrics": {}}) for step in steps),
        '{"done": 9, "met',
    ]
    (tmp_path / "progress-0123456789ab.jsonl").write_text("\n".join(lines))
    assert repeated_steps(tmp_path, "0123456789abcdef") == 3
    assert repeated_steps(tmp_path, "other") == 0


def test_relay_fault_meets_the_requests_that_it_names() -> None:
    fault = RelayFault("status", "blob", ("GET",), first=1, repeat=2, seed=0)
    asked = [("PUT", "/b/blobs/x"), ("GET", "/b/records/x"), *[("GET", "/b/blobs/x")] * 4]
    assert [fault.applies(method, path, "") for method, path in asked] == [False, False, False, True, True, False]
    assert fault.met == 2
    lists = RelayFault("stale-list", "list", ("GET",), first=0, repeat=1, seed=0)
    assert [lists.applies("GET", "/b", query) for query in ("", "list-type=2&prefix=x")] == [False, True]


def test_each_falsification_changes_an_answer() -> None:
    def answer(score: float, texts: str) -> dict[str, object]:
        verdict = {"scores": [1, 0], "average": 0.5, "score": score, "reasoning": "seen"}
        item = {"ok": True, "score": score, "verdicts": [verdict], "texts": [texts], "model_digest": "sha256:00"}
        return {"model": "sha256:00", "results": [item, {**item, "score": score + 1}]}

    for name, falsify in FALSIFICATIONS.items():
        assert falsify(answer(5.0, "b"), answer(2.0, "a"), random.Random(0)) != answer(5.0, "b"), name


def test_table_counts_outcomes_and_lists_bad_ones() -> None:
    fields = {"area": "s3", "workload": "sft", "reason": "because", "injected": "a reset"}
    results = [
        {"id": f"s3-1-{n}", "outcome": outcome, **fields} for n, outcome in enumerate(("right", "right", "hang"))
    ]
    table = markdown(results)
    assert "| s3 | 3 | 2 | 0 | 0 | 0 | 1 | 0 | 0 |" in table
    assert "- `s3-1-2` (sft): hang: because" in table


@pytest.mark.parametrize(
    ("requests", "prompt_tokens", "kills", "differs"),
    [
        (170.0, 1010.0, 2, False),
        (170.0, 1010.0, 0, True),
        (169.0, 1010.0, 2, True),
        (168.0, 990.0, 2, True),
        (170.0, 990.0, 2, True),
        (169.0 + 2 * IN_FLIGHT + 1, 3000.0, 2, True),
    ],
)
def test_only_requests_in_flight_may_be_counted_again(
    tmp_path: Path, requests: float, prompt_tokens: float, kills: int, differs: bool
) -> None:
    store = open_store((tmp_path / "store").as_uri())
    metrics = {"requests": requests, "prompt_tokens": prompt_tokens}
    reference = Reference("k" * 64, {}, {"requests": 169.0, "prompt_tokens": 1000.0}, 1.0)
    record = json.dumps({"outputs": {}, "metrics": metrics}).encode()
    store.put_record(f"runs/case/stages/curate/{reference.key}/result.json", record)
    assert bool(difference(store, WORKLOADS["curate"], reference, tmp_path, kills=kills)) is differs


def test_blob_that_all_checkpoints_or_an_input_share_is_recognized(tmp_path: Path) -> None:
    store = open_store((tmp_path / "store").as_uri())

    def commit(name: str, *texts: str) -> str:
        (tmp_path / name).mkdir()
        for text in texts:
            (tmp_path / name / text).write_text(text)
        return store.commit(tmp_path / name, kind="checkpoint", stage="sft").digest

    for step, texts in enumerate((("all", "first"), ("all", "last", "input"))):
        pointer = {"step": step, "digest": commit(f"step-{step}", *texts)}
        store.put_record(f"runs/case/stages/sft/k/checkpoints/{step:09d}.json", json.dumps(pointer).encode())
    record = {"stages": {"sft": {"inputs": {"model": commit("model", "input"), "base": "hub:a/b@1"}}}}
    store.put_record("runs/case/record.json", json.dumps(record).encode())
    files = {file.read_text(): file for file in (tmp_path / "store" / "blobs").rglob("*") if file.is_file()}
    work = WORKLOADS["sft"]
    assert {text for text, file in files.items() if is_in_all_checkpoints(tmp_path / "store", work, file)} == {"all"}
    assert {text for text, file in files.items() if is_in_an_input(tmp_path, work, file)} == {"input"}
