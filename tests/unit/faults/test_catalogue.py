"""The faults of a campaign are reproducible, and its harness damages and counts what it says."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from tests.faults.catalogue import AREAS, by_id, faults
from tests.faults.compare import repeated_steps
from tests.faults.damage import apply
from tests.faults.relay import RelayFault
from tests.faults.reward import FALSIFICATIONS
from tests.faults.table import markdown
from tests.faults.workloads import WORKLOADS, needed


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
