"""Scores for samples, fetched while the next ones are drawn. A failed score is masked and counted, never a number."""

from __future__ import annotations

import contextvars
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import torch
from PIL import Image
from torch import Tensor

from editr1.data.images import encode_png
from editr1.data.types import EditCase, EncodedImage, FailureCause, ScoreItem, ScoreOutcome
from editr1.errors import Editr1Error, ExitCode

Scorer = Callable[[Sequence[ScoreItem]], Sequence[ScoreOutcome]]


class RewardBudgetSpent(Editr1Error, RuntimeError):
    """Too many scores failed; the stage exits with 4. ``failed`` of ``total``, ``causes`` by name."""

    exit_code = ExitCode.REWARD_BUDGET

    def __init__(self, failed: int, total: int, allowed: float, causes: Mapping[str, int]) -> None:
        self.failed, self.total, self.causes = failed, total, dict(causes)
        reasons = ", ".join(f"{cause}: {n}" for cause, n in sorted(causes.items()))
        super().__init__(
            f"{failed} of {total} scores failed ({failed / total:.0%}), allowed are {allowed:.0%}; {reasons}"
        )


class RewardUnreachable(RewardBudgetSpent):
    """Most of the scores that failed did so because no server could be reached: another attempt may find one."""

    exit_code = ExitCode.TRANSIENT


class RewardModelChanged(Editr1Error, RuntimeError):
    """Scores of one training came from two verifiers."""

    exit_code = ExitCode.INPUT


@dataclass(frozen=True)
class Edit:
    """A sample to be scored: the case, its source as shown to the verifier, and the edited picture."""

    case: EditCase
    source: EncodedImage
    edited: Image.Image


@dataclass(frozen=True)
class Rewards:
    """``scores`` ``[N]`` float64 (NaN where not ``ok``), ``ok`` ``[N]``, causes of failures, the verifier's digests."""

    scores: Tensor
    ok: Tensor
    causes: Counter[str]
    digests: frozenset[str]


class RewardCollector:
    """Sends edits to a scorer from threads and puts the outcomes back in order. Use it as a context manager.

    ``batch`` is the most edits a call, ``concurrency`` the most calls at once. ``overlap`` False holds every call back
    until :meth:`collect`, to measure what overlapping gains.
    """

    def __init__(self, scorer: Scorer, *, batch: int = 32, concurrency: int = 4, overlap: bool = True) -> None:
        self._scorer = scorer
        self._batch = batch
        self._overlap = overlap
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="reward")
        self._held: list[tuple[int, Sequence[Edit]]] = []
        self._running: list[tuple[int, int, Future[Sequence[ScoreOutcome]]]] = []
        self._submitted = 0

    def __enter__(self) -> RewardCollector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def submit(self, edits: Sequence[Edit]) -> None:
        """Queue edits; their rewards follow in order of submission."""
        for at in range(0, len(edits), self._batch):
            part = edits[at : at + self._batch]
            if self._overlap:
                self._start(self._submitted, part)
            else:
                self._held.append((self._submitted, part))
            self._submitted += len(part)

    def collect(self) -> Rewards:
        """Wait for everything submitted since the last call.

        Raises:
            ValueError: the scorer answered with another number of outcomes than it was given edits.
            Exception: whatever the scorer raised; failures that it expects are outcomes, not exceptions.
        """
        for at, part in self._held:
            self._start(at, part)
        scores = torch.full((self._submitted,), float("nan"), dtype=torch.float64)
        ok = torch.zeros(self._submitted, dtype=torch.bool)
        causes: Counter[str] = Counter()
        digests: set[str] = set()
        running, self._running, self._held, self._submitted = self._running, [], [], 0
        for at, size, future in running:
            outcomes = future.result()
            if len(outcomes) != size:
                raise ValueError(f"the scorer answered {len(outcomes)} outcomes for {size} edits")
            for i, outcome in enumerate(outcomes, start=at):
                if outcome.ok:
                    scores[i], ok[i] = outcome.score, True
                    digests.add(outcome.model_digest)
                else:
                    causes[outcome.cause.value] += 1
        return Rewards(scores, ok, causes, frozenset(digests))

    def _start(self, at: int, part: Sequence[Edit]) -> None:
        context = contextvars.copy_context()
        self._running.append((at, len(part), self._pool.submit(context.run, self._score, part)))

    def _score(self, part: Sequence[Edit]) -> Sequence[ScoreOutcome]:
        return self._scorer(
            [
                ScoreItem(
                    source=edit.source,
                    edited=EncodedImage(data=encode_png(edit.edited)),
                    instruction=edit.case.instruction,
                    principles=edit.case.principles,
                )
                for edit in part
            ]
        )


def check_budget(failed: int, total: int, allowed: float, causes: Mapping[str, int]) -> None:
    """Raise :class:`RewardBudgetSpent` when more than the share ``allowed`` of ``total`` scores failed.

    :class:`RewardUnreachable` where most of the failures are those of a service that did not answer.
    """
    if total and failed > allowed * total:
        gone = 2 * causes.get(FailureCause.UNREACHABLE, 0) > failed
        raise (RewardUnreachable if gone else RewardBudgetSpent)(failed, total, allowed, causes)


def check_one_model(known: str | None, digests: frozenset[str]) -> str | None:
    """The digest of the run's verifier; :class:`RewardModelChanged` when scores came from another one."""
    seen = digests | ({known} if known else set())
    if len(seen) > 1:
        raise RewardModelChanged(f"scores of one training came from several verifiers: {', '.join(sorted(seen))}")
    return next(iter(seen), None)
