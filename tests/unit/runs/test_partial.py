"""Partial results: when a stage is started again, and how they are found and accepted."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.artifacts import ArtifactStore, open_store
from editr1.cli.main import app
from editr1.config.loader import ConfigError
from editr1.config.store import store_at
from editr1.runs.find import find_record
from editr1.runs.partial import accept, has_partial_result, result_to_reuse
from editr1.runs.record import (
    Missing,
    RunRecord,
    StageRecord,
    StageResult,
    State,
    load_complete_result,
    newest_result,
    save_record,
    save_result,
)
from editr1.runs.references import parse_reference
from editr1.runs.resolve import resolve_reference

MISSING = Missing(causes={"decompose: RequestRefused": 3}, total=12)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return open_store(store_at(tmp_path.as_uri()))


def save(store: ArtifactStore, missing: Missing = MISSING) -> RunRecord:
    stage = StageRecord(name="curate", kind="curate", key="k", state=State.DONE)
    record = RunRecord(name="r", seed=0, state=State.DONE, created=0.0, stages={"curate": stage})
    save_record(store, record)
    result = StageResult(key="k", missing=missing, outputs={})
    save_result(store, "r", "curate", result)
    return record


def test_what_is_missing_is_read_from_the_result(store: ArtifactStore, tmp_path: Path) -> None:
    save(store)
    record = find_record(tmp_path, store, "r")
    assert record is not None and record.stages["curate"].missing == MISSING


def test_partial_result_is_started_again_until_its_next_result(store: ArtifactStore) -> None:
    record = save(store)
    assert load_complete_result(store, "r", "curate", "k") is not None and has_partial_result(store, record)
    for _ in range(2):
        assert result_to_reuse(store, "r", "curate", "k") is None
        assert load_complete_result(store, "r", "curate", "k") is None
    found = newest_result(store, "r", "curate")
    assert found is not None and found.missing == MISSING
    save(store, Missing())
    assert result_to_reuse(store, "r", "curate", "k") is not None


def test_accepted_result_is_reused_also_after_a_failed_repetition(store: ArtifactStore, tmp_path: Path) -> None:
    record = save(store)
    result_to_reuse(store, "r", "curate", "k")
    text = CliRunner().invoke(app, ["runs", "accept", "r", "curate", "--store", str(tmp_path)])
    assert text.exit_code == 0 and "3 of 12 items have no usable model answer" in text.output
    assert "this result was accepted" in text.output
    reused = result_to_reuse(store, "r", "curate", "k")
    assert reused is not None and reused.missing.accepted and not has_partial_result(store, record)


@pytest.mark.parametrize(
    ("stage", "message"),
    [("sft", "has no stage 'sft'; its stages: curate"), ("curate", "is complete; there is nothing")],
)
def test_only_a_partial_result_can_be_accepted(store: ArtifactStore, stage: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        accept(store, save(store, Missing()), stage)


def test_unknown_run_cannot_be_accepted(store: ArtifactStore, tmp_path: Path) -> None:
    save(store)
    text = CliRunner().invoke(app, ["runs", "accept", "x", "curate", "--store", str(tmp_path)])
    assert text.exit_code == 2 and "no run named 'x'" in text.output


def test_reference_to_a_partial_result_is_reported(
    store: ArtifactStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(store)
    result = StageResult(key="k", missing=MISSING, outputs={"rows": "sha256:" + "0" * 64})
    save_result(store, "r", "curate", result)
    with caplog.at_level(logging.WARNING):
        resolve_reference(parse_reference("run:r/curate/rows"), store, {}, "inputs.rows")
    assert "inputs.rows: the input is a partial result: curate: 3 of 12 items" in caplog.text


def test_repeated_failures_are_counted() -> None:
    assert MISSING.after(MISSING).asked == 2
    assert "requested in 2 invocations with the same outcome" in MISSING.after(MISSING).sentence("curate", "r")
    assert MISSING.after(Missing(causes={"think: UnreadableAnswer": 1}, total=4)).asked == 1
