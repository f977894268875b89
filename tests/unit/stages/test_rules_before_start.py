"""Stages check the rows that they use before they load weights, sample traces or edit images."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from editr1.config.evaluate import EvaluateConfig
from editr1.config.gcpo import GcpoConfig
from editr1.config.grpo import GrpoConfig
from editr1.config.sft import SftConfig
from editr1.data.tables import write_table
from editr1.data.types import (
    EditCase,
    PreferencePair,
    SftRow,
)
from editr1.editor.cases import CaseOrder
from editr1.parallel.context import DistributedContext
from editr1.stages import evaluate, grpo, sft
from editr1.telemetry import TrainHooks
from editr1.verifier.gcpo import train_gcpo
from editr1.verifier.model import load_processor, load_template
from editr1.verifier.rows import RowCache, pair_rows, sft_rows
from editr1.verifier.sft import train_sft
from editr1.verifier.trace import format_trace
from tests.unit.stages.invalid_rows import BAD, VERIFIER, Content, context, refusal, table, unexpected_call


def test_evaluation_checks_public_benchmarks_before_models_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "singleturn").mkdir()
    (tmp_path / "singleturn" / "a.png").write_bytes(BAD["truncated-source"].value)
    entries = {"1": {"id": "a.png", "prompt": "make it red", "edit_type": "color"}}
    (tmp_path / "basic_edit.json").write_text(json.dumps(entries))
    message = refusal(lambda: evaluate.body(context(EvaluateConfig(ground_truth="shapes"), {}, imgedit=str(tmp_path))))
    assert (
        message.startswith(f"{tmp_path / 'basic_edit.json'}, entry 1: id: ") and "the PNG image is damaged" in message
    )
    entries["1"]["prompt"] = BAD["control-token"].value
    (tmp_path / "basic_edit.json").write_text(json.dumps(entries))
    message = refusal(lambda: evaluate.body(context(EvaluateConfig(), {}, imgedit=str(tmp_path))))
    assert f"entry 1: prompt: {BAD['control-token'].value!r}: " in message and BAD["control-token"].message in message


def test_rows_and_pairs_need_principles_before_training_and_evaluation(tmp_path: Path) -> None:
    case = Content().case().model_copy(update={"principles": ()})
    pair = Content().pair().model_copy(update={"case": case})
    write_table(tmp_path / "pairs.parquet", [Content().pair(), pair], PreferencePair)
    write_table(tmp_path / "cases.parquet", [Content().case(), case], EditCase)
    for body, settings, tables in (
        (grpo.body, GrpoConfig(), {"cases": tmp_path / "cases.parquet"}),
        (evaluate.body, EvaluateConfig(), {"pairs": tmp_path / "pairs.parquet"}),
    ):
        message = refusal(
            lambda body=body, settings=settings, tables=tables: body(context(settings, tables, sft=str(VERIFIER)))
        )
        assert "row 2: " in message and "principles: the case has no principles; add at least one" in message
    with pytest.raises(ValueError, match=r"row 2: principles: the case has no principles"):
        CaseOrder(tmp_path / "cases.parquet", seed=0, per_iteration=1, iterations=1)


@pytest.mark.parametrize("train", ["sft", "gcpo"])
def test_rows_are_checked_before_weights_are_loaded(
    train: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editr1.verifier.training.load_model", unexpected_call)
    common: dict[str, Any] = {"model": VERIFIER, "output_dir": tmp_path / "model", "hooks": TrainHooks()}
    if train == "sft":
        rows = table(tmp_path, BAD["nul"], Content.sft_row)
        message = refusal(lambda: train_sft(SftConfig(max_steps=1, batch_size=1, device="cpu"), rows=rows, **common))
    else:
        pairs = table(tmp_path, BAD["nul"], Content.pair)
        message = refusal(lambda: train_gcpo(GcpoConfig(rollouts=1, device="cpu"), pairs=pairs, **common))
    assert "table.parquet: row 2: " in message


def test_trace_that_cannot_be_parsed_is_refused_before_training(tmp_path: Path) -> None:
    rows = [Content().sft_row(), Content().sft_row().model_copy(update={"trace": "it is red, <score>9</score>"})]
    write_table(tmp_path / "rows.parquet", rows, SftRow)
    template = load_template(VERIFIER)
    cache = RowCache(tmp_path / "cache", DistributedContext())
    message = refusal(
        lambda: sft_rows(tmp_path / "rows.parquet", load_processor(VERIFIER, template), template, 4096, cache)
    )
    assert "row 2: trace: " in message and "the trace cannot be parsed: no average_score" in message


def test_prompt_that_does_not_fit_into_the_context_is_refused_before_it_is_scored(tmp_path: Path) -> None:
    pairs, cases = tmp_path / "pairs.parquet", tmp_path / "cases.parquet"
    long = Content(instruction="\U0001f600" * 1500).pair()
    write_table(pairs, [Content().pair(), long.model_copy(update={"label": "same"}), long], PreferencePair)
    write_table(cases, [Content().case(), long.case], EditCase)
    verifier = str(VERIFIER)
    of_pairs = context(EvaluateConfig(), {"pairs": pairs}, sft=verifier)
    of_cases = context(EvaluateConfig(), {"cases": cases}, before="e", rl=verifier)
    for row, call in (
        (f"{pairs}: row 3", lambda: evaluate.body(of_pairs)),
        (f"{cases}: row 2", lambda: evaluate.body(of_cases)),
        (f"{pairs}: row 3", lambda: sft._sample_rows(of_pairs, SftConfig(), tmp_path / "rows.parquet")),
    ):
        message = refusal(call)
        assert message.startswith(f"{row}: needs ") and "but the limit is 4096" in message


def test_rows_that_the_settings_leave_out_are_not_checked(tmp_path: Path) -> None:
    bad = BAD["nul"].row
    write_table(tmp_path / "pairs.parquet", [Content().pair(), bad.pair()], PreferencePair)
    write_table(tmp_path / "cases.parquet", [Content().case(), bad.case()], EditCase)
    tables = {name: tmp_path / f"{name}.parquet" for name in ("pairs", "cases")}
    roles: dict[str, Any] = {"verifiers": {"SFT": "sft"}, "editors": {"before": "before"}}
    for changes, message in (({}, "pairs.parquet: row 2"), ({"max_pairs": 1}, "cases.parquet: row 2")):
        settings = EvaluateConfig(**changes)
        stage = SimpleNamespace(context=context(settings, tables), config=settings, **roles)
        assert message in refusal(lambda stage=stage: evaluate._check_tables(stage))
    settings = EvaluateConfig(max_pairs=1, max_cases=1)
    evaluate._check_tables(SimpleNamespace(context=context(settings, tables), config=settings, **roles))  # type: ignore[arg-type]
    template = load_template(VERIFIER)
    cache, processor = RowCache(tmp_path / "cache", DistributedContext()), load_processor(VERIFIER, template)
    assert len(pair_rows(tables["pairs"], processor, template, 4096, 64, cache, max_pairs=1)[0]) == 2


def test_valid_rows_are_accepted_by_the_trainers(tmp_path: Path) -> None:
    template = load_template(VERIFIER)
    processor, cache = load_processor(VERIFIER, template), RowCache(tmp_path / "cache", DistributedContext())
    write_table(tmp_path / "rows.parquet", [Content().sft_row()], SftRow)
    write_table(tmp_path / "pairs.parquet", [Content().pair()], PreferencePair)
    assert len(sft_rows(tmp_path / "rows.parquet", processor, template, 4096, cache)) == 1
    assert len(pair_rows(tmp_path / "pairs.parquet", processor, template, 4096, 64, cache)[0]) == 2
    assert format_trace("seen", Content().principles, [1], 9.0) == Content().sft_row().trace
