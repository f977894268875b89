"""The lengths of SFT's traces are recorded with the model, and token limits are compared with them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from editr1.config.gcpo import GcpoConfig
from editr1.config.loader import ConfigError
from editr1.config.serve import ServeConfig
from editr1.config.sft import SftConfig
from editr1.serving.run import make_engine
from editr1.telemetry import TrainHooks
from editr1.verifier.gcpo import train_gcpo
from editr1.verifier.model import load_verifier
from editr1.verifier.sft import train_sft
from editr1.verifier.trace_lengths import TRACE_LENGTHS_FILE, TraceLengths, check_token_limit, load_trace_lengths

LENGTHS = TraceLengths.of([10] * 60 + [20] * 38 + [50] * 2)


def test_record_holds_the_quantiles_of_the_lengths(tmp_path: Path) -> None:
    LENGTHS.save(tmp_path)
    assert load_trace_lengths(tmp_path) == TraceLengths(rows=100, median=10, p95=20, max=50)


def test_limit_that_cuts_off_more_than_a_few_traces_is_refused_with_the_numbers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LENGTHS.save(tmp_path)
    numbers = r"the 100 traces .* up to 50 tokens \(median 10, 95 % at most 20\); set max_new_tokens to at least 50"
    with pytest.raises(ConfigError, match=f"max_new_tokens: 19 tokens cut off .* {numbers}"):
        check_token_limit(tmp_path, 19, "max_new_tokens")
    with caplog.at_level(logging.WARNING, "editr1.verifier"):
        check_token_limit(tmp_path, 20, "max_new_tokens")
        assert "20 tokens cut off the longest traces" in caplog.text
        caplog.clear()
        check_token_limit(tmp_path, 50, "max_new_tokens")
    assert not caplog.records


def test_limit_is_only_a_warning_if_traces_need_not_be_readable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    LENGTHS.save(tmp_path)
    with caplog.at_level(logging.WARNING, "editr1.verifier"):
        check_token_limit(tmp_path, 1, "max_new_tokens", must_parse=False)
    assert "1 tokens cut off the longest traces" in caplog.text


def test_model_without_a_record_is_accepted(tmp_path: Path) -> None:
    check_token_limit(tmp_path, 1, "max_new_tokens")
    check_token_limit("Qwen/Qwen2.5-VL-3B-Instruct", 1, "max_new_tokens")


@pytest.mark.parametrize("text", ["", "[]", '{"rows": 3}', '{"rows": 1, "median": 1, "p95": 1, "max": "many"}'])
def test_damaged_record_is_reported_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / TRACE_LENGTHS_FILE).write_text(text)
    with pytest.raises(ConfigError, match=rf"{TRACE_LENGTHS_FILE}: not a valid record"):
        load_trace_lengths(tmp_path)


def test_record_is_written_by_sft_copied_by_gcpo_and_limits_every_consumer(
    tiny: Path, write_rows: Callable[..., Path], write_pairs: Callable[..., Path], tmp_path: Path
) -> None:
    config = SftConfig(max_steps=1, batch_size=4, warmup_steps=0, device="cpu")
    model = tmp_path / "sft"
    train_sft(config, model=tiny, rows=write_rows(5), output_dir=model, hooks=TrainHooks())
    record = json.loads((model / TRACE_LENGTHS_FILE).read_text())
    assert record["rows"] == 5
    assert 10 < record["median"] <= record["p95"] <= record["max"] < 100

    small = record["p95"] - 1
    gcpo = GcpoConfig(
        rollouts=1,
        pairs_per_rollout=2,
        num_traces=2,
        max_rollouts_without_signal=None,
        device="cpu",
        max_new_tokens=small,
    )
    arguments = {"model": model, "output_dir": tmp_path / "gcpo", "hooks": TrainHooks()}
    with pytest.raises(ConfigError, match=rf"max_new_tokens: {small} tokens"):
        train_gcpo(gcpo, pairs=tmp_path / "no such table", **arguments)  # before the pairs are read
    with pytest.raises(ConfigError, match=rf"max_new_tokens: {small} tokens"):
        make_engine(ServeConfig(max_new_tokens=small, device="cpu"), model)
    enough = gcpo.model_copy(update={"max_new_tokens": record["max"]})
    train_gcpo(enough, pairs=write_pairs(2), **arguments)
    assert load_trace_lengths(tmp_path / "gcpo") == load_trace_lengths(model)


def test_recorded_length_counts_the_token_that_ends_a_trace(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    from editr1.data.tables import read_table
    from editr1.data.types import SftRow

    rows = write_rows(1)
    config = SftConfig(max_steps=1, batch_size=1, warmup_steps=0, device="cpu")
    train_sft(config, model=tiny, rows=rows, output_dir=tmp_path / "out", hooks=TrainHooks())
    tokenizer = load_verifier(tiny)[1].tokenizer
    (row,) = read_table(rows, SftRow)
    expected = len(tokenizer(row.trace, add_special_tokens=False)["input_ids"]) + 1
    record = load_trace_lengths(tmp_path / "out")
    assert record is not None
    assert record.max == expected
