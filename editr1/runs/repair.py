"""Find damaged records, results, checkpoints and artifacts in a store, and move them aside so that the work can be repeated."""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from editr1.artifacts import ArtifactStore
from editr1.artifacts.errors import ArtifactNotFound, DigestMismatch
from editr1.artifacts.manifest import is_digest
from editr1.artifacts.store import blob_key, manifest_key
from editr1.checksums import load_checked
from editr1.config.loader import ConfigError
from editr1.runs.checkpoints import UNUSABLE, StageCheckpoints
from editr1.runs.claim import BEAT_SECONDS, Holder, newest_claim
from editr1.runs.live import LiveProgress, PodAttempt
from editr1.runs.record import (
    RunRecord,
    RunRecordOfOtherVersion,
    StageResult,
    UnreadableRecord,
    load_record,
    load_result,
    record_key,
)
from editr1.runs.stored import DamagedRecord, RecordOfOtherVersion, read_stored

Kind = Literal["run record", "result", "checkpoint", "claim", "progress", "manifest", "file"]
ASIDE = "damaged/"
"""Prefix of the store keys to which damaged objects are moved."""
_STAGE_FILE = re.compile(r"runs/[^/]+/stages/(?P<stage>[^/]+)/(?P<key>[^/]+)/(?P<name>.+)")
_CHECKPOINT = re.compile(r"checkpoints/[0-9]{9}\.json")
_AGAIN = "the next editr1 run FILE"


@dataclass(frozen=True)
class Damage:
    """A damaged or missing object of a store."""

    kind: Kind
    path: str
    """Store key of the object."""
    problem: str
    """Description of the damage."""
    consequence: str
    """Consequence of moving the object aside, or what the user has to do."""
    can_move: bool = True
    """Whether the object can be moved aside. This is False if it is missing, or if another version of editr1 can read
    it."""


class RunIsExecuted(ConfigError):
    """Damaged objects of a run are not moved while a process executes the run."""


def find_damage(store: ArtifactStore, run: str | None = None) -> list[Damage]:
    """Read the records of a run and every file of its checkpoints, inputs and outputs, and return the damage found.

    Without ``run``, all runs and all artifacts of the store are read.

    Raises:
        ConfigError: the store has no records of ``run``.
        StoreError: the store is unreachable.
    """
    if run is not None and not store.list_records(f"runs/{run}/"):
        raise ConfigError(f"{store.url}: no run named {run!r}; list the runs with: editr1 runs ls --store STORE")
    scan = _Scan(store)
    names = [run] if run else sorted({key.split("/")[1] for key in store.list_records("runs/") if key.count("/") > 1})
    for name in names:
        scan.run(name)
    if run is None:
        for key in store.objects.keys("manifests/sha256/"):
            digest = "sha256:" + key.rpartition("/")[2].removesuffix(".json")
            if is_digest(digest):
                scan.artifact(digest, "store it again with: editr1 artifacts push FOLDER")
    return list(scan.found.values())


def move_aside(store: ArtifactStore, damage: Damage) -> str:
    """Move a damaged object to ``damaged/<key>.<start of its SHA-256>`` in the same store, and return this key."""
    objects, digest, size = store.objects, hashlib.sha256(), 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "object"
        with copy.open("wb") as file:
            for chunk in objects.stream(damage.path) if objects.size(damage.path) else ():
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        target = f"{ASIDE}{damage.path}.{digest.hexdigest()[:12]}"
        objects.put_file(target, copy, size, digest.hexdigest())
    objects.delete(damage.path)
    return target


def check_not_executed(store: ArtifactStore, run: str) -> None:
    """Raise RunIsExecuted if a process executes the run, that is, if its heartbeat changes within two intervals."""
    claim = newest_claim(store, run)
    if claim is None or claim.holder.is_dead():
        return
    count, ended = claim.last_beat()
    deadline = time.monotonic() + 2 * BEAT_SECONDS
    while not ended and time.monotonic() < deadline:
        time.sleep(0.5)
        now, ended = claim.last_beat()
        if now != count and not ended:
            raise RunIsExecuted(f"run {run} is executed by {claim.holder}; stop it, and then repeat the command")


class _Scan:
    """The damage found so far, by store key. Every artifact is read only once."""

    def __init__(self, store: ArtifactStore) -> None:
        self.found: dict[str, Damage] = {}
        self._store = store
        self._complete: dict[str, bool] = {}

    def run(self, run: str) -> None:
        keys = self._store.list_records(f"runs/{run}/")
        record = self._record(run)
        finished = set()
        for key in keys:
            match = _STAGE_FILE.fullmatch(key)
            if match and match["name"] == "result.json":
                stage = match["stage"]
                if (result := self._result(run, stage, match["key"], key)) is not None:
                    finished.add((stage, match["key"]))
                    for digest in result.outputs.values():
                        self.artifact(
                            digest, f"stage {stage} of run {run} runs again with {_AGAIN}, and stores it anew"
                        )
        for key in keys:
            match = _STAGE_FILE.fullmatch(key)
            if match and _CHECKPOINT.fullmatch(match["name"]):
                checkpoints = StageCheckpoints(self._store, run, match["stage"], match["key"])
                self._checkpoint(checkpoints, key, done=(match["stage"], match["key"]) in finished)
            elif match and match["name"] == "live.json":
                self._parse(LiveProgress, "progress", key, "it is only shown by commands, and is written anew")
            elif match and match["name"] == "counts.json":
                self._counts(key)
            elif match and match["name"].startswith("attempts/"):
                self._parse(PodAttempt, "progress", key, "the attempt is no longer counted or shown")
            elif key.startswith(f"runs/{run}/claims/"):
                self._parse(Holder, "claim", key, "the next process that executes the run writes its own claim")
        for stage in record.stages.values() if record else ():
            for name, digest in stage.inputs.items():
                if is_digest(digest):
                    self.artifact(
                        digest,
                        f"stage {stage.name} of run {run} reads it as the input {name}: if another stage made it, that"
                        f" stage runs again with {_AGAIN}; if the run file refers to it with path: or builtin:, {_AGAIN} stores it"
                        " again; otherwise, store it again with: editr1 artifacts push FOLDER",
                    )

    def artifact(self, digest: str, consequence: str) -> bool:
        """Read an artifact, and record its damaged objects. Returns True if the artifact is complete."""
        if digest not in self._complete:
            before = len(self.found)
            self._read_artifact(digest, consequence)
            self._complete[digest] = len(self.found) == before
        return self._complete[digest]

    def _read_artifact(self, digest: str, consequence: str) -> None:
        store = self._store
        try:
            files = {file.path: file.digest for file in store.manifest(digest).files}
        except (ArtifactNotFound, DigestMismatch) as error:
            can_move = not isinstance(error, ArtifactNotFound)
            self._add("manifest", manifest_key(digest), str(error), consequence, can_move=can_move)
            return
        for problem in store.verify(digest):
            key = blob_key(files[problem.path].removeprefix("sha256:"))
            text = f"file {problem.path} of artifact {digest}: {problem.reason}"
            self._add("file", key, text, consequence, can_move=store.objects.size(key) is not None)

    def _record(self, run: str) -> RunRecord | None:
        try:
            return load_record(self._store, run)
        except UnreadableRecord as error:
            problem, key = str(error).splitlines()[0], record_key(run)
            if isinstance(error, RunRecordOfOtherVersion):
                self._add("run record", f"records/{key}", problem, "use that version of editr1", can_move=False)
                return None
            consequence = f"{_AGAIN} writes it anew, without its earlier attempts; finished stages are reused"
            self._add("run record", f"records/{key}", problem, consequence)
            return None

    def _result(self, run: str, stage: str, stage_key: str, key: str) -> StageResult | None:
        try:
            return load_result(self._store, run, stage, stage_key)
        except DamagedRecord as error:
            self._add_record("result", key, error, f"stage {stage} of run {run} runs again with {_AGAIN}")
            return None

    def _checkpoint(self, checkpoints: StageCheckpoints, key: str, *, done: bool) -> None:
        stage = f"stage {checkpoints.stage} of run {checkpoints.run}"
        consequence = (
            f"none: {stage} is done" if done else f"{stage} continues from its newest checkpoint that is complete"
        )
        try:
            digest = checkpoints.check(key).digest
        except UNUSABLE as error:
            self._add_record("checkpoint", key, error, consequence)
            return
        if not self.artifact(digest, consequence):
            self._add("checkpoint", f"records/{key}", f"refers to the damaged artifact {digest}", consequence)

    def _counts(self, key: str) -> None:
        try:
            load_checked(self._store.get_record(key) or b"")
        except ValueError as error:
            self._add("progress", f"records/{key}", str(error), "the counts of requests and tokens start again at 0")

    def _parse(self, kind: type[BaseModel], name: Kind, key: str, consequence: str) -> None:
        try:
            read_stored(self._store, kind, key, remedy="it is ignored")
        except DamagedRecord as error:
            self._add_record(name, key, error, consequence)

    def _add_record(self, kind: Kind, key: str, error: Exception, consequence: str) -> None:
        can_move = not isinstance(error, RecordOfOtherVersion)
        self._add(
            kind,
            f"records/{key}",
            str(error),
            consequence if can_move else "use that version of editr1",
            can_move=can_move,
        )

    def _add(self, kind: Kind, path: str, problem: str, consequence: str, *, can_move: bool = True) -> None:
        problem = problem.removeprefix(f"{self._store.url}: ").removeprefix(f"{path}: ")
        self.found.setdefault(path, Damage(kind, path, problem, consequence, can_move))


def runs_of(damage: list[Damage]) -> Iterator[str]:
    """Yield the name of each run that one of the damaged records belongs to."""
    yield from sorted({item.path.split("/")[2] for item in damage if item.path.startswith("records/runs/")})
