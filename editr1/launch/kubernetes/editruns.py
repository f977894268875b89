"""Runs that belong to the cluster: EditRun resources, made and watched from a laptop. The operator takes them on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from editr1.artifacts import ArtifactStore, StoreError
from editr1.config.loader import validate
from editr1.durations import parse_timestamp
from editr1.launch.kubernetes.errors import ClusterError, ClusterUnreachable
from editr1.launch.kubernetes.namespace import ClusterNamespace
from editr1.launch.kubernetes.outage import OutageTolerance
from editr1.launch.kubernetes.resources import EDITRUN
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus, stage_record
from editr1.launch.observer import Observer
from editr1.launch.orchestrator import StageFailed
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.live import LiveFiles
from editr1.runs.record import StageRecord
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.resolve import resolve_reference
from editr1.runs.spec import API_VERSION, RunBody, RunSpec

REVISION_NOTE = "editr1.dev/git-revision"
COMMAND_NOTE = "editr1.dev/command"
POLL_SECONDS = 1.0
PROGRESS_SECONDS = 2.0
GONE_SECONDS = 120.0
TAKEN_SECONDS = 15.0
UNTAKEN = "no operator has taken it on yet; is one running, and does it watch this namespace?"
_OVER = (RunState.DONE, RunState.FAILED)


@dataclass(frozen=True)
class EditRun:
    """A run of the cluster."""

    name: str
    created: float
    spec: RunBody
    status: RunStatus

    @property
    def over(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.status.state in _OVER


class EditRuns:
    """The EditRuns of one namespace."""

    def __init__(self, api: ClusterNamespace) -> None:
        self._api = api

    def served(self) -> bool:
        """Whether the cluster knows the resource."""
        return not self._api.client.missing_kinds([EDITRUN])

    def get(self, name: str) -> EditRun | None:
        """A run by name; None where there is none, or the cluster does not know the resource."""
        body = self._api.get(EDITRUN, name)
        return None if body is None else _parsed(body)

    def all(self) -> list[EditRun]:
        """Every run of the namespace, oldest first."""
        return sorted((_parsed(item) for item in self._api.find(EDITRUN)), key=lambda run: run.created)

    def apply(self, spec: RunSpec, notes: Mapping[str, str]) -> bool:
        """Make the run; one that is there already is joined, one that failed is made anew. Returns whether it was made.

        Raises:
            ClusterError: a run of that name is there that is to do something else, or the cluster refuses this one.
        """
        name = spec.metadata.name
        known = self.get(name)
        if known is not None and known.status.state is not RunState.FAILED:
            if _same(known.spec, spec.spec):
                return False
            raise ClusterError(
                f"run {name!r} is there already and does something else; choose another name, or editr1 cancel {name}"
            )
        if known is not None:
            self.delete(name)
        body = {
            "apiVersion": API_VERSION,
            "kind": EDITRUN,
            "metadata": {"name": name, "labels": dict(spec.metadata.labels), "annotations": dict(notes)},
            "spec": spec.spec.model_dump(mode="json", exclude_unset=True),
        }
        self._api.create(body)
        return True

    def suspend(self, name: str, suspended: bool) -> None:
        """Hold the run, or let it go on."""
        self._api.patch(EDITRUN, name, {"spec": {"suspend": suspended}})

    def delete(self, name: str) -> None:
        """Remove the run and, with it, all that it made; returns when it is gone."""
        self._api.delete(EDITRUN, name)
        end = time.monotonic() + GONE_SECONDS
        while self.get(name) is not None:
            if time.monotonic() > end:
                raise ClusterError(f"run {name!r} is still being removed after {GONE_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)


def uploaded(spec: RunSpec, store: ArtifactStore) -> RunSpec:
    """``spec`` with the folders of this machine that it names put into the store. Raises ConfigError, StoreError."""
    stages = []
    for stage in spec.spec.stages:
        inputs = dict(stage.inputs)
        for name, text in stage.inputs.items():
            reference = parse_reference(text)
            if reference.scheme is Scheme.PATH:
                inputs[name] = resolve_reference(reference, store, {}, f"stage {stage.name}, input {name}")
        stages.append(stage.model_copy(update={"inputs": inputs}) if inputs != stage.inputs else stage)
    return spec.model_copy(update={"spec": spec.spec.model_copy(update={"stages": stages})})


def follow(
    runs: EditRuns, name: str, store: ArtifactStore, observer: Observer, should_stop: Callable[[], bool]
) -> bool:
    """Show a run until it is over; False where ``should_stop`` said so first, and the run goes on without.

    Raises:
        StageFailed: the run failed.
        ClusterError: the run was removed meanwhile, or the cluster could not be reached for long (see :class:`OutageTolerance`).
    """
    shown, tolerance = _Shown(name, store, observer), OutageTolerance()
    while not should_stop():
        try:
            run = runs.get(name)
        except ClusterUnreachable as error:
            shown.silence(tolerance.record(error))
            time.sleep(POLL_SECONDS)
            continue
        tolerance.answered()
        if run is None:
            raise ClusterError(f"run {name!r} is no longer there")
        for stage in run.status.stages:
            shown.stage(stage)
        shown.whole(run.status)
        if run.status.state is RunState.DONE:
            return True
        if run.status.state is RunState.FAILED:
            raise _failure(run.status)
        time.sleep(POLL_SECONDS)
    return False


def exit_code(status: RunStatus) -> int:
    """0 for a run that is done, else the exit code of the stage that failed, or 1."""
    if status.state is RunState.DONE:
        return 0
    failed = next((stage for stage in status.stages if stage.state is RunState.FAILED), None)
    codes = [item.exit_code for item in (failed.attempts if failed else ()) if item.exit_code]
    return codes[-1] if codes else 1


def _failure(status: RunStatus) -> StageFailed:
    failed = next((stage for stage in status.stages if stage.state is RunState.FAILED), None)
    if failed is None:
        return StageFailed("none started", status.message, 2)
    return StageFailed(failed.name, failed.message, exit_code(status))


class _Shown:
    """Tells an observer what changed between two looks at a run."""

    def __init__(self, run: str, store: ArtifactStore, observer: Observer) -> None:
        self._run, self._store, self._observer, self._began = run, store, observer, time.monotonic()
        self._known: dict[str, StageStatus] = {}
        self._said: dict[str, str] = {}
        self._asked: dict[str, float] = {}

    def stage(self, stage: StageStatus) -> None:
        before = self._known.get(stage.name, StageStatus(name=stage.name, kind=stage.kind))
        self._known[stage.name] = stage
        record, service = stage_record(stage), KINDS[Kind(stage.kind)].service
        if stage.state is RunState.DONE and not stage.attempts:
            if before.state is not RunState.DONE and stage.reason is Reason.UP_TO_DATE:
                self._observer.stage_skipped(record, stage.message)
            return
        if len(stage.attempts) > len(before.attempts):
            self._observer.stage_started(record)
        if service and stage.state is RunState.RUNNING and before.state is not RunState.RUNNING:
            self._observer.service_ready(record, (stage.release,))
        if stage.reason is Reason.RETRYING and stage.failures > before.failures:
            self._observer.stage_retried(record, stage.message, max(0.0, (stage.not_before or 0) - time.time()))
        if stage.over and not before.over and stage.attempts:
            self._observer.stage_ended(record)
        if stage.state is RunState.RUNNING and not service:
            self._progress(record)
        if not stage.over and stage.state is not RunState.WAITING:
            self._say(record, stage.message)

    def silence(self, note: str) -> None:
        """The API server does not answer."""
        self._say(StageRecord(name="run", kind=""), note)

    def whole(self, status: RunStatus) -> None:
        """What concerns no stage alone, such as a store that cannot be reached."""
        if (
            status.reason in (Reason.STORE_UNREACHABLE, Reason.HUB_UNREACHABLE, Reason.SETTINGS)
            or status.state is RunState.SUSPENDED
        ):
            self._say(StageRecord(name="run", kind=""), status.message)
        if status.started is None and not status.message and time.monotonic() - self._began > TAKEN_SECONDS:
            self._say(StageRecord(name="run", kind=""), UNTAKEN)

    def _say(self, record: StageRecord, message: str) -> None:
        if message and self._said.get(record.name) != message:
            self._said[record.name] = message
            self._observer.stage_waits(record, message)

    def _progress(self, record: StageRecord) -> None:
        now = time.monotonic()
        if now - self._asked.get(record.name, 0.0) < PROGRESS_SECONDS:
            return
        self._asked[record.name] = now
        try:
            live = LiveFiles(self._store, self._run, record.name, record.key).progress()
        except StoreError:
            return
        if live is not None:
            self._observer.stage_progress(record, live.model_dump())


def _parsed(body: Mapping[str, Any]) -> EditRun:
    meta = body["metadata"]
    created = parse_timestamp(meta["creationTimestamp"])
    spec = validate(RunBody, body["spec"], where=f"EditRun {meta['name']}")
    return EditRun(meta["name"], created, spec, RunStatus.model_validate(body.get("status") or {}))


def _same(one: RunBody, other: RunBody) -> bool:
    """Whether two specs are the same run, however each writes its numbers."""
    drop = {"suspend"}
    return one.model_dump(mode="json", exclude=drop) == other.model_dump(mode="json", exclude=drop)
