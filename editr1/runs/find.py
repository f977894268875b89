"""Find artifact stores and the records of the runs in them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig, store_at
from editr1.runs.kinds import Kind
from editr1.runs.record import RunRecord, State, load_record, load_result, parse_record, record_key, refreshed

log = logging.getLogger("editr1.runs")


def find_records(folder: Path, store: ArtifactStore | None) -> list[RunRecord]:
    """Return all run records in ``store`` or, if it is None, in the run folders below ``folder``, newest first.

    Records that cannot be read are skipped with a warning.
    """
    records = []
    for opened in _stores(folder, store):
        for key in opened.list_records("runs/"):
            if key.count("/") == 2 and key.endswith("/record.json"):
                data = opened.get_record(key)
                if data is None:
                    continue
                try:
                    record = parse_record(data, f"{opened.url}: records/{key}", key.split("/")[1])
                except ConfigError as error:
                    log.warning("skipped a run record that cannot be read: %s", str(error).splitlines()[0])
                    continue
                records.append(refreshed(record, opened))
    return sorted(records, key=lambda record: record.created, reverse=True)


def find_record(folder: Path, store: ArtifactStore | None, run: str) -> RunRecord | None:
    """Return the record of ``run`` in ``store`` or, if it is None, in the run folders below ``folder``; None if there is none.

    Raises UnreadableRecord if this version of editr1 cannot read the record.
    """
    found = find_record_and_store(folder, store, run)
    return found[0] if found else None


def find_record_and_store(
    folder: Path, store: ArtifactStore | None, run: str
) -> tuple[RunRecord, ArtifactStore] | None:
    """Return what :func:`find_record` returns, and the store that contains it."""
    for opened in _stores(folder, store):
        if (record := load_record(opened, run)) is not None:
            return _with_missing(refreshed(record, opened), opened), opened
    return None


def _with_missing(record: RunRecord, store: ArtifactStore) -> RunRecord:
    """Update the missing items in a record.

    The operator does not write them, and a partial result may have been accepted after the record was written.
    """
    for stage in record.stages.values():
        if stage.state is State.DONE and stage.kind in (Kind.CURATE, Kind.EVALUATE):
            try:
                result = load_result(store, record.name, stage.name, stage.key)
            except ConfigError as error:
                log.warning("the result of stage %s cannot be read: %s", stage.name, str(error).splitlines()[0])
                continue
            if result is not None:
                stage.missing = result.missing
    return record


def parse_store(text: str) -> StoreConfig:
    """Return the settings of a store from its URL or folder. The store need not exist. An invalid URL raises ConfigError."""
    return store_at(text if "://" in text else Path(text).resolve().as_uri())


def open_existing_store(text: str) -> ArtifactStore:
    """Open the store at a URL or in a folder. Raises ConfigError if the folder does not contain a store."""
    config = parse_store(text)
    if config.folder is not None and not any((config.folder / part).is_dir() for part in ("manifests", "records")):
        problem = (
            "the folder is not an artifact store, because it has neither manifests nor records"
            if config.folder.is_dir()
            else "no such folder"
        )
        raise ConfigError(f"store {text!r}: {problem}; give file:///path, s3://bucket/prefix or a folder")
    return open_store(config)


def run_folder(folder: Path, run: str) -> Path | None:
    """Return the folder of a run, or None if there is none.

    It is the folder ``<folder>/<run>`` if that contains a store. Otherwise, it is a folder whose store has a record of the run.
    """
    key = record_key(run)
    if (folder / run / "store").is_dir():
        return folder / run
    return next((path for path, store in _run_folders(folder) if store.get_record(key) is not None), None)


def _stores(folder: Path, store: ArtifactStore | None) -> Iterator[ArtifactStore]:
    if store is not None:
        yield store
        return
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such folder; set --runs-dir to the folder that contains the runs, or --store to an artifact store"
        )
    yield from (opened for _, opened in _run_folders(folder))


def _run_folders(folder: Path) -> Iterator[tuple[Path, ArtifactStore]]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if not (path / "store").is_dir():
                continue
        except PermissionError as error:
            log.warning("%s: skipped, because it cannot be read: %s", path, error.strerror)
            continue
        yield path, open_store(parse_store(str(path / "store")))
