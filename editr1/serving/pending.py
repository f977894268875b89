"""The state of one score request in the reward client, and a function that joins the results of several requests."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from editr1.data.types import FailureCause, ScoreFailure, ScoreItem, ScoreOutcome
from editr1.serving.replicas import Replica

_RETRIED_CAUSES: Final = (FailureCause.ENGINE, FailureCause.OVERLOADED, FailureCause.DEADLINE)


@dataclass
class PendingRequest:
    """The items of one request, their outcomes so far, and the indices of the items that still have to be scored."""

    items: list[ScoreItem]
    num_traces: int
    temperature: float | None
    seed: int | None
    deadline: float
    """Deadline of the request, on the clock of ``time.monotonic``."""
    attempts: int = 0
    tried: set[Replica] = field(default_factory=set)
    last_cause: FailureCause = FailureCause.UNREACHABLE
    last_detail: str = "none, because the request was not sent to any replica"
    """Reason of the last failed attempt, for error messages."""

    def __post_init__(self) -> None:
        self.pending = list(range(len(self.items)))
        self._limit = len(self.items)
        """Maximum number of items per attempt. It is reduced when a replica refuses a request with several items."""
        self._outcomes: dict[int, ScoreOutcome] = {}
        self._retried: set[int] = set()

    def next_items(self) -> list[int]:
        """Return the indices of the items to send in the next attempt."""
        return self.pending[: self._limit]

    def record_refusal(self, sent: Sequence[int], detail: str) -> None:
        """Record that a replica refused the request with the items ``sent``.

        Of several items, any may be the reason, so that they are sent again in smaller requests. A single item fails.
        """
        if len(sent) > 1:
            self._limit = len(sent) // 2
            self.last_cause, self.last_detail = FailureCause.REFUSED, detail
            return
        self.record_results(sent, [ScoreFailure(cause=FailureCause.REFUSED, detail=detail)])

    def record_failed_attempt(self, replica: Replica, cause: FailureCause, detail: str) -> None:
        """Record that ``replica`` did not score the request, and the reason."""
        self.tried.add(replica)
        self.last_cause, self.last_detail = cause, detail

    def record_results(self, sent: Sequence[int], results: Sequence[ScoreOutcome]) -> None:
        """Record the results of the items with indices ``sent``.

        After a transient failure, an item is retried once. An item whose score was refused is retried as often as a response that
        was refused as a whole, that is, until the client has made its last attempt.
        """
        if any(outcome.ok for outcome in results):
            self._limit = max(self._limit, 2 * len(sent))
        for index, outcome in zip(sent, results, strict=True):
            self._outcomes[index] = outcome
            if not isinstance(outcome, ScoreFailure) or not self._is_retried(index, outcome.cause):
                self.pending.remove(index)
                continue
            self._retried.add(index)
            self.last_cause, self.last_detail = outcome.cause, outcome.detail

    def _is_retried(self, index: int, cause: FailureCause) -> bool:
        return cause is FailureCause.BAD_RESPONSE or (cause in _RETRIED_CAUSES and index not in self._retried)

    def fail_pending(self, cause: FailureCause, detail: str, *, keep_failures: bool = False) -> None:
        """Fail all pending items. With ``keep_failures``, an item that has already failed keeps its earlier failure."""
        for index in self.pending:
            if not (keep_failures and index in self._outcomes):
                self._outcomes[index] = ScoreFailure(cause=cause, detail=detail)
        self.pending = []

    def outcomes(self) -> list[ScoreOutcome]:
        """Return one outcome per item, in order. Items that are still pending fail with the last recorded cause."""
        self.fail_pending(
            self.last_cause,
            f"not scored after {self.attempts} attempts; last error: {self.last_detail}",
            keep_failures=True,
        )
        return [self._outcomes[index] for index in range(len(self.items))]


def join_futures(futures: Sequence[Future[list[ScoreOutcome]]]) -> Future[list[ScoreOutcome]]:
    """Join ``futures`` into one future of all outcomes, in order. It fails if one of them failed."""
    joined: Future[list[ScoreOutcome]] = Future()
    joined.set_running_or_notify_cancel()
    remaining = len(futures)
    lock = threading.Lock()

    def finish() -> None:
        try:
            joined.set_result([outcome for future in futures for outcome in future.result()])
        except BaseException as error:
            joined.set_exception(error)

    def on_done(_: Future[list[ScoreOutcome]]) -> None:
        nonlocal remaining
        with lock:
            remaining -= 1
            last = remaining == 0
        if last:
            finish()

    if not futures:
        finish()
    for future in futures:
        future.add_done_callback(on_done)
    return joined
