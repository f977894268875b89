"""SFT of a tiny verifier with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from editr1.config.sft import SftConfig
from editr1.config.verifier import LoraSettings
from editr1.data.errors import TableError
from editr1.data.tables import read_table
from editr1.data.types import SftRow
from editr1.parallel.context import DistributedContext
from editr1.telemetry import Interrupted, Progress, TrainHooks
from editr1.verifier.model import load_verifier
from editr1.verifier.prompt_length import TokenCounter
from editr1.verifier.rows import RowCache, sft_rows
from editr1.verifier.sft import train_sft
from editr1.verifier.training import work_folder

QUICK = SftConfig(max_steps=4, batch_size=4, warmup_steps=1, learning_rate=1e-3, device="cpu")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_only_the_trace_and_its_end_token_have_labels(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    _, processor, template = load_verifier(tiny)
    dataset = sft_rows(write_rows(2), processor, template, 4096, RowCache(tmp_path / "cache", DistributedContext()))
    collator = DataCollatorForVisionLanguageModeling(processor=processor, completion_only_loss=True)
    row = dataset[0]
    batch = collator([dict(dataset[0]), dict(dataset[1])])
    kept = batch["labels"][0] != -100
    assert processor.tokenizer.decode(batch["labels"][0][kept]) == row["completion"]
    assert row["completion"].endswith("</score><|im_end|>\n")
    assert (batch["labels"][0][kept] == batch["input_ids"][0][kept]).all()


def test_training_writes_a_plain_verifier_folder_and_reports_progress(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    progress = Progress(tmp_path / "progress.jsonl")
    config = QUICK.model_copy(update={"max_pixels": 48 * 48})
    metrics = train_sft(
        config, model=tiny, rows=write_rows(12), output_dir=tmp_path / "out", hooks=TrainHooks(progress=progress)
    )
    assert metrics["steps"] == 4
    assert 0 < metrics["loss"] < 10
    assert 0 <= metrics["token_accuracy"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [line["done"] for line in lines] == [0, 1, 2, 3, 4]
    assert all(line["total"] == 4 for line in lines)
    assert lines[-1]["metrics"]["tokens_per_second"] > 0
    model, _, template = load_verifier(tmp_path / "out")
    assert template.max_pixels == 48 * 48
    assert not work_folder(tmp_path / "out").exists()
    before, after = weights(tiny), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert model.dtype == torch.float32


def test_resumed_training_ends_with_the_same_weights(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    rows = write_rows(6)  # 1.5 steps per epoch, so the resumed part crosses an epoch boundary
    config = QUICK.model_copy(update={"max_steps": 5})
    train_sft(config, model=tiny, rows=rows, output_dir=tmp_path / "whole", hooks=TrainHooks())
    given: list[tuple[Path, int]] = []
    answers = iter([False, True])
    stopping = TrainHooks(
        should_stop=lambda: next(answers), on_checkpoint=lambda folder, step: given.append((folder, step))
    )
    with pytest.raises(Interrupted, match="step 2 of 5"):
        train_sft(config, model=tiny, rows=rows, output_dir=tmp_path / "halves", hooks=stopping)
    ((folder, step),) = given
    assert step == 2
    train_sft(config, model=tiny, rows=rows, output_dir=tmp_path / "halves", hooks=TrainHooks(resume_from=folder))
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_checkpoints_are_passed_to_the_hooks_during_training(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    steps: list[int] = []
    config = QUICK.model_copy(update={"checkpoint_every": 2})
    hooks = TrainHooks(on_checkpoint=lambda folder, step: steps.append(step))
    train_sft(config, model=tiny, rows=write_rows(8), output_dir=tmp_path / "out", hooks=hooks)
    assert steps == [2]  # after step 4 the trained model is written instead


def test_lora_adapters_are_merged_and_saved_separately(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    config = QUICK.model_copy(update={"max_steps": 2, "lora": LoraSettings(rank=4, targets="all", keep_adapter=True)})
    train_sft(config, model=tiny, rows=write_rows(8), output_dir=tmp_path / "out", hooks=TrainHooks())
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    before, after = weights(tiny), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("language_model" in name or "model.layers" in name for name in changed)
    assert any("visual" in name for name in changed)
    assert not any("embed_tokens" in name for name in changed)
    load_verifier(tmp_path / "out")


def test_row_longer_than_the_context_is_rejected_with_its_number(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    rows = write_rows(3, sizes={2: (64, 64)})
    counter = TokenCounter(*load_verifier(tiny)[1:])
    first = next(read_table(rows, SftRow))
    images = (first.quadruple.case.source.data, first.quadruple.candidate.image.data)
    limit = counter.count("".join(counter.render(first.quadruple.case, first.trace)), images)
    config = QUICK.model_copy(update={"max_length": limit})
    with pytest.raises(TableError, match=rf"rows\.parquet: row 3: needs {limit + 12} tokens, but the limit is {limit}"):
        train_sft(config, model=tiny, rows=rows, output_dir=tmp_path / "out", hooks=TrainHooks())
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_resuming_from_a_folder_without_a_checkpoint_is_rejected(
    tiny: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"trainer_state\.json"):
        train_sft(
            QUICK, model=tiny, rows=write_rows(8), output_dir=tmp_path / "o", hooks=TrainHooks(resume_from=tmp_path)
        )


def test_batch_sizes_that_do_not_divide_evenly_are_rejected() -> None:
    assert SftConfig(batch_size=32).batch_layout(2) == (16, 1)
    assert SftConfig(batch_size=32, micro_batch_size=4).batch_layout(2) == (4, 4)
    with pytest.raises(ValueError, match="batch_size 32"):
        SftConfig(batch_size=32).batch_layout(3)
