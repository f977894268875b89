"""GCPO: reinforcement learning of the verifier on preference pairs (arXiv 2604.27505, section 3.2).

A preference pair consists of two edits of one source image, the preferred one (winner) and the other (loser). The verifier
writes N traces for each. A trace is rewarded if its score agrees with the preference.

Training uses TRL's GRPOTrainer. The N traces of one edit form a GRPO group, and a pair consists of two adjacent groups (see
:mod:`editr1.verifier.pair_layout`). Both groups are in the same generation batch on the same process, so the reward function
receives whole pairs. GRPO subtracts the mean reward of each group, which yields the advantage of the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import PreTrainedModel, ProcessorMixin
from trl import GRPOConfig, GRPOTrainer

from editr1.config.gcpo import GcpoConfig
from editr1.config.loader import ConfigError
from editr1.data.types import Category, Principle, Verdict
from editr1.seeding import pair_order_seed, torch_generator
from editr1.telemetry import Span, TrainHooks
from editr1.verifier.gcpo_rewards import PairRewards, Scores, batch_metrics, pair_rewards, weighted_advantage
from editr1.verifier.image_dedup import deduplicate_image_encoding, deduplicate_image_processing
from editr1.verifier.pair_layout import PairLayout, pair_count
from editr1.verifier.rows import RowCache, pair_rows
from editr1.verifier.trace import parse_trace
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

_CATEGORY_NAMES = {Category.FOLLOW: "follow", Category.KEEP: "keep", Category.QUALITY: "quality"}

_LOGGED_METRICS = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "entropy": "entropy",
    "kl": "kl",
    "completions/mean_length": "trace_tokens",
    "completions/clipped_ratio": "truncated_rate",
    "log_ratio/mean": "log_ratio",
    "log_ratio/max": "log_ratio_max",
    "ratio/mean_distance": "ratio_distance",
    "clip_ratio/region_mean": "clip_fraction",
}


def train_gcpo(
    config: GcpoConfig, *, model: str | Path, pairs: Path, output_dir: Path, hooks: TrainHooks
) -> dict[str, float]:
    """Train a verifier with GCPO on a Parquet file of :class:`PreferencePair` rows, and write it to ``output_dir``.

    Call it in a single process or in every process of a torchrun group. Pairs labelled "same" are not used.

    Args:
        config: settings of the training.
        model: folder or Hugging Face Hub name of a Qwen2.5-VL checkpoint.
        pairs: Parquet file with the preference pairs.
        output_dir: folder to which the weights, the processor and the prompt template are written.
        hooks: callbacks for progress, checkpoints and stop requests.

    Returns:
        The metrics of :func:`gcpo_metrics`, averaged over the last tenth of the trainer's log entries, and these counts:
        ``steps`` (optimizer steps), ``pairs`` (pairs used for training) and ``pairs_same`` (skipped pairs labelled "same").

    Raises:
        TableError: a pair is invalid, or its prompt and trace do not fit into the model's context.
        ConfigError: the pairs of a rollout do not divide evenly among the processes, its traces do not divide evenly into
            micro-batches (see :meth:`GcpoConfig.rollout_layout`), there are too few pairs, the architecture is not supported,
            or the training diverged.
        Interrupted: the hooks requested a stop. A checkpoint was passed to them first.
    """
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
            f"{pairs}: a rollout needs {config.pairs_per_rollout} pairs with a winner, but the training uses {decided}; "
            "lower pairs_per_rollout, raise max_pairs or add pairs"
        )
    network = load_for_training(config, model)
    deduplicate_image_encoding(network)
    callback = HooksCallback(hooks, context, "gcpo", gcpo_metrics, boundary=config.passes)
    arguments = trainer_arguments(config, output_dir, boundary=config.passes)
    trainer = GcpoTrainer(
        model=network,
        reward_funcs=PairReward(PairLayout(config.num_traces), config.tie_credit),
        args=GRPOConfig(
            **arguments,
            **_rollout_arguments(config, micro_batch_size, micro_steps),
            generation_kwargs={"suppress_tokens": suppressed_token_ids(processor, network)},
        ),
        train_dataset=dataset,
        processing_class=processor,
        peft_config=adapter_settings(config.lora),
        callbacks=[callback],
    )
    metrics = run_training(trainer, callback, config, processor, template, output_dir, hooks)
    return metrics | {"pairs": float(decided), "pairs_same": float(same)}


class GcpoTrainer(StepTracingMixin, ResumeWeightsMixin, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer with whole preference pairs in the batches of each process, and with metrics of the likelihood ratio.

    The likelihood ratio of a token is its probability under the current policy, divided by that under the policy that
    generated the trace.
    """

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
            return super()._generate(prompts)

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
        return loss


class PairSampler(Sampler[int]):
    """Sampler of row numbers of :class:`~editr1.verifier.rows.PairRows`, one per trace.

    A rollout consists of the traces of ``pairs_per_rollout`` pairs, in the order of ``layout``. Its row numbers are yielded
    ``repeats`` times, because TRL reads the generation batch again in each micro-step. At the start of each epoch, the
    pairs are shuffled with ``seed``. If ``seed`` is None, they are not shuffled. The pairs that remain after the last full
    rollout of an epoch are skipped in that epoch. The order depends only on the constructor's arguments, so a resumed training
    skips exactly the rows that were already used.
    """

    def __init__(
        self,
        pairs: int,
        layout: PairLayout,
        *,
        pairs_per_rollout: int,
        repeats: int,
        rollouts: int,
        seed: int | None,
    ) -> None:
        if not 1 <= pairs_per_rollout <= pairs:
            raise ValueError(
                f"pairs_per_rollout is {pairs_per_rollout}, but there are {pairs} pairs; use 1 to {pairs} pairs per rollout"
            )
        self._pairs, self._layout, self._pairs_per_rollout = pairs, layout, pairs_per_rollout
        self._repeats, self._rollouts, self._seed = repeats, rollouts, seed

    def __len__(self) -> int:
        return self._rollouts * self._repeats * self._pairs_per_rollout * self._layout.traces_per_pair

    def __iter__(self) -> Iterator[int]:
        rollouts_per_epoch = self._pairs // self._pairs_per_rollout
        order: list[int] = []
        for rollout in range(self._rollouts):
            epoch, place = divmod(rollout, rollouts_per_epoch)
            if place == 0:
                order = self._order(epoch)
            chosen = order[place * self._pairs_per_rollout : (place + 1) * self._pairs_per_rollout]
            for _ in range(self._repeats):
                yield from self._layout.rows(chosen)

    def _order(self, epoch: int) -> list[int]:
        if self._seed is None:
            return list(range(self._pairs))
        generator = torch_generator(pair_order_seed(self._seed, epoch))
        return list(torch.randperm(self._pairs, generator=generator).tolist())


class PairReward:
    """Reward function for TRL's GRPOTrainer. In each pair, it compares the winner's scores with the loser's scores.

    Args:
        layout: order of the traces in a batch.
        tie_credit: credit for a comparison of two equal scores, in [0, 0.5].
    """

    __name__ = "pair_reward"

    def __init__(self, layout: PairLayout, tie_credit: float) -> None:
        self._layout = layout
        self._tie_credit = tie_credit

    def __call__(
        self,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        principles: Sequence[Sequence[Principle]],
        row: Sequence[int] | None = None,
        log_metric: Any = None,
        **_: Any,
    ) -> list[float]:
        """Return one reward in [0, 1] per trace, in the order of ``completions``.

        Args:
            completions: traces, as texts or as chat messages.
            completion_ids: token ids of each trace.
            principles: the principles (yes/no questions) that each trace must answer.
            row: row number of each trace in :class:`~editr1.verifier.rows.PairRows`. If given, the order of the batch is
                checked.
            log_metric: called as ``log_metric(name, value)`` with the metrics of the batch.

        Raises:
            ValueError: the batch does not consist of whole pairs in the order of the layout.
        """
        if row is not None:
            self._layout.check(row)
        texts = [item if isinstance(item, str) else item[0]["content"] for item in completions]
        verdicts = [parse_trace(text, expected) for text, expected in zip(texts, principles, strict=True)]
        scores = [verdict.score if isinstance(verdict, Verdict) else None for verdict in verdicts]
        pairs = [
            (winner, loser, pair_rewards(winner, loser, self._tie_credit))
            for winner, loser in self._layout.split(scores)
        ]
        if log_metric is not None:
            metrics = self._pair_metrics(pairs, completion_ids) | _positive_rates(verdicts, principles)
            for name, value in metrics.items():
                log_metric(f"gcpo/{name}", value)
        return self._layout.join([(rewards.winner, rewards.loser) for _, _, rewards in pairs])

    def _pair_metrics(
        self, pairs: Sequence[tuple[Scores, Scores, PairRewards]], completion_ids: Sequence[Sequence[int]]
    ) -> dict[str, float]:
        advantages = self._layout.join([rewards.advantages for _, _, rewards in pairs])
        return batch_metrics(pairs) | {
            "weighted_advantage": weighted_advantage(advantages, [len(ids) for ids in completion_ids])
        }


def gcpo_metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    """Select the metrics to report from a log entry of the trainer, and rename them.

    The result has all metrics that :class:`PairReward` logs, and these metrics of the optimisation:

    - ``loss``, ``learning_rate``, ``grad_norm``, ``entropy``, ``clip_fraction``, and ``kl`` if ``beta`` is not 0
    - ``trace_tokens``: mean length of a trace in tokens
    - ``truncated_rate``: fraction of traces that reached the length limit
    - ``log_ratio``, ``log_ratio_max``: mean and largest absolute value, over the tokens of the traces, of the logarithm of
      the likelihood ratio (see :class:`GcpoTrainer`)
    - ``ratio_distance``: mean of ``|likelihood ratio - 1|`` over the tokens of the traces
    """
    metrics = {name: float(logs[key]) for key, name in _LOGGED_METRICS.items() if logs.get(key) is not None}
    return metrics | {
        key.removeprefix("gcpo/"): float(value)
        for key, value in logs.items()
        if key.startswith("gcpo/") and value is not None
    }


def suppressed_token_ids(processor: ProcessorMixin, model: PreTrainedModel) -> list[int]:
    """Return the ids of the special tokens that must not be sampled in a trace: all except those that end it."""
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


def _positive_rates(verdicts: Sequence[Any], principles: Sequence[Sequence[Principle]]) -> dict[str, float]:
    """Return, per category of principles, the fraction of questions that the parsed traces answer with 1 (yes)."""
    answers: dict[Category, list[int]] = {}
    for verdict, expected in zip(verdicts, principles, strict=True):
        if isinstance(verdict, Verdict):
            for answer, principle in zip(verdict.scores, expected, strict=True):
                answers.setdefault(principle.category, []).append(answer)
    return {f"positive_rate_{_CATEGORY_NAMES[category]}": sum(bits) / len(bits) for category, bits in answers.items()}
