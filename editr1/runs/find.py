"""Find the records of runs: in one store, or in the stores beside run folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.loader import ConfigError
from editr1.config.store import store_at
from editr1.runs.record import RunRecord, parse_record, refreshed

log = logging.getLogger("editr1.runs")


def find_records(folder: Path, store: str | None) -> list[RunRecord]:
    """Every run record of ``store``, or of the run folders below ``folder``; newest first.

    One that cannot be read is named in the log and left out.
    """
    records = []
    for opened in _stores(folder, store):
        for key in opened.list_records("runs/"):
            if key.count("/") == 2 and key.endswith("/record.json"):
                data = opened.get_record(key)
                if data is None:
                    continue
                try:
                    record = parse_record(data, f"{opened.url}: {key}")
                except ConfigError as error:
                    log.warning("left out: %s", str(error).splitlines()[0])
                    continue
                records.append(refreshed(record, opened))
    return sorted(records, key=lambda record: record.created, reverse=True)


def _stores(folder: Path, store: str | None) -> Iterator[ArtifactStore]:
    if store is not None:
        yield open_store(store_at(store))
        return
    for path in sorted(folder.glob("*/store")):
        yield open_store(store_at(path.resolve().as_uri()))
