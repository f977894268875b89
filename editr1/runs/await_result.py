"""Search the store repeatedly for the result of a stage whose process reported success."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from editr1.artifacts import ArtifactStore
from editr1.runs.record import StageResult, load_complete_result

RESULT_SECONDS = 30.0
"""Maximum time in seconds to wait for the result of a stage that ended with exit code 0. Caches and network file
systems can return a state of the store that is some seconds old.
"""
POLL_SECONDS = 1.0

log = logging.getLogger("editr1.runs")


def await_result(
    store: ArtifactStore,
    run: str,
    stage: str,
    key: str,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> StageResult | None:
    """Return the complete result of a stage; None if the store does not contain it within :data:`RESULT_SECONDS`.

    If ``should_stop`` returns True, the search ends after the read that is in progress. Raises DamagedRecord if the result is damaged.
    """
    deadline = time.monotonic() + RESULT_SECONDS
    reported = False
    while True:
        result = load_complete_result(store, run, stage, key)
        if result is not None or should_stop() or time.monotonic() > deadline:
            return result
        if not reported:
            reported = True
            log.warning(
                "stage %s of run %s ended with exit code 0, but its result is not in the store; looking again for up to %.0f s",
                stage,
                run,
                RESULT_SECONDS,
            )
        time.sleep(POLL_SECONDS)
