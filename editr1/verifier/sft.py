"""Supervised fine-tuning (SFT) of the verifier on curated traces: the cold start of arXiv 2604.27505, section 3.1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import RandomSampler, Sampler
from trl import SFTConfig, SFTTrainer

from editr1.config.loader import ConfigError
from editr1.config.sft import SftConfig
from editr1.telemetry import TrainHooks
from editr1.verifier.rows import RowCache, sft_rows
from editr1.verifier.token_metrics import TokenMetricsMixin
from editr1.verifier.trace_lengths import TraceLengths
from editr1.verifier.training import (
    HooksCallback,
    ResumeWeightsMixin,
    StepTracingMixin,
    adapter_settings,
    context_limit,
    distributed_context,
    load_for_training,
    load_processing_for_training,
    run_training,
    trainer_arguments,
    work_folder,
)


def train_sft(
    config: SftConfig, *, model: str | Path, rows: Path, output_dir: Path, hooks: TrainHooks
) -> dict[str, float]:
    """Fine-tune a verifier on a Parquet file of :class:`SftRow` rows, and write it to ``output_dir``.

    The folder contains a record of the lengths of the traces (see :mod:`editr1.verifier.trace_lengths`).

    Minimises the causal language-model loss on the traces with TRL's SFTTrainer. The loss of a step is the mean over
    all trained tokens of its ``batch_size`` rows, independent of the micro-batch size and the number of processes. No
    row is truncated. Call it in a single process or in every process of a torchrun group.

    Args:
        config: training settings.
        model: folder or Hugging Face Hub name of a Qwen2.5-VL checkpoint.
        rows: Parquet file with the training rows.
        output_dir: folder to which the weights, the processor and the prompt template are written. Files that are already in
            it are removed.
        hooks: callbacks for progress, checkpoints and stop requests.

    Returns:
        The number of optimizer ``steps``, and these metrics, averaged over the last tenth of the trainer's log entries:
        ``loss`` (nats per token), ``token_accuracy``, ``entropy``, ``learning_rate``, ``grad_norm`` and
        ``tokens_per_second``.

    Raises:
        TableError: a row is invalid, or longer than the model's context.
        ConfigError: the batch size is not valid (see ``SftConfig.batch_layout``), the architecture is not supported, or the
            training diverged.
        Interrupted: the hooks requested a stop. A checkpoint was passed to them first.
    """
    context = distributed_context(config)
    micro_batch_size, accumulation_steps = config.batch_layout(context.world_size)
    processor, template = load_processing_for_training(config, model)
    limit = context_limit(config, model)
    dataset = sft_rows(rows, processor, template, limit, RowCache(work_folder(output_dir), context))
    _check_row_count(rows, len(dataset), config, micro_batch_size * context.world_size, context.world_size)
    network = load_for_training(config, model)
    callback = HooksCallback(hooks, context, "sft", _sft_metrics)
    arguments = SFTConfig(
        **trainer_arguments(config, output_dir),
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=accumulation_steps,
        max_steps=config.max_steps or -1,
        num_train_epochs=config.epochs or 1.0,
        max_length=None,
        completion_only_loss=config.mask_prompt,
        dataloader_drop_last=len(dataset) >= config.batch_size,
    )
    trainer = _SftTrainer(
        model=network,
        args=arguments,
        train_dataset=dataset,
        processing_class=processor,
        peft_config=adapter_settings(config.lora),
        callbacks=[callback],
    )
    lengths = trace_lengths(dataset, processor.tokenizer) if context.is_main else None
    metrics = run_training(trainer, callback, config, model, output_dir, hooks)
    if lengths is not None:
        lengths.save(output_dir)
    return metrics


class _SftTrainer(StepTracingMixin, ResumeWeightsMixin, TokenMetricsMixin, SFTTrainer):  # type: ignore[misc]
    """SFTTrainer whose loss and metrics do not depend on how a batch is divided into micro-batches and among processes."""

    token_metrics = ("entropy", "mean_token_accuracy")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Qwen2.5-VL declares that it does not accept the number of trained tokens of a batch, so transformers would not
        # count them, and TRL would divide the loss of each micro-batch by its own tokens. TRL's loss needs only the count.
        self.model_accepts_loss_kwargs = True

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """Return a sampler that yields whole batches in random order and skips the remaining rows of an epoch.

        The default sampler would form a smaller batch from the remaining rows if they fill a micro-batch.
        """
        rows = self.train_dataset if train_dataset is None else train_dataset
        arguments = self.args
        batch = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        return RandomSampler(rows, num_samples=len(rows) // batch * batch or len(rows))

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a micro-batch. See :class:`trl.SFTTrainer`."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        tokens = (inputs["labels"][:, 1:] != -100).sum()  # Position 0 has no prediction.
        self.add_tokens(float(self.accelerator.reduce(tokens.to(torch.float64), reduction="sum")))
        return loss


def trace_lengths(dataset: Any, tokenizer: Any) -> TraceLengths:
    """Return the lengths of the traces in a dataset that :func:`~editr1.verifier.rows.sft_rows` returned."""
    texts = [text.rstrip("\n") for text in dataset.with_format("arrow")["completion"].to_pylist()]
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return TraceLengths.of([len(ids) for ids in tokens])


def _check_row_count(path: Path, rows: int, config: SftConfig, rows_per_pass: int, processes: int) -> None:
    """Raise ConfigError if there are fewer rows than ``batch_size`` and they cannot be divided evenly among several processes.

    In this case, accelerate would repeat some rows, which would then have twice the weight of the others.
    """
    if processes == 1 or rows >= config.batch_size or rows % rows_per_pass == 0 or rows_per_pass % rows == 0:
        return
    raise ConfigError(
        f"batch_size {config.batch_size}: {path} has only {rows} rows, which cannot be divided evenly among "
        f"{processes} processes; set batch_size to at most {rows}, add rows or use one process"
    )


def _sft_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    names = {
        "loss": "loss",
        "mean_token_accuracy": "token_accuracy",
        "entropy": "entropy",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
    }
    return {name: float(logs[key]) for key, name in names.items() if logs.get(key) is not None}
