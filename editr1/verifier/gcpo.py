"""GCPO: reinforcement learning of the verifier on preference pairs (arXiv 2604.27505, section 3.2), over TRL's GRPOTrainer.

GRPO's group is one prompt's N traces. A pair is two neighbouring groups, the winner's and the loser's, kept in one
generation batch of one process; the reward function then sees whole pairs, and GRPO's centring inside each group is
the paper's advantage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Sampler
from trl import GRPOConfig, GRPOTrainer

from editr1.config.gcpo import GcpoConfig
from editr1.config.loader import ConfigError
from editr1.data.types import Category, Principle, Verdict
from editr1.seeding import pair_order_seed, torch_generator
from editr1.telemetry import Span, TrainHooks
from editr1.verifier.gcpo_rewards import PairRewards, batch_figures, pair_rewards, weighted_advantage
from editr1.verifier.image_dedup import deduplicate_image_encoding, deduplicate_image_processing
from editr1.verifier.rows import RowCache, pair_rows
from editr1.verifier.trace import parse_trace
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

_CATEGORIES = {Category.FOLLOW: "follow", Category.KEEP: "keep", Category.QUALITY: "quality"}


def train_gcpo(
    config: GcpoConfig, *, model: str | Path, pairs: Path, output_dir: Path, hooks: TrainHooks
) -> dict[str, float]:
    """Train ``model`` (folder or hub name of a Qwen2.5-VL checkpoint) on a Parquet file of ``PreferencePair``.

    Pairs labelled "same" are left out. ``output_dir`` becomes a plain verifier folder. Returns the mean figures of the
    last tenth of the steps (see :func:`gcpo_figures` and ``gcpo_rewards.batch_figures``), with ``pairs`` and
    ``pairs_same`` (counts). Runs alone or as the processes of a torchrun group.

    Raises:
        TableError: a pair is broken, or its prompt and trace do not fit the model's context.
        ValueError: numbers that do not divide, another architecture, a checkpoint of other settings.
        Interrupted: the hooks asked to stop; a checkpoint was handed on.
    """
    context = distributed_context(config)
    micro, micro_steps = rollout_layout(config, context.world_size)
    network, processor, template = load_for_training(config, model)
    deduplicate_image_processing(processor)
    deduplicate_image_encoding(network)
    limit = context_limit(config, network)
    dataset, same = pair_rows(
        pairs,
        processor,
        template,
        limit,
        config.max_new_tokens,
        RowCache(work_folder(output_dir), context),
        most=config.max_pairs,
        shuffle=config.seed if config.shuffle_labels else None,
    )
    if len(dataset) // 2 < config.pairs_per_rollout:
        raise ConfigError(
            f"{pairs}: {len(dataset) // 2} decided pairs are fewer than the {config.pairs_per_rollout} of one rollout; "
            "lower pairs_per_rollout or add pairs"
        )
    callback = HooksCallback(hooks, context, "gcpo", gcpo_figures, boundary=config.passes)
    arguments = GRPOConfig(
        **trainer_arguments(config, output_dir, boundary=config.passes),
        per_device_train_batch_size=micro,
        steps_per_generation=micro_steps,
        gradient_accumulation_steps=micro_steps,
        num_generations=config.num_traces,
        num_iterations=config.passes,
        max_steps=config.rollouts * config.passes,
        max_completion_length=config.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=0,
        generation_kwargs={"suppress_tokens": unwanted_tokens(processor, network)},
        epsilon=config.clip_range,
        beta=config.beta,
        loss_type="grpo",
        scale_rewards="none",
        vllm_importance_sampling_correction=False,
    )
    trainer = GcpoTrainer(
        model=network,
        reward_funcs=PairReward(config.num_traces, config.tie_credit),
        args=arguments,
        train_dataset=dataset,
        processing_class=processor,
        peft_config=adapter_settings(config.lora),
        callbacks=[callback],
    )
    figures = run_training(trainer, callback, config, processor, template, output_dir, hooks)
    return figures | {"pairs": len(dataset) / 2, "pairs_same": float(same)}


class GcpoTrainer(TracedSteps, ResumesWeights, GRPOTrainer):  # type: ignore[misc]
    """GRPOTrainer that keeps each pair's two groups side by side, and logs the likelihood ratio."""

    def _get_train_sampler(self, dataset: Any = None) -> Sampler[int]:
        rows = self.train_dataset if dataset is None else dataset
        per_rollout = self.args.generation_batch_size // (2 * self.num_generations)
        repeats = self.num_iterations * self.args.steps_per_generation
        rollouts = -(-self.args.max_steps // self.num_iterations)
        return PairSampler(len(rows) // 2, per_rollout, self.num_generations, repeats, rollouts, seed=self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        per_batch = self.args.eval_batch_size // (2 * self.num_generations_eval)
        pairs = len(eval_dataset) // 2
        return PairSampler(pairs, per_batch, self.num_generations_eval, 1, pairs // per_batch, seed=None)

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
    """Indices into :class:`~editr1.verifier.rows.PairRows` for a whole training, all rollouts in one pass.

    A rollout is ``per_rollout`` pairs; each pair gives ``traces`` times its winner's row, then ``traces`` times its
    loser's; the rollout is repeated ``repeats`` times (TRL asks for the batch again in each micro-step). Pairs are
    shuffled anew each time around by ``seed`` (None: kept in order); those that fill no rollout wait for the next
    time around. The order depends on nothing else, so a resumed training skips exactly what is behind it.
    """

    def __init__(
        self, pairs: int, per_rollout: int, traces: int, repeats: int, rollouts: int, *, seed: int | None
    ) -> None:
        if not 1 <= per_rollout <= pairs:
            raise ValueError(f"a rollout of {per_rollout} pairs cannot be drawn from {pairs}")
        self._pairs, self._per_rollout, self._traces = pairs, per_rollout, traces
        self._repeats, self._rollouts, self._seed = repeats, rollouts, seed

    def __len__(self) -> int:
        return self._rollouts * self._repeats * self._per_rollout * 2 * self._traces

    def __iter__(self) -> Iterator[int]:
        around = self._pairs // self._per_rollout
        order: list[int] = []
        for rollout in range(self._rollouts):
            turn, place = divmod(rollout, around)
            if place == 0:
                order = self._order(turn)
            chosen = order[place * self._per_rollout : (place + 1) * self._per_rollout]
            for _ in range(self._repeats):
                for pair in chosen:
                    for row in (2 * pair, 2 * pair + 1):
                        yield from [row] * self._traces

    def _order(self, turn: int) -> list[int]:
        if self._seed is None:
            return list(range(self._pairs))
        generator = torch_generator(pair_order_seed(self._seed, turn))
        return list(torch.randperm(self._pairs, generator=generator).tolist())


class PairReward:
    """Reward function for TRL: rows come as whole pairs, N traces of the winner before N of the loser."""

    __name__ = "pair_reward"

    def __init__(self, traces: int, tie_credit: float) -> None:
        self._traces = traces
        self._tie_credit = tie_credit

    def __call__(
        self,
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        principles: Sequence[Sequence[Principle]],
        log_metric: Any = None,
        **_: Any,
    ) -> list[float]:
        """Rewards in [0, 1], aligned with ``completions``; figures of the batch go to ``log_metric(name, value)``."""
        if len(completions) % (2 * self._traces):
            raise ValueError(f"{len(completions)} traces are not whole pairs of 2 x {self._traces}")
        texts = [item if isinstance(item, str) else item[0]["content"] for item in completions]
        verdicts = [parse_trace(text, asked) for text, asked in zip(texts, principles, strict=True)]
        scores = [verdict.score if isinstance(verdict, Verdict) else None for verdict in verdicts]
        groups = [scores[start : start + self._traces] for start in range(0, len(scores), self._traces)]
        pairs = [
            (winner, loser, pair_rewards(winner, loser, self._tie_credit))
            for winner, loser in zip(groups[::2], groups[1::2], strict=True)
        ]
        rewards = [pair[2] for pair in pairs]
        if log_metric is not None:
            for name, value in self._figures(pairs, completion_ids).items():
                log_metric(f"gcpo/{name}", value)
            for name, value in _positive_rates(verdicts, principles).items():
                log_metric(f"gcpo/{name}", value)
        return [reward for pair in rewards for side in (pair.winner, pair.loser) for reward in side]

    def _figures(
        self, pairs: Sequence[tuple[Any, Any, PairRewards]], completion_ids: Sequence[Sequence[int]]
    ) -> dict[str, float]:
        advantages = [value for _, _, rewards in pairs for side in rewards.advantages for value in side]
        return batch_figures(pairs) | {
            "weighted_advantage": weighted_advantage(advantages, [len(ids) for ids in completion_ids])
        }


def gcpo_figures(logs: Mapping[str, Any]) -> dict[str, float]:
    """What is reported of the trainer's log: everything of ``PairReward``, and of the optimisation the rest.

    ``trace_tokens`` mean length; ``truncated_rate`` traces without an end; ``log_ratio``, ``log_ratio_max`` (absolute)
    and ``ratio_distance`` (mean of ``|ratio - 1|``) over trace tokens; ``clip_fraction``; ``kl`` when beta is not 0.
    """
    names = {
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
    figures = {name: float(logs[key]) for key, name in names.items() if logs.get(key) is not None}
    return figures | {
        key.removeprefix("gcpo/"): float(value)
        for key, value in logs.items()
        if key.startswith("gcpo/") and value is not None
    }


def rollout_layout(config: GcpoConfig, processes: int) -> tuple[int, int]:
    """Traces a forward pass and process, and forward passes a rollout; pairs stay whole on each process."""
    if config.pairs_per_rollout % processes:
        raise ConfigError(f"pairs_per_rollout {config.pairs_per_rollout} is not a multiple of {processes} processes")
    local = config.pairs_per_rollout // processes * 2 * config.num_traces
    micro = config.micro_batch_size or local
    if local % micro:
        raise ConfigError(f"micro_batch_size {micro} does not divide the {local} traces of a process's rollout")
    return micro, local // micro


def unwanted_tokens(processor: Any, model: Any) -> list[int]:
    """Special tokens that a trace cannot hold; sampling leaves them out. The tokens that end a trace stay."""
    ends = model.generation_config.eos_token_id
    kept = {processor.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    return sorted(set(processor.tokenizer.all_special_ids) - kept | {model.config.image_token_id})


def _positive_rates(verdicts: Sequence[Any], principles: Sequence[Sequence[Principle]]) -> dict[str, float]:
    marks: dict[Category, list[int]] = {}
    for verdict, asked in zip(verdicts, principles, strict=True):
        if isinstance(verdict, Verdict):
            for bit, principle in zip(verdict.scores, asked, strict=True):
                marks.setdefault(principle.category, []).append(bit)
    return {f"positive_rate_{_CATEGORIES[category]}": sum(bits) / len(bits) for category, bits in marks.items()}
