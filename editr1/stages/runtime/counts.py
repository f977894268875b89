"""Counts of a stage, such as requests and tokens, which include all attempts of the stage, even attempts on other machines."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from editr1.artifacts import StoreError
from editr1.runs.record import stage_prefix
from editr1.stages.runtime.context import StageContext

log = logging.getLogger("editr1.stage")


@contextmanager
def counts_file(context: StageContext) -> Iterator[Path]:
    """Yield the path of the file in which the stage saves its counts.

    The file need not exist yet. If it is not on this machine, the copy of an earlier attempt is downloaded. While the
    context is entered, the file is copied to the store every ``publish_seconds`` if it has changed. An outage of the
    store does not stop the stage.
    """
    job = context.job
    file = context.workdir / f"counts-{job.key[:12]}.json"
    key = stage_prefix(job.run, job.stage, job.key) + "counts.json"
    if not file.exists() and (data := context.store.get_record(key)) is not None:
        file.write_bytes(data)
    stop, stored, direct = threading.Event(), b"", context.store.without_waiting()

    def copy() -> None:
        nonlocal stored
        data = file.read_bytes() if file.exists() else b""
        if data == stored:
            return
        try:
            direct.put_record(key, data)
            stored = data
        except StoreError as error:
            log.warning("the counts of requests and tokens could not be stored and will be stored later: %s", error)

    def repeat() -> None:
        while not stop.wait(job.runtime.publish_seconds):
            copy()

    thread = threading.Thread(target=repeat, name="editr1-counts", daemon=True)
    thread.start()
    try:
        yield file
    finally:
        stop.set()
        thread.join()
        copy()
