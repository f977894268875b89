"""Score edited images asynchronously with the verifier.

If scoring fails, the sample is masked and counted; a failure is never replaced with a number.
"""

from __future__ import annotations

import contextvars
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import torch
from PIL import Image
from torch import Tensor

from editr1.data.images import encode_png
from editr1.data.types import EditCase, EncodedImage, FailureCause, ScoreItem, ScoreOutcome, outcomes_fault
from editr1.errors import Editr1Error, ExitCode

Scorer = Callable[[Sequence[ScoreItem]], Sequence[ScoreOutcome]]
_REFUSED: Final = (FailureCause.REFUSED, FailureCause.INVALID)


class RewardBudgetExceeded(Editr1Error, RuntimeError):
    """Scoring failed for a larger fraction of samples than ``max_failed_fraction``. The stage exits with code 4.

    Attributes:
        failed: Number of samples in the iteration whose scoring failed.
        total: Number of samples in the iteration.
        causes: Number of failures per cause.
    """

    exit_code = ExitCode.REWARD_BUDGET
    advice = "Check the reward service, or raise max_failed_fraction"
    """What to do, for the message."""

    def __init__(self, failed: int, total: int, allowed: float, causes: Mapping[str, int], first: str = "") -> None:
        self.failed, self.total, self.causes = failed, total, dict(causes)
        reasons = ", ".join(f"{cause}: {n}" for cause, n in sorted(causes.items()))
        super().__init__(
            f"{failed} of {total} scores failed ({failed / total:.0%}), but at most {allowed:.0%} may fail;"
            f" failures by cause: {reasons}. {self.advice}" + (f". The first failure: {first}" if first else "")
        )


class RewardUnreachable(RewardBudgetExceeded):
    """Scoring failed too often, mostly because no reward server could be reached. A retry of the stage may succeed."""

    exit_code = ExitCode.TRANSIENT


class RewardRefused(RewardBudgetExceeded):
    """The reward service refused every sample. The same request would be refused again."""

    exit_code = ExitCode.CONFIG
    advice = (
        "Check that the address is that of a reward server of this version, that access to it is allowed, and that its limits"
        " allow the edits of this stage; editr1 check-reward tests the server"
    )


class RewardModelChanged(Editr1Error, RuntimeError):
    """The scores of one training run came from more than one verifier."""

    exit_code = ExitCode.INPUT


@dataclass(frozen=True)
class EditedSample:
    """An edited image to be scored, with its sample id, its edit case, and the source image to send to the verifier."""

    sample_id: int
    case: EditCase
    source: EncodedImage
    edited: Image.Image


@dataclass(frozen=True)
class Rewards:
    """Scores of the submitted samples, in order of submission.

    Attributes:
        sample_ids: ``[N]`` int64 ids of the samples.
        scores: ``[N]`` fp64, NaN where scoring failed.
        valid_mask: ``[N]`` bool, False where scoring failed.
        causes: Number of failures per cause.
        digests: Digests of the verifier models that returned the scores.
        first_failure: Reason why scoring of the first failed sample failed, shortened; empty if none failed.
    """

    sample_ids: Tensor
    scores: Tensor
    valid_mask: Tensor
    causes: Counter[str]
    digests: frozenset[str]
    first_failure: str = ""


class RewardCollector:
    """Collector that scores samples in background threads while sampling continues. Use it as a context manager.

    Args:
        scorer: Function that scores edited images. It returns one outcome per image, in the same order, and must be
            thread-safe.
        batch_size: Maximum number of samples per call of ``scorer``.
        concurrency: Maximum number of concurrent calls.
        overlap: If False, scoring starts only in :meth:`collect`. This serves to measure the benefit of overlapping.
    """

    def __init__(self, scorer: Scorer, *, batch_size: int = 32, concurrency: int = 4, overlap: bool = True) -> None:
        self._scorer = scorer
        self._batch_size = batch_size
        self._overlap = overlap
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="reward")
        self._deferred: list[Sequence[EditedSample]] = []
        self._running: list[tuple[list[int], Future[Sequence[ScoreOutcome]]]] = []

    def __enter__(self) -> RewardCollector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def submit(self, samples: Sequence[EditedSample]) -> None:
        """Queue samples for scoring."""
        for at in range(0, len(samples), self._batch_size):
            part = samples[at : at + self._batch_size]
            if self._overlap:
                self._start(part)
            else:
                self._deferred.append(part)

    def collect(self) -> Rewards:
        """Wait for the scores of all samples submitted since the last call, and return them in order of submission.

        Raises:
            ValueError: The scorer did not return one outcome per sample, or the outcomes of other samples.
            Exception: Any exception that the scorer raised. Expected failures are outcomes, not exceptions.
        """
        for part in self._deferred:
            self._start(part)
        running, self._running, self._deferred = self._running, [], []
        sample_ids = [sample_id for ids, _ in running for sample_id in ids]
        outcomes: list[ScoreOutcome] = []
        for _, future in running:
            outcomes += future.result()
        return Rewards(
            sample_ids=torch.tensor(sample_ids, dtype=torch.int64),
            scores=torch.tensor([o.score if o.ok else float("nan") for o in outcomes], dtype=torch.float64),
            valid_mask=torch.tensor([o.ok for o in outcomes], dtype=torch.bool),
            causes=Counter(o.cause.value for o in outcomes if not o.ok),
            digests=frozenset(o.model_digest for o in outcomes if o.ok),
            first_failure=next((o.detail[:300] for o in outcomes if not o.ok), ""),
        )

    def _start(self, samples: Sequence[EditedSample]) -> None:
        context = contextvars.copy_context()  # This makes the current OpenTelemetry span the parent of the request.
        future = self._pool.submit(context.run, self._score, samples)
        self._running.append(([sample.sample_id for sample in samples], future))

    def _score(self, samples: Sequence[EditedSample]) -> Sequence[ScoreOutcome]:
        items = [
            ScoreItem(
                source=sample.source,
                edited=EncodedImage(data=encode_png(sample.edited)),
                instruction=sample.case.instruction,
                principles=sample.case.principles,
            )
            for sample in samples
        ]
        outcomes = self._scorer(items)
        if fault := outcomes_fault(items, outcomes):
            raise ValueError(f"the scorer did not return the outcomes of the samples: {fault}")
        return outcomes


def check_budget(failed: int, total: int, allowed: float, causes: Mapping[str, int], first: str = "") -> None:
    """Check that scoring failed for at most the fraction ``allowed`` of ``total`` samples.

    ``first`` is the reason of the first failure, for the error message.

    Raises:
        RewardUnreachable: Scoring failed too often, mostly because the reward service could not be reached.
        RewardRefused: Scoring failed for all samples, because the reward service refused them.
        RewardBudgetExceeded: Scoring failed too often for other reasons.
    """
    if total and failed > allowed * total:
        kind = RewardBudgetExceeded
        if 2 * causes.get(FailureCause.UNREACHABLE, 0) > failed:
            kind = RewardUnreachable
        elif failed == total and sum(causes.get(cause, 0) for cause in _REFUSED) == failed:
            kind = RewardRefused
        raise kind(failed, total, allowed, causes, first)


def check_one_model(previous: str | None, digests: frozenset[str]) -> str | None:
    """Check that all scores of a training run come from one verifier model.

    Args:
        previous: Digest of the model that returned the earlier scores; None if there are none.
        digests: Digests of the models that returned the new scores.

    Returns:
        The digest of the model, or None if there is no score yet.

    Raises:
        RewardModelChanged: The scores came from more than one verifier.
    """
    seen = digests | ({previous} if previous else set())
    if len(seen) > 1:
        raise RewardModelChanged(
            f"the scores of one training run came from several verifiers: {', '.join(sorted(seen))};"
            " serve one model for the whole run"
        )
    return next(iter(seen), None)
