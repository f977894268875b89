"""The harness of the fault campaign works: it injects one fault of each area and classifies it."""

from __future__ import annotations

from pathlib import Path

from tests.faults.catalogue import AREAS, Fault, fault
from tests.faults.classify import Outcome
from tests.faults.command import run_command
from tests.faults.table import read_results

SIMPLE = {
    "s3": ("sft", "status"),
    "disk": ("sft", "left-over"),
    "signals": ("sft", "SIGKILL"),
    "reward": ("grpo", "status-503"),
    "state": ("sft", "remove"),
}
"""A workload and a kind of fault per area that take little time."""


def simple_fault(area: str) -> Fault:
    """Return the first fault of an area with the workload and kind in ``SIMPLE``."""
    drawn = (fault(area, 1, number) for number in range(10_000))
    return next(f for f in drawn if (f.workload, f.kind) == SIMPLE[area] and f.parameters.get("state") != "finished")


def test_one_fault_of_each_area_is_injected_and_classified(tmp_path: Path) -> None:
    wanted = [simple_fault(area).id for area in AREAS]
    done = run_command(tmp_path, *(word for name in wanted for word in ("--only", name)), timeout=500)
    results = {result["id"]: result for result in read_results(tmp_path / "results.jsonl")}
    assert sorted(results) == sorted(wanted), done.stderr[-3000:]
    assert {result["outcome"] for result in results.values()} <= set(Outcome), results
    table = (tmp_path / "table.md").read_text()
    assert all(f"| {area} | " in table for area in AREAS)
