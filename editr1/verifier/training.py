"""Training code shared by SFT and GCPO: loading and saving the model, trainer arguments, progress and checkpoints."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProcessorMixin,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from editr1.artifacts.export import empty_folder
from editr1.config.loader import ConfigError
from editr1.config.verifier import LoraSettings, VerifierTraining
from editr1.parallel.context import DistributedContext
from editr1.telemetry import Interrupted, Span, TrainHooks, span
from editr1.verifier.model import (
    context_length,
    load_model,
    load_processing,
    load_processor,
    save_verifier,
    use_cpu_attention,
)
from editr1.verifier.prompt import PromptTemplate
from editr1.verifier.weights import check_adapter, load_weights

_LANGUAGE: Final = r".*language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
_VISION: Final = r".*visual\..*\.(qkv|proj|gate_proj|up_proj|down_proj)"
_TAIL: Final = 0.1  # The final metrics are means over this last fraction of the training.


def work_folder(output_dir: Path) -> Path:
    """Return the temporary folder for checkpoints and cached rows, next to ``output_dir``.

    It is deleted when the training finishes.
    """
    return output_dir.with_name(f"{output_dir.name}.work")


def on_cpu(config: VerifierTraining) -> bool:
    """Return True if the config selects the CPU or the machine has no accelerator.

    The trainer must be told explicitly to use the CPU. Otherwise, on a machine without a GPU, the accelerate library would
    make each process of a torchrun group train a separate model.
    """
    return config.device == "cpu" or not torch.accelerator.is_available()


def distributed_context(config: VerifierTraining) -> DistributedContext:
    """Join the process group on the device that the config selects. See :meth:`DistributedContext.initialize`."""
    return DistributedContext.initialize(cpu=on_cpu(config))


def load_processing_for_training(config: VerifierTraining, model: str | Path) -> tuple[ProcessorMixin, PromptTemplate]:
    """Load the processor and the prompt template of a verifier, without its weights.

    If ``config`` limits the image size, its limits replace those of the prompt template.
    """
    processor, template = load_processing(model)
    limits = {"min_pixels": config.min_pixels, "max_pixels": config.max_pixels}
    changed = {name: value for name, value in limits.items() if value is not None}
    if changed:
        template = PromptTemplate.model_validate(template.model_dump() | changed)
        processor = load_processor(model, template)
    return processor, template


def load_for_training(config: VerifierTraining, model: str | Path) -> PreTrainedModel:
    """Load the weights of a verifier for training.

    Call this after the training rows have been checked, because it takes long.
    """
    with span(Span.LOAD, model=str(model)):
        network = load_model(model, dtype="float32")
        if on_cpu(config):
            use_cpu_attention(network)
    return network


def context_limit(config: VerifierTraining, model: str | Path) -> int:
    """Return the maximum number of tokens of a prompt and its trace together.

    Raises ConfigError if ``max_length`` exceeds the model's context.
    """
    context = context_length(model)
    if config.max_length is None:
        return context
    if config.max_length > context:
        raise ConfigError(f"max_length: {config.max_length} exceeds the model's context of {context} tokens; lower it")
    return config.max_length


def trainer_arguments(config: VerifierTraining, output_dir: Path, *, boundary: int = 1) -> dict[str, Any]:
    """Convert the settings shared by SFT and GCPO to keyword arguments of ``TrainingArguments``.

    Checkpoints are written only when the number of completed steps is a multiple of ``boundary``.
    """
    kinds = {"linear": "polynomial", "cosine": "cosine_with_min_lr", "constant": "constant_with_warmup"}
    kind_options: dict[str, dict[str, float]] = {
        "linear": {"power": 1.0, "lr_end": config.learning_rate * config.final_lr_ratio},
        "cosine": {"min_lr_rate": config.final_lr_ratio},
        "constant": {},
    }
    return {
        "output_dir": str(work_folder(output_dir)),
        "seed": config.seed,
        "learning_rate": config.learning_rate,
        "warmup_steps": config.warmup_steps,
        "lr_scheduler_type": kinds[config.lr_schedule],
        "lr_scheduler_kwargs": kind_options[config.lr_schedule],
        "weight_decay": config.weight_decay,
        "adam_beta1": config.betas[0],
        "adam_beta2": config.betas[1],
        "max_grad_norm": config.max_grad_norm,
        "bf16": config.precision == "bf16-mixed",
        "gradient_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if config.gradient_checkpointing else None,
        "use_cpu": on_cpu(config),
        "save_strategy": "steps" if config.checkpoint_every else "no",
        "save_steps": max(1, math.ceil(config.checkpoint_every / boundary)) * boundary,
        "save_total_limit": config.keep_checkpoints,
        "logging_steps": config.log_every,
        "logging_first_step": True,  # so that a defect of the input model is distinguished from divergence
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": config.dataloader_workers,
        "dataloader_pin_memory": not on_cpu(config) and torch.cuda.is_available(),
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
    }


def adapter_settings(lora: LoraSettings | None) -> LoraConfig | None:
    """Return the peft configuration for LoRA; None for full fine-tuning."""
    if lora is None:
        return None
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_LANGUAGE if lora.targets == "language" else f"{_LANGUAGE}|{_VISION}",
        task_type="CAUSAL_LM",
    )


class ResumeWeightsMixin:
    """Mixin for trainers that loads the weights of a checkpoint with ``from_pretrained`` when a training is resumed.

    transformers' Trainer copies tensors into the model by name, and only warns if no name matches. The names in a
    Qwen2.5-VL checkpoint differ from those in the model, so without this mixin a resumed training would start from the
    initial weights.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        target = self.accelerator.unwrap_model(model if model is not None else self.model)  # type: ignore[attr-defined]
        if isinstance(target, PeftModel):
            result = target.load_adapter(resume_from_checkpoint, target.active_adapter, is_trainable=True)
            check_adapter(result, resume_from_checkpoint)
            return
        saved = load_weights(type(target), resume_from_checkpoint, dtype=target.dtype)
        target.load_state_dict(saved.state_dict())


class StepTracingMixin:
    """Mixin for trainers that records OpenTelemetry spans for about 200 evenly spaced training steps."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run one forward and backward pass. See :class:`transformers.Trainer`."""
        with self.traced(Span.STEP):
            loss: torch.Tensor = super().training_step(*args, **kwargs)  # type: ignore[misc]
        return loss

    def traced(self, name: Span) -> AbstractContextManager[object]:
        """Return a span called ``name`` if the current step is recorded, else a context manager that does nothing."""
        state: TrainerState = self.state  # type: ignore[attr-defined]
        every = max(1, state.max_steps // 200)
        if not state.is_world_process_zero or state.global_step % every:
            return nullcontext()
        return span(name, step=state.global_step + 1)


class HooksCallback(TrainerCallback):  # type: ignore[misc]
    """Trainer callback that calls :class:`TrainHooks`: it reports progress, passes on checkpoints, and stops on request.

    If a stop is requested on any rank, all ranks stop after the same step.

    Args:
        hooks: callbacks for progress, checkpoints and stop requests.
        context: process group of the training.
        phase: name of the progress phase.
        select_metrics: function that returns the metrics to report from a log entry of the trainer.
        boundary: the training stops only after a multiple of this number of steps.
    """

    def __init__(
        self,
        hooks: TrainHooks,
        context: DistributedContext,
        phase: str,
        select_metrics: Callable[[Mapping[str, Any]], dict[str, float]],
        boundary: int = 1,
    ) -> None:
        self.stopped = False
        self.history: list[dict[str, float]] = []
        self._hooks = hooks
        self._context = context
        self._phase = phase
        self._select_metrics = select_metrics
        self._boundary = boundary
        self._reported = self._started = 0
        self._finite_step: int | None = None
        self._finite_loss = 0.0
        self._tokens = 0.0
        self._time = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the progress phase. Training steps before a resume count as completed."""
        self._reported, self._time = state.global_step, time.monotonic()
        self._started = state.global_step
        self.history = [_finite(self._select_metrics(report)) for report in state.log_history if "loss" in report]
        self._tokens = float(
            state.num_input_tokens_seen
        )  # After a resume, GRPO continues this count, but SFT restarts at 0.
        if state.is_world_process_zero:
            self._hooks.progress.phase(self._phase, total=state.max_steps, done=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Stop the training if a stop was requested on any rank."""
        if state.global_step >= state.max_steps:
            control.should_save = False  # The trained model is written next.
        elif state.global_step % self._boundary == 0 and self._context.any_rank(self._hooks.should_stop()):
            self.stopped = control.should_save = control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Report metrics and completed steps. Raises ConfigError on every rank if the loss or the gradient is not finite."""
        loss, norm = (float((logs or {}).get(name) or 0.0) for name in ("loss", "grad_norm"))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise ConfigError(self._divergence(args, state, loss, norm))
        if logs is not None and "loss" in logs:
            self._finite_step, self._finite_loss = state.global_step, loss
        steps = state.global_step - self._reported
        if not state.is_world_process_zero or logs is None or "train_runtime" in logs or not steps:
            return
        metrics = _finite(self._select_metrics(logs))
        now, tokens = time.monotonic(), float(logs.get("num_tokens", 0.0))
        if tokens > self._tokens:
            metrics["tokens_per_second"] = (tokens - self._tokens) / max(now - self._time, 1e-9)
        self._reported, self._tokens, self._time = state.global_step, tokens, now
        self.history.append(metrics)
        self._hooks.progress.step(steps, **metrics)

    def _divergence(self, args: TrainingArguments, state: TrainerState, loss: float, norm: float) -> str:
        """Return the message for a loss or a gradient that is not finite."""
        found = f"loss {loss:g} and gradient norm {norm:g} at step {state.global_step} of {state.max_steps}"
        if state.global_step - self._started == 1:  # The weights are still those of the input model.
            return (
                f"{found}, before the first update of the weights, so the learning rate is not the cause: the "
                "network does not compute finite values with the weights of the input model; check its weights, "
                "or try precision fp32"
            )
        last = "" if self._finite_step is None else f", after loss {self._finite_loss:g} at step {self._finite_step}"
        return (
            f"learning_rate {args.learning_rate:g}: the training diverged: {found}{last}; use a smaller learning rate"
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Pass the checkpoint that was just saved to the hooks."""
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            with span(Span.CHECKPOINT, step=state.global_step):
                self._hooks.on_checkpoint(folder, state.global_step)


def run_training(
    trainer: Trainer,
    callback: HooksCallback,
    config: VerifierTraining,
    model: str | Path,
    output_dir: Path,
    hooks: TrainHooks,
) -> dict[str, float]:
    """Train the verifier and write its folder. Return the metrics, averaged over the last tenth of the log entries.

    ``model`` is the input model, whose processor and prompt template are written with the trained weights. Files that are
    already in ``output_dir`` are removed before the model is written.

    Raises:
        ConfigError: the training diverged.
        Interrupted: the hooks requested a stop. A checkpoint was passed to them first.
        FileNotFoundError: the folder to resume from does not contain a checkpoint.
    """
    # Not the trainer's own processor, which changes when a checkpoint is saved, so that another attempt would export others.
    processor, template = load_processing_for_training(config, model)
    trainer.remove_callback(PrinterCallback)
    resume = hooks.find_checkpoint()
    if resume is not None and not (resume / "trainer_state.json").is_file():
        raise FileNotFoundError(
            f"{resume}: not a trainer checkpoint: trainer_state.json is missing; use another checkpoint"
        )
    if trainer.is_world_process_zero():
        _remove_checkpoints(work_folder(output_dir), kept=resume)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    if not all(bool(torch.isfinite(parameter).all()) for parameter in trainer.model.parameters()):
        raise ConfigError(
            f"learning_rate {config.learning_rate:g}: the training diverged: the weights after step "
            f"{trainer.state.global_step} of {trainer.state.max_steps} are not finite; use a smaller learning rate"
        )
    if callback.stopped:
        raise Interrupted(f"stopped at step {trainer.state.global_step} of {trainer.state.max_steps}")
    if trainer.is_world_process_zero():
        network = trainer.accelerator.unwrap_model(trainer.model)
        empty_folder(output_dir)
        if isinstance(network, PeftModel):
            if config.lora is not None and config.lora.keep_adapter:
                network.save_pretrained(str(output_dir / "adapter"))
            network = network.merge_and_unload()
        save_verifier(network, processor, template, output_dir)
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        shutil.rmtree(work_folder(output_dir), ignore_errors=True)
    return {"steps": float(trainer.state.global_step)} | tail_means(callback.history)


def _remove_checkpoints(work: Path, *, kept: Path | None) -> None:
    """Remove the checkpoints of earlier attempts, which may be incomplete, except for the one to resume from."""
    for folder in work.glob("checkpoint-*"):
        if kept is None or folder.resolve() != kept.resolve():
            shutil.rmtree(folder, ignore_errors=True)


def tail_means(history: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over its latest values.

    The number of values is a tenth of the number of log entries, but at least one.
    """
    means = {}
    for name in {name: None for report in history for name in report}:
        values = [report[name] for report in history if name in report]
        tail = values[-max(1, round(len(history) * _TAIL)) :]
        means[name] = sum(tail) / len(tail)
    return means


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
