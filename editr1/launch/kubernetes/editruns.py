"""Create, read and follow EditRuns. An EditRun is the custom resource of a run that the operator executes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from editr1.artifacts import ArtifactStore, StoreError
from editr1.artifacts.outage import OutageTolerance
from editr1.config.loader import validate
from editr1.durations import parse_timestamp
from editr1.errors import Editr1Error, ExitCode, failure_code
from editr1.launch.kubernetes.errors import ClusterError, ClusterUnreachable
from editr1.launch.kubernetes.namespace import ClusterNamespace
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

REVISION_ANNOTATION = "editr1.dev/git-revision"
COMMAND_ANNOTATION = "editr1.dev/command"
REPLACE_ANNOTATION = "editr1.dev/replace"
"""Annotation of an EditRun.

If its value is "true", the existing record of a different run with the same name is replaced.
"""
POLL_SECONDS = 1.0
PROGRESS_SECONDS = 2.0
DELETE_SECONDS = 120.0
PICKUP_SECONDS = 15.0
NO_OPERATOR = (
    "no operator has started the run yet; editr1 doctor shows whether one watches this namespace. Without one, delete the run"
    " with editr1 cancel, and start it with editr1 run --no-operator"
)
_ENDED = (RunState.DONE, RunState.FAILED)


@dataclass(frozen=True)
class EditRun:
    """An EditRun with its specification and its status. ``created`` is its creation time in seconds since the epoch."""

    name: str
    created: float
    spec: RunBody
    status: RunStatus

    @property
    def has_ended(self) -> bool:
        """Return True if the run is done or has failed."""
        return self.status.state in _ENDED


class RunRejected(Editr1Error):
    """The operator rejected a run as a whole, for example because its spec is invalid."""

    exit_code = ExitCode.CONFIG


class EditRuns:
    """Access to the EditRuns of one namespace."""

    def __init__(self, api: ClusterNamespace) -> None:
        self._api = api

    def is_installed(self) -> bool:
        """Return True if the CustomResourceDefinition of EditRun is installed in the cluster."""
        return not self._api.client.missing_kinds([EDITRUN])

    def get(self, name: str) -> EditRun | None:
        """Return the run ``name``; None if it does not exist or if the EditRun resource is not installed."""
        body = self._api.get(EDITRUN, name)
        return None if body is None else _parsed(body)

    def all(self) -> list[EditRun]:
        """Return every run in the namespace, oldest first."""
        return sorted((_parsed(item) for item in self._api.find(EDITRUN)), key=lambda run: run.created)

    def apply(
        self, spec: RunSpec, annotations: Mapping[str, str], *, replace: bool = False, is_partial: bool = False
    ) -> bool:
        """Create the run.

        A failed run with the same name and spec is replaced. With ``replace``, any run with the same name that has
        ended is replaced. ``is_partial`` states whether a stage of the run has a partial result. In this case, the run
        is replaced once it is done, so that the operator starts the stage again (:mod:`editr1.runs.partial`).

        Returns False if an identical run already exists and is not replaced.

        Raises:
            ClusterError: a run with the same name and a different spec exists, or the cluster rejects the run.
        """
        name = spec.metadata.name
        existing = self.get(name)
        if existing is not None:
            same = _same_except_suspend(existing.spec, spec.spec)
            state = existing.status.state
            if same and state is not RunState.FAILED and not (is_partial and state is RunState.DONE):
                return False
            if not same and not (replace and existing.has_ended):
                remedy = "" if existing.has_ended else f", or delete the existing run with: editr1 cancel {name}"
                raise ClusterError(
                    f"run {name!r} already exists with a different spec; choose another --name, or --replace it once it has ended{remedy}"
                )
        if replace:
            annotations = {**annotations, REPLACE_ANNOTATION: "true"}
        if existing is not None:
            self.delete(name)
        body = {
            "apiVersion": API_VERSION,
            "kind": EDITRUN,
            "metadata": {"name": name, "labels": dict(spec.metadata.labels), "annotations": dict(annotations)},
            "spec": spec.spec.model_dump(mode="json", exclude_unset=True),
        }
        self._api.create(body)
        return True

    def suspend(self, name: str, suspended: bool) -> None:
        """Suspend the run if ``suspended`` is True, else resume it."""
        self._api.patch(EDITRUN, name, {"spec": {"suspend": suspended}})

    def delete(self, name: str) -> None:
        """Delete the run with its jobs and pods, and wait until it no longer exists.

        Raises:
            ClusterError: the run still exists after two minutes.
        """
        self._api.delete(EDITRUN, name)
        end = time.monotonic() + DELETE_SECONDS
        while self.get(name) is not None:
            if time.monotonic() > end:
                raise ClusterError(
                    f"run {name!r} still exists {DELETE_SECONDS:.0f} s after the request to delete it; try again later"
                )
            time.sleep(POLL_SECONDS)


def upload_folders(spec: RunSpec, store: ArtifactStore) -> RunSpec:
    """Upload the local folders that are inputs of the run to the artifact store, so that pods can read them.

    Returns ``spec`` with the digest of the uploaded artifact in place of each ``path:`` reference.

    Raises:
        ConfigError: a folder does not exist or cannot be read.
        StoreError: the artifact store cannot be reached.
    """
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
    """Report the events of a run to ``observer`` until the run ends.

    Returns True when the run is done. If ``should_stop`` returns True first, the function returns False, and the run continues in
    the cluster.

    Raises:
        StageFailed: a stage of the run failed.
        RunRejected: the operator rejected the run, for example because its spec is invalid.
        ClusterError: the run was deleted, or an outage lasted longer than :class:`OutageTolerance` allows.
    """
    reporter, tolerance = _ChangeReporter(name, store, observer), OutageTolerance()
    while not should_stop():
        try:
            run = runs.get(name)
        except ClusterUnreachable as error:
            reporter.unreachable(tolerance.record(error))
            time.sleep(POLL_SECONDS)
            continue
        tolerance.answered()
        if run is None:
            raise ClusterError(
                f"run {name!r} was deleted while this command was following it; to start it again, repeat editr1 run"
            )
        for stage in run.status.stages:
            reporter.stage(stage)
        reporter.run(run.status)
        if run.status.state is RunState.DONE:
            return True
        if run.status.state is RunState.FAILED:
            raise _failure(name, run.status)
        time.sleep(POLL_SECONDS)
    return False


def exit_code(status: RunStatus) -> int:
    """Return the exit code of a command that waited until a run ended.

    The code is 0 if the run is done. Otherwise, it is the exit code of the last attempt of the failed stage, or 1 if
    there is no such code.
    """
    if status.state is RunState.DONE:
        return ExitCode.DONE
    failed = next((stage for stage in status.stages if stage.state is RunState.FAILED), None)
    return failure_code(failed.attempts[-1].exit_code if failed and failed.attempts else None)


def _failure(name: str, status: RunStatus) -> StageFailed | RunRejected:
    failed = next((stage for stage in status.stages if stage.state is RunState.FAILED), None)
    if failed is None:
        return RunRejected(f"run {name!r} was rejected: {status.message}")
    return StageFailed(failed.name, failed.message, exit_code(status))


class _ChangeReporter:
    """Reporter of changes in the status of one run. It compares each new status with the previous one and calls ``observer``."""

    def __init__(self, run: str, store: ArtifactStore, observer: Observer) -> None:
        self._run, self._store, self._observer, self._started = run, store, observer, time.monotonic()
        self._known: dict[str, StageStatus] = {}
        self._notes: dict[str, str] = {}
        self._progress_read: dict[str, float] = {}

    def stage(self, stage: StageStatus) -> None:
        """Report the changes in the status of a stage since the previous call."""
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
            self._note(record, stage.message)

    def unreachable(self, note: str) -> None:
        """Report that the API server does not respond."""
        self._note(StageRecord(name="run", kind=""), note)

    def run(self, status: RunStatus) -> None:
        """Report a problem that affects the whole run, such as an unreachable artifact store."""
        if (
            status.reason in (Reason.STORE_UNREACHABLE, Reason.HUB_UNREACHABLE, Reason.SETTINGS)
            or status.state is RunState.SUSPENDED
        ):
            self._note(StageRecord(name="run", kind=""), status.message)
        if status.started is None and not status.message and time.monotonic() - self._started > PICKUP_SECONDS:
            self._note(StageRecord(name="run", kind=""), NO_OPERATOR)

    def _note(self, record: StageRecord, message: str) -> None:
        if message and self._notes.get(record.name) != message:
            self._notes[record.name] = message
            self._observer.stage_waits(record, message)

    def _progress(self, record: StageRecord) -> None:
        now = time.monotonic()
        if now - self._progress_read.get(record.name, 0.0) < PROGRESS_SECONDS:
            return
        self._progress_read[record.name] = now
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


def _same_except_suspend(one: RunBody, other: RunBody) -> bool:
    """Return True if two specs are identical except for the field ``suspend``."""
    excluded = {"suspend"}
    return one.model_dump(mode="json", exclude=excluded) == other.model_dump(mode="json", exclude=excluded)
