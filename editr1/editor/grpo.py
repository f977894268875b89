"""Flow-GRPO training of an editor on a verifier's scores (arXiv 2604.27505 section 3.3; arXiv 2505.05470)."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import Counter
from pathlib import Path
from statistics import fmean

import torch

from editr1.config.grpo import GrpoConfig
from editr1.config.loader import ConfigError
from editr1.editor.advantages import Advantages, group_advantages, shuffled_in_groups
from editr1.editor.arithmetic import arithmetic
from editr1.editor.cases import CaseOrder
from editr1.editor.checkpoint import TrainingHistory, TrainingState, load_checkpoint, save_checkpoint
from editr1.editor.ema import Ema
from editr1.editor.policies import EditorPolicy, NotFinite, load_policy
from editr1.editor.reward import RewardBudgetSpent, RewardCollector, Rewards, Scorer, check_budget, check_one_model
from editr1.editor.rollout import Chunk
from editr1.editor.sampler import GroupSampler
from editr1.editor.tuning import Tuning
from editr1.editor.update import Updater, UpdateStats
from editr1.parallel.context import DistributedContext
from editr1.seeding import offset_seed
from editr1.telemetry import Interrupted, Span, TrainHooks, span, untraced

log = logging.getLogger(__name__)

RATIO_TOLERANCE = 1e-6
_FIXED = ("seed", "cases_per_iteration", "group_size", "tune", "lora", "steps", "sde")

TRACED = 200
"""About so many of a training's iterations become spans, evenly spread."""


def train_grpo(
    config: GrpoConfig,
    *,
    editor: str | Path,
    cases: Path,
    scorer: Scorer,
    output_dir: Path,
    hooks: TrainHooks | None = None,
) -> dict[str, float]:
    """Train an editor; ``output_dir`` becomes a whole pipeline folder that plain diffusers loads.

    Every process of a torchrun calls this with the same arguments; the first one reports and writes. Checkpoints are
    written beside ``output_dir``, in ``checkpoints/``.

    Args:
        config: the settings.
        editor: pipeline folder or hub name of a FLUX.1-Kontext or Qwen-Image-Edit editor.
        cases: Parquet of ``EditCase`` with principles.
        scorer: index-aligned scores of edits, called from threads.
        output_dir: where the trained pipeline goes.
        hooks: progress, interruption and checkpoints.

    Returns:
        Final figures: ``reward_first`` and ``reward_last`` (means over the first and last up to five iterations),
        ``iterations``, ``failed`` (scores), ``zero_spread`` (share of groups), ``seconds`` (spent in iterations): of
        the whole training, whatever the number of resumes.

    Raises:
        ConfigError: the training diverged, or a setting does not fit the checkpoint.
        RewardBudgetSpent: more scores failed than ``max_failed_share`` allows; RewardUnreachable where the service is gone.
        Interrupted: the hooks asked to stop; a checkpoint was handed to them.
        ValueError: unusable cases, editor or checkpoint, found before any sampling.
    """
    # While one rank waits for its scores, the others wait for that rank in a collective.
    world = DistributedContext.initialize(timeout_s=max(1800.0, config.reward_wait_s + 600.0))
    trainer = _Trainer(config, editor, cases, scorer, output_dir, hooks or TrainHooks(), world)
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
        world: DistributedContext,
    ) -> None:
        self._config, self._hooks, self._world, self._scorer = config, hooks, world, scorer
        self._output = output_dir
        self._checkpoints = output_dir.parent / "checkpoints"
        torch.manual_seed(config.seed)
        self._policy = _load(config, str(editor), world.device)
        self._tuning = Tuning(self._policy, config)
        world.broadcast_parameters(self._tuning.weights)
        self._ema = Ema(self._tuning.weights, config.ema_decay) if config.ema_decay > 0.0 else None
        self._optimizer = torch.optim.AdamW(
            self._tuning.weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._sampler = GroupSampler(self._policy, config)
        self._updater = Updater(
            self._policy, self._tuning, self._optimizer, self._ema, config, self._sampler.settings, world
        )
        self._digest: str | None = None
        self._course = TrainingHistory()
        self._start = self._resume()
        self._order = CaseOrder(
            cases,
            seed=config.seed,
            per_iteration=config.cases_per_iteration,
            iterations=config.iterations,
            first=self._start,
            rank=world.rank,
            size=world.world_size,
        )

    def run(self) -> dict[str, float]:
        config, course = self._config, self._course
        self._hooks.progress.phase("grpo", config.iterations, self._start)
        with RewardCollector(
            self._scorer,
            batch=config.reward_batch,
            concurrency=config.reward_concurrency,
            overlap=config.overlap,
        ) as rewards:
            for i in range(self._start, config.iterations):
                began = time.monotonic()
                try:
                    metrics, advantages = self._iterate(i, rewards)
                except NotFinite as error:
                    raise self._diverged(i, error) from error
                course.reward_means.append(metrics["reward_mean"])
                course.failed += advantages.failed
                course.zero_spread += advantages.zero_spread
                course.groups += advantages.groups
                course.seconds += time.monotonic() - began
                if self._world.is_main:
                    self._hooks.progress.step(1, **metrics)
                self._after(i + 1)
        self._export()
        # A checkpoint of an older version holds no course: what is known of the rest is no figure of the whole.
        whole = len(course.reward_means) == config.iterations
        return {"iterations": float(config.iterations), **(course.figures() if whole else {})}

    def _diverged(self, i: int, error: NotFinite) -> ConfigError:
        config = self._config
        if not self._optimizer.state:
            return ConfigError(f"precision {config.precision}: the editor fails before it learnt anything: {error}")
        rate = f"learning_rate {config.learning_rate:g}"
        return ConfigError(f"{rate}: the training diverged in iteration {i + 1}, {error}; try a smaller one")

    def _iterate(self, i: int, collector: RewardCollector) -> tuple[dict[str, float], Advantages]:
        config = self._config
        device = self._world.device
        every = max(1, config.iterations // TRACED)
        with span(Span.STEP, iteration=i) if i % every == 0 else untraced():
            with span(Span.SAMPLE), arithmetic(device, config.precision):
                chunks = self._sampler.sample(i, self._order.iteration(i), collector)
            with span(Span.REWARD):
                own = collector.collect()
                advantages, rewards = self._advantages(i, chunks, own)
            with span(Span.OPTIMISE), arithmetic(device, config.precision):
                offset = self._world.rank * len(own.ok)
                mine = slice(offset, offset + len(own.ok))
                kept = advantages.kept
                stats = self._updater.update(chunks, advantages.values[mine], kept[mine], int(kept.sum()))
        return self._metrics(rewards, advantages, stats), advantages

    def _advantages(self, i: int, chunks: list[Chunk], own: Rewards) -> tuple[Advantages, Rewards]:
        """Advantages of all processes' samples; every process has the same number of them."""
        gather = self._world.all_gather
        causes: Counter[str] = Counter()
        digests: set[str] = set()
        for text in self._world.all_gather_text(json.dumps([own.causes, sorted(own.digests)])):
            counted, seen = json.loads(text)
            causes.update(counted)
            digests |= set(seen)
        rewards = Rewards(
            scores=torch.cat(gather(own.scores)),
            ok=torch.cat(gather(own.ok.to(torch.uint8))).bool(),
            causes=causes,
            digests=frozenset(digests),
        )
        self._digest = check_one_model(self._digest, rewards.digests)
        try:
            check_budget(int((~rewards.ok).sum()), len(rewards.ok), self._config.max_failed_share, causes)
        except RewardBudgetSpent:
            self._save(i)
            if self._world.any_rank(
                self._hooks.should_stop()
            ):  # the service went first, or its answer was not waited for
                raise Interrupted(f"stopped after iteration {i} of {self._config.iterations}") from None
            raise
        keys = torch.cat(gather(torch.cat([chunk.groups for chunk in chunks])))
        scores = rewards.scores
        if self._config.shuffle_rewards:
            scores = shuffled_in_groups(scores, rewards.ok, keys, offset_seed(self._config.seed, i))
        return (
            group_advantages(
                scores,
                rewards.ok,
                keys,
                std=self._config.advantage_std,
                clip=self._config.advantage_clip,
            ),
            rewards,
        )

    def _metrics(self, rewards: Rewards, advantages: Advantages, stats: UpdateStats) -> dict[str, float]:
        scores = rewards.scores[rewards.ok]
        count = max(stats.count, 1)
        error = stats.first_ratio_error or 0.0
        if error > RATIO_TOLERANCE and self._config.precision == "fp32":
            log.warning("ratio is off by %.1e on the first micro-batch: replay does not match sampling", error)
        metrics = {
            "reward_mean": float(scores.mean()) if len(scores) else float("nan"),
            "reward_std": float(scores.std(correction=0)) if len(scores) else float("nan"),
            "zero_spread": advantages.zero_spread / advantages.groups,
            "failed": float(advantages.failed),
            "ratio": stats.ratio / count if stats.count else 1.0,
            "ratio_error_first": error,
            "clip_frac": stats.clipped / count,
            "kl": stats.kl / count,
        }
        if stats.grad_norms:
            metrics["grad_norm"] = fmean(stats.grad_norms)
        return metrics

    def _after(self, done: int) -> None:
        stop = self._world.any_rank(self._hooks.should_stop())
        if stop or (done % self._config.checkpoint_every == 0 and done < self._config.iterations):
            self._save(done)
        if stop:
            raise Interrupted(f"stopped after iteration {done} of {self._config.iterations}")

    def _save(self, done: int) -> None:
        folder = self._checkpoints / f"iteration-{done:06d}"
        if self._world.is_main:
            with span(Span.CHECKPOINT, iteration=done):
                state = TrainingState(done, self._digest, _fixed(self._config), self._course)
                save_checkpoint(folder, self._tuning.weights, self._ema, self._optimizer, state)
                self._hooks.on_checkpoint(folder, done)
            for old in self._checkpoints.glob("iteration-*"):
                if old != folder:
                    shutil.rmtree(old, ignore_errors=True)
        self._world.barrier()

    def _resume(self) -> int:
        folder = self._hooks.resume_from
        if folder is None:
            return 0
        state = load_checkpoint(folder, self._tuning.weights, self._ema, self._optimizer)
        fixed = _fixed(self._config)
        for name, value in state.settings.items():
            if fixed.get(name) != value:
                raise ConfigError(
                    f"{folder}: {name} was {value!r}, now {fixed.get(name)!r}; a training keeps its {name}"
                )
        self._digest, self._course = state.model_digest, state.course
        return state.iteration

    def _export(self) -> None:
        if self._world.is_main:
            if self._ema is not None:
                with self._ema.applied(self._tuning.weights):
                    self._tuning.export(self._output)
            else:
                self._tuning.export(self._output)
        self._world.barrier()


def _load(config: GrpoConfig, editor: str, device: torch.device) -> EditorPolicy:
    return load_policy(
        editor,
        guidance=config.guidance,
        dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
        max_text_tokens=config.max_text_tokens,
        device=device,
    )


def _fixed(config: GrpoConfig) -> dict[str, object]:
    return config.model_dump(mode="json", include=set(_FIXED))
