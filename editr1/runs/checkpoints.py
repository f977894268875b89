"""Write the checkpoints of a stage to the artifact store, and select the checkpoint from which training continues.

A checkpoint is an artifact. A record ``checkpoints/<step>.json`` below the stage's prefix refers to it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from editr1.artifacts import ArtifactStore
from editr1.artifacts.errors import ArtifactNotFound, DigestMismatch
from editr1.artifacts.manifest import Digest, Manifest
from editr1.parallel.context import DistributedContext
from editr1.runs.record import stage_prefix
from editr1.runs.stored import DamagedRecord, dump_stored, read_stored, warn_once

UNUSABLE = (DamagedRecord, ArtifactNotFound, DigestMismatch)
"""Exceptions which indicate that a checkpoint is damaged, incomplete or from a different training. All others, such
as an outage, may be temporary."""
_NAME = re.compile(r"[0-9]{9}\.json")

log = logging.getLogger("editr1.runs")


class CheckpointRecord(BaseModel):
    """Record of one checkpoint of a stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: Annotated[int, Field(ge=0)]
    """Number of finished training steps."""
    digest: Digest
    """Digest of the checkpoint artifact."""


@dataclass(frozen=True)
class StageCheckpoints:
    """The checkpoints of one stage.

    ``key`` is the stage's key, which the manifest of every checkpoint must contain.
    """

    store: ArtifactStore
    run: str
    stage: str
    key: str

    @property
    def prefix(self) -> str:
        """Prefix of the store keys of the checkpoint records."""
        return stage_prefix(self.run, self.stage, self.key) + "checkpoints/"

    def add(self, step: int, digest: str) -> None:
        """Write a record for the checkpoint ``digest``, which must already be in the store."""
        record = CheckpointRecord(step=step, digest=digest)
        self.store.put_record(f"{self.prefix}{step:09d}.json", dump_stored(record))

    def names(self) -> list[str]:
        """Return the store keys of the checkpoint records, newest first. Files with other names are ignored."""
        found = (
            name for name in self.store.list_records(self.prefix) if _NAME.fullmatch(name.removeprefix(self.prefix))
        )
        return sorted(found, reverse=True)

    def newest(self) -> str | None:
        """Return the store key of the newest checkpoint record, which may be damaged; None if there is none yet."""
        return next(iter(self.names()), None)

    def check(self, name: str) -> Manifest:
        """Return the manifest of the checkpoint to which the record ``name`` refers. The files of the checkpoint are not read.

        Raises:
            DamagedRecord: the record is damaged, or its checkpoint belongs to a different training.
            ArtifactNotFound: the record, the manifest or a file of the checkpoint is missing or too short.
            DigestMismatch: the manifest is damaged.
        """
        where = f"{self.store.url}: records/{name}"
        record = read_stored(self.store, CheckpointRecord, name, remedy="remove it")
        if record is None:
            raise ArtifactNotFound(f"{where}: the record of the checkpoint does not exist")
        if name != f"{self.prefix}{record.step:09d}.json":
            raise DamagedRecord(
                f"{where}: the record is for step {record.step}, which differs from the step in its name; "
                "remove the record"
            )
        manifest = self.store.manifest(record.digest)
        if (manifest.kind, manifest.config_digest) != ("checkpoint", self.key):
            raise DamagedRecord(
                f"{where}: refers to a {manifest.kind} of the stage with the key {manifest.config_digest or '(none)'},"
                f" but this stage has the key {self.key}; remove the record"
            )
        if reason := self.store.missing(record.digest):
            raise ArtifactNotFound(reason)
        return manifest

    def fetch_newest(self, folder: Path, *, chooser: DistributedContext | None = None) -> ChosenCheckpoint:
        """Download the newest complete checkpoint of this training.

        A warning is logged for each newer checkpoint that cannot be used. With several ranks, every rank calls this
        function, rank 0 chooses, and all ranks get the same checkpoint.

        Args:
            folder: folder of this rank, in which a subfolder for the checkpoint is created.
            chooser: process group of the ranks; None if there is only one.

        Raises:
            StoreError: the store is unreachable.
        """
        group = chooser or DistributedContext()
        newest = self.newest() if group.is_main else None
        usable = self._usable() if group.is_main else iter(())
        while True:
            name, digest = group.all_gather_text(" ".join(next(usable, ("none", "none"))))[0].split()
            if name == "none":
                if newest is not None:
                    log.warning(
                        "stage %s: none of its checkpoints can be used; training starts from the beginning", self.stage
                    )
                return ChosenCheckpoint(None, group.any_rank(newest is not None))
            target, failed = folder / digest.removeprefix("sha256:")[:16], False
            try:
                self.store.fetch(digest, target)
            except UNUSABLE as error:
                failed = True
                self._pass_over(name, error)
            if not group.any_rank(failed):
                return ChosenCheckpoint(target, group.any_rank(newest not in (None, name)))

    def _usable(self) -> Iterator[tuple[str, str]]:
        """Yield the record and the digest of each checkpoint that passes :meth:`check`, newest first."""
        for name in self.names():
            try:
                yield name, self.check(name).digest
            except UNUSABLE as error:
                self._pass_over(name, error)

    def _pass_over(self, name: str, error: Exception) -> None:
        warn_once(f"{self.store.url}: records/{name}: this checkpoint cannot be used and is skipped: {error}")


@dataclass(frozen=True)
class ChosenCheckpoint:
    """The selected checkpoint.

    ``folder`` is None if there is none. ``passed_over`` is True if a newer checkpoint could not be used.
    """

    folder: Path | None
    passed_over: bool
