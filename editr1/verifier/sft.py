"""Cold start: supervised fine-tuning of the verifier on selected traces (arXiv 2604.27505, section 3.1)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trl import SFTConfig, SFTTrainer

from editr1.config.loader import ConfigError
from editr1.config.sft import SftConfig
from editr1.telemetry import TrainHooks
from editr1.verifier.rows import RowCache, sft_rows
from editr1.verifier.training import (
    HooksCallback,
    ResumesWeights,
    TracedSteps,
    adapter_settings,
    context_limit,
    distributed_context,
    load_for_training,
    run_training,
    trainer_arguments,
    work_folder,
)


def train_sft(
    config: SftConfig, *, model: str | Path, rows: Path, output_dir: Path, hooks: TrainHooks
) -> dict[str, float]:
    """Fine-tune ``model`` (folder or hub name of a Qwen2.5-VL checkpoint) on a Parquet file of ``SftRow``.

    Causal language-model loss on the trace alone, by TRL's ``SFTTrainer``; nothing is cut. ``output_dir`` becomes a
    plain verifier folder (weights, processor, prompt template). Returns the mean figures of the last tenth of the
    steps: ``loss`` (nats a token), ``token_accuracy``, ``learning_rate``, ``grad_norm``, ``tokens_per_second``.
    Runs alone or as the processes of a torchrun group.

    Raises:
        TableError: a row is broken, or longer than the model's context.
        ValueError: batch sizes that do not divide, another architecture, a checkpoint of other settings.
        Interrupted: the hooks asked to stop; a checkpoint was handed on.
    """
    context = distributed_context(config)
    micro, accumulation = batch_layout(config, context.world_size)
    network, processor, template = load_for_training(config, model)
    limit = context_limit(config, network)
    dataset = sft_rows(rows, processor, template, limit, RowCache(work_folder(output_dir), context))
    callback = HooksCallback(hooks, context, "sft", _figures)
    arguments = SFTConfig(
        **trainer_arguments(config, output_dir),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        max_steps=config.max_steps or -1,
        num_train_epochs=config.epochs or 1.0,
        max_length=None,
        completion_only_loss=config.mask_prompt,
        dataloader_drop_last=len(dataset) >= config.batch_size,
    )
    trainer = _Trainer(
        model=network,
        args=arguments,
        train_dataset=dataset,
        processing_class=processor,
        peft_config=adapter_settings(config.lora),
        callbacks=[callback],
    )
    return run_training(trainer, callback, config, processor, template, output_dir, hooks)


class _Trainer(TracedSteps, ResumesWeights, SFTTrainer):  # type: ignore[misc]
    pass


def batch_layout(config: SftConfig, processes: int) -> tuple[int, int]:
    """Rows a forward pass and process, and how many passes an optimiser step takes."""
    micro = config.micro_batch_size or math.ceil(config.batch_size / processes)
    if config.batch_size % (micro * processes):
        raise ConfigError(
            f"batch_size {config.batch_size} is not a multiple of {micro} rows a forward pass x {processes} processes; "
            "set micro_batch_size or batch_size"
        )
    return micro, config.batch_size // (micro * processes)


def _figures(logs: Mapping[str, Any]) -> dict[str, float]:
    names = {
        "loss": "loss",
        "mean_token_accuracy": "token_accuracy",
        "entropy": "entropy",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
    }
    return {name: float(logs[key]) for key, name in names.items() if logs.get(key) is not None}
