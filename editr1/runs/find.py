"""Find the records of runs: in one store, or in the stores beside run folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.store import store_at
from editr1.runs.record import RunRecord, refreshed


def find_records(folder: Path, store: str | None) -> list[RunRecord]:
    """Every run record of ``store``, or of the run folders below ``folder``; newest first."""
    records = []
    for opened in _stores(folder, store):
        for key in opened.list_records("runs/"):
            if key.count("/") == 2 and key.endswith("/record.json"):
                data = opened.get_record(key)
                if data is not None:
                    records.append(refreshed(RunRecord.model_validate_json(data), opened))
    return sorted(records, key=lambda record: record.created, reverse=True)


def _stores(folder: Path, store: str | None) -> Iterator[ArtifactStore]:
    if store is not None:
        yield open_store(store_at(store))
        return
    for path in sorted(folder.glob("*/store")):
        yield open_store(store_at(path.resolve().as_uri()))
