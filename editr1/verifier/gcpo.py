"""GCPO: reinforcement learning of the verifier on preference pairs (arXiv 2604.27505, section 3.2).

A preference pair consists of two edits of the same source image: the preferred edit (winner) and the other edit
(loser). The verifier writes N traces for each. A trace is rewarded if its score agrees with the preference.

Training uses TRL's GRPOTrainer. The N traces of one edit form a GRPO group, and a pair consists of two adjacent groups (see
:mod:`editr1.verifier.pair_layout`). Both groups are in the same generation batch on the same process, so the reward function
receives whole pairs. GRPO subtracts the mean reward of each group, which yields the advantage of the paper.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PreTrainedModel, ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from editr1.config.gcpo import GcpoConfig
from editr1.config.loader import ConfigError
from editr1.telemetry import Span, TrainHooks
from editr1.verifier.gcpo_metrics import gcpo_metrics, logged_counts
from editr1.verifier.image_dedup import deduplicate_image_encoding, deduplicate_image_processing
from editr1.verifier.pair_layout import PairLayout, pair_count
from editr1.verifier.pair_reward import PairReward
from editr1.verifier.pair_sampler import PairSampler
from editr1.verifier.rollout_check import RolloutCheck
from editr1.verifier.rows import RowCache, pair_rows
from editr1.verifier.token_metrics import TokenMetricsMixin
from editr1.verifier.trace_lengths import check_token_limit, load_trace_lengths
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


def train_gcpo(
    config: GcpoConfig, *, model: str | Path, pairs: Path, output_dir: Path, hooks: TrainHooks
) -> dict[str, float]:
    """Train a verifier with GCPO on a Parquet file of :class:`PreferencePair` rows, and write it to ``output_dir``.

    Call it in a single process or in every process of a torchrun group. Pairs labelled "same" are not used.

    Args:
        config: training settings.
        model: folder or Hugging Face Hub name of a Qwen2.5-VL checkpoint.
        pairs: Parquet file with the preference pairs.
        output_dir: folder to which the weights, the processor and the prompt template are written. Files that are already in
            it are removed.
        hooks: callbacks for progress, checkpoints and stop requests.

    Returns:
        The metrics of :func:`~editr1.verifier.gcpo_metrics.gcpo_metrics`, averaged over the last tenth of the trainer's log
        entries, and these counts: ``steps`` (optimizer steps), ``pairs`` (pairs used for training) and ``pairs_same``
        (skipped pairs labelled "same").

    Raises:
        TableError: a pair is invalid, or its prompt and trace do not fit into the model's context.
        ConfigError: the pairs of a rollout cannot be divided evenly among the processes, or its traces into
            micro-batches (see :meth:`GcpoConfig.rollout_layout`), there are too few pairs, ``max_new_tokens`` cuts
            off the traces that the model was trained on, the architecture is not supported, or the training diverged.
        NoTrainingSignal: no pair had a signal in the first rollouts (see ``max_rollouts_without_signal``).
        Interrupted: the hooks requested a stop. A checkpoint was passed to them first.
    """
    check_token_limit(model, config.max_new_tokens, "max_new_tokens")
    context = distributed_context(config)
    micro_batch_size, micro_steps = config.rollout_layout(context.world_size)
    processor, template = load_processing_for_training(config, model)
    deduplicate_image_processing(processor)
    dataset, same = pair_rows(
        pairs,
        processor,
        template,
        context_limit(config, model),
        config.max_new_tokens,
        RowCache(work_folder(output_dir), context),
        max_pairs=config.max_pairs,
        shuffle_seed=config.seed if config.shuffle_labels else None,
    )
    decided = pair_count(len(dataset))
    if decided < config.pairs_per_rollout:
        raise ConfigError(
            f"{pairs}: a rollout needs {config.pairs_per_rollout} pairs with a winner, but only {decided} are "
            "available for training; lower pairs_per_rollout, raise max_pairs or add pairs"
        )
    network = load_for_training(config, model)
    deduplicate_image_encoding(network)
    callback = HooksCallback(hooks, context, "gcpo", gcpo_metrics, boundary=config.passes)
    arguments = trainer_arguments(config, output_dir, boundary=config.passes)
    reward = PairReward(PairLayout(config.num_traces), config.tie_credit)
    trainer = GcpoTrainer(
        model=network,
        reward_funcs=reward,
        args=GRPOConfig(
            **arguments,
            **_rollout_arguments(config, micro_batch_size, micro_steps),
            generation_kwargs={"suppress_tokens": suppressed_token_ids(processor, network)},
        ),
        train_dataset=dataset,
        processing_class=processor,
        peft_config=adapter_settings(config.lora),
        callbacks=[callback],
        pair_reward=reward,
        rollout_check=RolloutCheck(
            pairs,
            max_new_tokens=config.max_new_tokens,
            first_rollouts=config.max_rollouts_without_signal,
            rollouts=config.rollouts,
        ),
    )
    metrics = run_training(trainer, callback, config, model, output_dir, hooks)
    lengths = load_trace_lengths(model)
    if lengths is not None and context.is_main:
        lengths.save(output_dir)
    return metrics | {"pairs": float(decided), "pairs_same": float(same)}


class GcpoTrainer(StepTracingMixin, ResumeWeightsMixin, TokenMetricsMixin, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer whose batches contain whole preference pairs on each process, and which logs metrics of the likelihood ratio.

    The likelihood ratio of a token is its probability under the current policy, divided by that under the policy that
    generated the trace.

    Args:
        pair_reward: the reward function.
        rollout_check: called after each rollout. It stops the training if nothing can be learned.
        args: arguments of GRPOTrainer.
        kwargs: arguments of GRPOTrainer.
    """

    token_metrics = (
        "entropy", "kl", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean", "log_ratio/mean",
        "ratio/mean_distance",
    )  # fmt: skip
    maximum_metrics = ("log_ratio/max",)

    def __init__(self, *args: Any, pair_reward: PairReward, rollout_check: RolloutCheck, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pair_reward, self._rollout_check = pair_reward, rollout_check
        self._resumed = False

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
        rows = self.train_dataset if dataset is None else dataset
        layout = PairLayout(self.num_generations)
        return PairSampler(
            pair_count(len(rows)),
            layout,
            pairs_per_rollout=self.args.generation_batch_size // layout.traces_per_pair,
            repeats=self.num_iterations * self.args.steps_per_generation,
            rollouts=-(-self.args.max_steps // self.num_iterations),
            seed=self.args.seed,
        )

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        layout = PairLayout(self.num_generations_eval)
        per_batch = self.args.eval_batch_size // layout.traces_per_pair
        pairs = pair_count(len(eval_dataset))
        return PairSampler(
            pairs, layout, pairs_per_rollout=per_batch, repeats=1, rollouts=pairs // per_batch, seed=None
        )

    def _generate(self, prompts: Any) -> Any:
        with self.traced(Span.SAMPLE):
            try:
                return super()._generate(prompts)
            except RuntimeError as error:
                if "probability tensor contains" not in str(error):  # torch.multinomial
                    raise
                step = self.state.global_step
                cause = (
                    "the input model does not compute finite values; check its weights"
                    if step == 0
                    else f"learning_rate {self.args.learning_rate:g}: the training diverged; use a smaller learning rate"
                )
                raise ConfigError(
                    f"the probabilities of the tokens are not finite after step {step} of {self.state.max_steps}: {cause}"
                ) from error

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        if not self._resumed and self.state.global_step:
            rollouts = self.state.global_step // self.num_iterations
            self._rollout_check.resume(rollouts, self.state.global_step, self.state.log_history)
        self._resumed = True
        output = super()._generate_and_score_completions(inputs)
        if self.model.training:
            processes = self.accelerator.num_processes
            latest = {name: values[-1] for name, values in self._metrics["train"].items()}
            counts = {name: value * processes for name, value in logged_counts(latest).items()}
            truncated = round(latest["completions/clipped_ratio"] * len(inputs) * processes)
            self._rollout_check.record(counts, truncated, self._pair_reward.first_violation)
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        with self.traced(Span.REWARD):
            return super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        result = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        self._last_logps = result[0].detach()
        return result

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        old = inputs.get("old_per_token_logps")
        mask = inputs["completion_mask"].bool()
        log_ratio = torch.zeros_like(self._last_logps) if old is None else self._last_logps - old
        log_ratio = log_ratio[mask].double()
        sums = torch.stack([log_ratio.sum(), (log_ratio.exp() - 1).abs().sum(), mask.sum().double()])
        sums = self.accelerator.reduce(sums, reduction="sum")
        largest = self.accelerator.gather(log_ratio.abs().max()).max()
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["log_ratio/mean"].append((sums[0] / sums[2]).item())
        self._metrics[mode]["ratio/mean_distance"].append((sums[1] / sums[2]).item())
        self._metrics[mode]["log_ratio/max"].append(largest.item())
        if mode == "train":
            self.add_tokens(sums[2].item())
        return loss


def suppressed_token_ids(processor: ProcessorMixin, model: PreTrainedModel) -> list[int]:
    """Return the ids of the special tokens that must not be sampled in a trace: all except the tokens that end a trace."""
    ends = model.generation_config.eos_token_id
    kept = {processor.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    return sorted(set(processor.tokenizer.all_special_ids) - kept | {model.config.image_token_id})


def _rollout_arguments(config: GcpoConfig, micro_batch_size: int, micro_steps: int) -> dict[str, Any]:
    """Return the arguments of TRL's GRPOConfig for rollouts and for the loss of GCPO."""
    return {
        "per_device_train_batch_size": micro_batch_size,
        "steps_per_generation": micro_steps,
        "gradient_accumulation_steps": micro_steps,
        "num_generations": config.num_traces,
        "num_iterations": config.passes,
        "max_steps": config.rollouts * config.passes,
        "max_completion_length": config.max_new_tokens,
        "temperature": config.temperature,
        "top_p": config.top_p,
        "top_k": 0,
        "epsilon": config.clip_range,
        "beta": config.beta,
        "use_bias_correction_kl": True,
        "loss_type": "grpo",
        "scale_rewards": "none",
        "vllm_importance_sampling_correction": False,
    }
