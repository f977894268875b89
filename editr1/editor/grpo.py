"""Train an image editor with Flow-GRPO, using a verifier's scores as rewards.

The method is described in arXiv 2604.27505, section 3.3, and arXiv 2505.05470.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from editr1.config.grpo import GrpoConfig
from editr1.config.loader import ConfigError
from editr1.data.types import FailureCause
from editr1.editor.advantages import Advantages, group_advantages, shuffle_within_groups
from editr1.editor.cases import CaseOrder
from editr1.editor.checkpoint import (
    TrainingHistory,
    TrainingState,
    failures_by_cause,
    load_checkpoint,
    save_checkpoint,
)
from editr1.editor.ema import Ema
from editr1.editor.policies import EditorPolicy, NotFinite, load_policy
from editr1.editor.precision import precision_context
from editr1.editor.reward import RewardBudgetExceeded, RewardCollector, Rewards, Scorer, check_budget, check_one_model
from editr1.editor.sampler import GroupSampler
from editr1.editor.trajectory import TrajectoryBatch, attach_advantages, attach_scores
from editr1.editor.tuning import Tuning
from editr1.editor.update import Updater, UpdateStats
from editr1.parallel.context import DistributedContext
from editr1.seeding import offset_seed
from editr1.telemetry import Interrupted, Span, TrainHooks, span, untraced
from editr1.training_signal import NoTrainingSignal, SignalMonitor

log = logging.getLogger(__name__)

RATIO_TOLERANCE = 1e-6
MAX_TRACED_ITERATIONS = 200
"""Approximate maximum number of training iterations that are recorded as OpenTelemetry spans. They are evenly spaced.
"""
SETTINGS_FIXED_ON_RESUME = ("seed", "cases_per_iteration", "group_size", "tune", "lora", "num_inference_steps", "sde")
"""Settings whose values must not change when training is resumed from a checkpoint."""


def train_grpo(
    config: GrpoConfig,
    *,
    editor: str | Path,
    cases: Path,
    scorer: Scorer,
    output_dir: Path,
    hooks: TrainHooks | None = None,
) -> dict[str, float]:
    """Train an image editor with Flow-GRPO, and write it to ``output_dir`` as a diffusers pipeline folder.

    Every torchrun process calls this function with the same arguments. Rank 0 reports progress and writes files.
    Checkpoints are written to ``checkpoints/`` next to ``output_dir``.

    Args:
        config: Training settings.
        editor: Pipeline folder or Hugging Face Hub name of the editor to train: FLUX.1-Kontext or Qwen-Image-Edit.
        cases: Parquet table of :class:`EditCase` rows with principles.
        scorer: Function that scores edited images. It returns one outcome per image, in the same order, and must be
            thread-safe.
        output_dir: Folder to which the trained pipeline is written. Files that are already in it are removed.
        hooks: Callbacks for progress, checkpoints and stop requests.

    Returns:
        The metrics of the entire training run, including the iterations before a resume:

        - ``reward_first`` and ``reward_last``: mean score over the first and over the last five iterations, omitted if
          there was no score in them
        - ``iterations``: number of iterations
        - ``failed``: number of samples whose scoring failed, and ``failed_<cause>`` for each cause that occurred
        - ``zero_spread``: fraction of sample groups without a training signal, because their scores are equal or missing
        - ``seconds``: time spent in iterations

    Raises:
        ConfigError: The training diverged, or a setting does not match the checkpoint.
        RewardBudgetExceeded: Scoring failed for more samples than the settings allow.
        RewardUnreachable: Scoring failed for too many samples, mostly because the reward service could not be reached.
        RewardRefused: The reward service refused every sample of an iteration.
        RewardModelChanged: The scores came from more than one verifier.
        NoTrainingSignal: In the first iterations, the scores of every sample group were equal or missing.
        Interrupted: The hooks requested a stop. A checkpoint was passed to them first.
        ValueError: The cases, the editor or the checkpoint cannot be used. Raised before any sampling.
    """
    # While one rank waits for its scores, the other ranks wait for that rank in a collective.
    distributed = DistributedContext.initialize(timeout_s=max(1800.0, config.reward_ready_timeout_seconds + 600.0))
    trainer = _Trainer(config, editor, cases, scorer, output_dir, hooks or TrainHooks(), distributed)
    return trainer.run()


class _Trainer:
    def __init__(
        self,
        config: GrpoConfig,
        editor: str | Path,
        cases: Path,
        scorer: Scorer,
        output_dir: Path,
        hooks: TrainHooks,
        distributed: DistributedContext,
    ) -> None:
        self._config, self._hooks, self._distributed, self._scorer = config, hooks, distributed, scorer
        self._output = output_dir
        self._checkpoints = output_dir.parent / "checkpoints"
        torch.manual_seed(config.seed)
        self._policy = _load(config, str(editor), distributed.device)
        self._tuning = Tuning(self._policy, config)
        distributed.broadcast_parameters(self._tuning.weights)
        self._ema = Ema(self._tuning.weights, config.ema_decay) if config.ema_decay > 0.0 else None
        self._optimizer = torch.optim.AdamW(
            self._tuning.weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._sampler = GroupSampler(self._policy, config)
        self._updater = Updater(
            self._policy, self._tuning, self._optimizer, self._ema, config, self._sampler.settings, distributed
        )
        self._digest: str | None = None
        self._history = TrainingHistory()
        self._start = self._resume()
        self._order = CaseOrder(
            cases,
            seed=config.seed,
            per_iteration=config.cases_per_iteration,
            iterations=config.iterations,
            first=self._start,
            rank=distributed.rank,
            size=distributed.world_size,
        )

    def run(self) -> dict[str, float]:
        config, history = self._config, self._history
        self._hooks.progress.phase("grpo", config.iterations, self._start)
        monitor = SignalMonitor(
            config.max_iterations_without_signal,
            config.iterations,
            done=self._start,
            had_signal=history.zero_spread < history.groups,
        )
        with RewardCollector(
            self._scorer,
            batch_size=config.score_batch_size,
            concurrency=config.reward_concurrency,
            overlap=config.overlap,
        ) as rewards:
            for i in range(self._start, config.iterations):
                start = time.monotonic()
                try:
                    metrics, advantages = self._iterate(i, rewards)
                except NotFinite as error:
                    raise self._divergence_error(i, error) from error
                history.reward_means.append(metrics.get("reward_mean"))
                history.zero_spread += advantages.zero_spread
                history.groups += advantages.groups
                history.seconds += time.monotonic() - start
                if self._distributed.is_main:
                    self._hooks.progress.step(1, **metrics)
                if monitor.record(has_signal=advantages.zero_spread < advantages.groups):
                    raise self._no_signal_error()
                self._finish_iteration(i + 1)
        self._export()
        return {"iterations": float(config.iterations), **history.metrics()}

    def _no_signal_error(self) -> NoTrainingSignal:
        history = self._history
        samples = history.groups * self._config.group_size
        return NoTrainingSignal(
            f"nothing can be learned: none of the {history.groups} sample groups in the first"
            f" {len(history.reward_means)} iterations had two different scores, and {history.failed} of {samples} scores"
            " failed; check that the verifier distinguishes these edits with `editr1 score`, or raise group_size"
        )

    def _divergence_error(self, i: int, error: NotFinite) -> ConfigError:
        config = self._config
        if not self._optimizer.state:
            advice = "check the editor's weights" if config.precision == "fp32" else "try precision fp32"
            return ConfigError(
                f"precision {config.precision}: an image or gradient is not finite before the first update: {error}; {advice}"
            )
        return ConfigError(
            f"learning_rate {config.learning_rate:g}: the training diverged in iteration {i + 1}: {error};"
            " try a lower learning rate"
        )

    def _iterate(self, i: int, collector: RewardCollector) -> tuple[dict[str, float], Advantages]:
        config = self._config
        device = self._distributed.device
        span_interval = max(1, config.iterations // MAX_TRACED_ITERATIONS)
        with span(Span.STEP, iteration=i) if i % span_interval == 0 else untraced():
            with span(Span.SAMPLE), precision_context(device, config.precision):
                batches = self._sampler.sample(i, self._order.iteration(i), collector)
            with span(Span.REWARD):
                local = collector.collect()
                batches = attach_scores(batches, local.sample_ids, local.scores, local.valid_mask)
                rewards = self._gather_rewards(i, batches, local)
                self._history.add_failures(rewards.causes)
                advantages = self._advantages(i, rewards)
                batches = attach_advantages(batches, rewards.sample_ids, advantages.values, advantages.signal_mask)
            with span(Span.OPTIMISE):
                stats = self._updater.update(batches, int(advantages.signal_mask.sum()), int(rewards.valid_mask.sum()))
        return self._metrics(rewards, advantages, stats), advantages

    def _gather_rewards(self, i: int, batches: list[TrajectoryBatch], local: Rewards) -> _GatheredRewards:
        """Gather the scores of all processes.

        Check that enough scores are valid, and that all scores come from one verifier. Gathering requires that every
        process has the same number of samples.
        """
        gather = self._distributed.all_gather
        causes: Counter[str] = Counter()
        first = ""
        digests: set[str] = set()
        for text in self._distributed.all_gather_text(
            json.dumps([local.causes, sorted(local.digests), local.first_failure])
        ):
            process_causes, process_digests, process_first = json.loads(text)
            first = first or process_first
            causes.update(process_causes)
            digests |= set(process_digests)
        scores = torch.cat(gather(torch.cat([batch.scores for batch in batches if batch.scores is not None])))
        valid_mask = torch.cat(gather(torch.cat([batch.valid_mask for batch in batches]).to(torch.uint8))).bool()
        self._digest = check_one_model(self._digest, frozenset(digests))
        try:
            check_budget(int((~valid_mask).sum()), len(valid_mask), self._config.max_failed_fraction, causes, first)
        except RewardBudgetExceeded:
            self._save(i)
            self._stop_if_requested(i, save=False)
            raise
        if causes[FailureCause.UNREACHABLE]:
            self._stop_if_requested(i, save=True)
        sample_ids, group_keys = torch.cat(
            gather(
                torch.stack(
                    [
                        torch.cat([batch.sample_ids for batch in batches]),
                        torch.cat([batch.group_keys for batch in batches]),
                    ]
                )
            ),
            dim=1,
        )
        return _GatheredRewards(sample_ids, group_keys, scores, valid_mask, causes)

    def _stop_if_requested(self, i: int, *, save: bool) -> None:
        """Raise Interrupted if a stop is requested on any process. The next attempt then repeats iteration ``i``.

        With ``save``, save a checkpoint of the iterations before it first.

        A stop can cause failures, because pending requests are cancelled and the reward service may stop first. Training must
        not continue with such failures, even if the settings allow them: an uninterrupted run would not have them.
        """
        if self._distributed.any_rank(self._hooks.should_stop()):
            if save:
                self._save(i)
            raise Interrupted(f"stopped after iteration {i} of {self._config.iterations}")

    def _advantages(self, i: int, rewards: _GatheredRewards) -> Advantages:
        config = self._config
        scores = rewards.scores
        if config.shuffle_rewards:
            scores = shuffle_within_groups(scores, rewards.valid_mask, rewards.group_keys, offset_seed(config.seed, i))
        return group_advantages(
            scores, rewards.valid_mask, rewards.group_keys, std=config.advantage_std, clip=config.advantage_clip
        )

    def _metrics(self, rewards: _GatheredRewards, advantages: Advantages, stats: UpdateStats) -> dict[str, float]:
        scores = rewards.scores[rewards.valid_mask]
        error = stats.first_ratio_error or 0.0
        if error > RATIO_TOLERANCE and self._config.precision == "fp32":
            log.warning(
                "The likelihood ratio of the first batch differs from 1 by %.1e, because the update does not reproduce the"
                " log-probabilities from sampling.",
                error,
            )
        metrics: dict[str, float] = {}
        if len(scores):
            metrics |= {"reward_mean": float(scores.mean()), "reward_std": float(scores.std(correction=0))}
        metrics |= {
            "zero_spread": advantages.zero_spread / advantages.groups,
            "failed": float(advantages.failed),
            **failures_by_cause(rewards.causes),
            "ratio_error_first": error,
        }
        if stats.count:
            metrics |= {"ratio": stats.ratio / stats.count, "clip_frac": stats.clipped / stats.count}
        if stats.kl_count:
            metrics["kl"] = stats.kl / stats.kl_count
        if stats.grad_norms:
            metrics["grad_norm"] = fmean(stats.grad_norms)
        return metrics

    def _finish_iteration(self, done: int) -> None:
        """Save a checkpoint if one is due, and stop if a hook requests it on any process."""
        stop = self._distributed.any_rank(self._hooks.should_stop())
        if stop or (done % self._config.checkpoint_every == 0 and done < self._config.iterations):
            self._save(done)
        if stop:
            raise Interrupted(f"stopped after iteration {done} of {self._config.iterations}")

    def _save(self, done: int) -> None:
        folder = self._checkpoints / f"iteration-{done:06d}"
        if self._distributed.is_main:
            with span(Span.CHECKPOINT, iteration=done):
                state = TrainingState(done, self._digest, _fixed_settings(self._config), self._history)
                save_checkpoint(folder, self._tuning.weights, self._ema, self._optimizer, state)
                self._hooks.on_checkpoint(folder, done)
            for old in self._checkpoints.glob("iteration-*"):
                if old != folder:
                    shutil.rmtree(old, ignore_errors=True)
        self._distributed.barrier()

    def _resume(self) -> int:
        """Load the checkpoint that the hooks return, if there is one. Return the first iteration to run."""
        folder = self._hooks.find_checkpoint()
        if folder is None:
            return 0
        state = load_checkpoint(folder, self._tuning.weights, self._ema, self._optimizer)
        current = _fixed_settings(self._config)
        for name, value in state.settings.items():
            if current.get(name) != value:
                raise ConfigError(
                    f"{name}: the checkpoint {folder} was made with {value!r}, but the setting is now"
                    f" {current.get(name)!r}; restore the old value or start a new training"
                )
        self._digest, self._history = state.model_digest, state.history
        return state.iteration

    def _export(self) -> None:
        if self._distributed.is_main:
            if self._ema is not None:
                with self._ema.applied(self._tuning.weights):
                    self._tuning.export(self._output)
            else:
                self._tuning.export(self._output)
        self._distributed.barrier()


@dataclass(frozen=True)
class _GatheredRewards:
    """Scores of the samples of all processes, ordered by rank. Each tensor has one entry per sample."""

    sample_ids: Tensor
    group_keys: Tensor
    scores: Tensor
    valid_mask: Tensor
    causes: Counter[str]
    """Number of failures per cause."""


def _load(config: GrpoConfig, editor: str, device: torch.device) -> EditorPolicy:
    return load_policy(
        editor,
        guidance=config.guidance_scale,
        dtype=torch.bfloat16 if config.precision == "bf16-mixed" else torch.float32,
        max_text_tokens=config.max_text_tokens,
        device=device,
    )


def _fixed_settings(config: GrpoConfig) -> dict[str, object]:
    return config.model_dump(mode="json", include=set(SETTINGS_FIXED_ON_RESUME))
