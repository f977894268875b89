"""Decide whether this process executes a run or follows another process that is already executing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from editr1.artifacts import ArtifactStore, StoreError
from editr1.config.loader import ConfigError
from editr1.errors import Editr1Error, ExitCode
from editr1.launch.observer import Observer
from editr1.launch.orchestrator import StageFailed, waiting_ask
from editr1.runs.claim import Claim, Holder, Watch, newest_claim, take
from editr1.runs.name_in_use import NameInUse, run_differences
from editr1.runs.record import RunRecord, StageRecord, State, load_record
from editr1.runs.spec import RunSpec

POLL_SECONDS = 1.0


class FollowStopped(Editr1Error):
    """The user stopped a command that was following a run. The run continues in the process that executes it."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, run: str, holder: Holder) -> None:
        super().__init__(f"run {run}: this command no longer follows the run, which continues in {holder}")


class TakenOver(Editr1Error):
    """Another process took over the run, because this process did not update its heartbeat in time."""

    exit_code = ExitCode.TERMINATED

    def __init__(self, run: str, holder: Holder | None) -> None:
        super().__init__(f"run {run}: {holder or 'another process'} has taken over the run; this command stopped")


@dataclass(frozen=True)
class RunRequest:
    """A request to execute or follow a run.

    ``replace`` allows settings that differ from those recorded under the run's name.
    """

    spec: RunSpec
    store: ArtifactStore
    observer: Observer
    should_stop: Callable[[], bool]
    replace: bool = False
    on_cluster: bool = False
    """Whether the stages run on a cluster. If they do, this machine may not be able to reach the reward servers."""

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.spec.metadata.name


def load_known(request: RunRequest) -> RunRecord | None:
    """Return the record of the run.

    The result is None if there is no record, or if the record cannot be read and may be replaced.
    """
    return load_record(request.store, request.name, ignore_unreadable=request.replace)


def execute_or_follow(request: RunRequest) -> Claim | RunRecord:
    """Claim the run for this process. If another process executes the run, follow it until the run ends.

    Returns:
        The claim of this process, or the record of the run that another process has completed.

    Raises:
        NameInUse: the record of the run has different settings or inputs, and ``replace`` is not set.
        ConfigError: ``replace`` is set, but the recorded run is being executed.
        StageFailed: another process executed the run, and a stage failed.
        FollowStopped: the user stopped this command while it followed the run.
    """
    while True:
        checked = _check_name(request)
        known = newest_claim(request.store, request.name)
        watch = Watch(known) if known else None
        if known is None or watch is None or not watch.is_executing():
            if claim := take(request.store, request.name, known):
                return claim
            continue
        if request.replace and _differences(request):
            raise ConfigError(
                f"run {request.name}: the run cannot be replaced because it is being executed by {known.holder}; "
                "stop that process first, or choose another name with --name"
            )
        request.observer.run_waits(f"run {request.name} is being executed by {known.holder}; this command follows it")
        if (record := _follow(request, known, watch, checked)) is not None:
            return record
        request.observer.run_waits(f"{known.holder} has stopped; this command takes over the run")
        if claim := take(request.store, request.name, known):
            return claim


def _differences(request: RunRequest) -> list[str]:
    record = load_known(request)
    ask = None if request.on_cluster else waiting_ask(request.should_stop, request.observer.run_waits)
    return run_differences(record, request.spec, request.store, ask=ask) if record else []


def _check_name(request: RunRequest) -> bool:
    """Return True if the run has a record. Raise NameInUse if it has other settings or inputs, unless it may be replaced."""
    if request.replace:
        return True
    if lines := _differences(request):
        raise NameInUse(request.name, lines, request.store.url)
    return load_known(request) is not None


def _follow(request: RunRequest, claim: Claim, watch: Watch, checked: bool) -> RunRecord | None:
    """Report changes in the run until the process that executes it stops.

    Returns the record if the run is completed, else None.
    """
    reported: dict[str, tuple[State, int]] = {}
    while True:
        executing = watch.is_executing()
        try:
            record = load_record(request.store, request.name)
        except StoreError as error:
            request.observer.run_waits(str(error))
            record = None
        if record is not None:
            if not checked:
                checked = _check_name(request)
            for stage in record.stages.values():
                _report(request.observer, stage, reported)
        if not executing:
            break
        if request.should_stop():
            raise FollowStopped(request.name, claim.holder)
        time.sleep(POLL_SECONDS)
    _, ended = claim.last_beat()
    if not ended or record is None or record.state not in (State.DONE, State.FAILED):
        return None
    if record.state is State.DONE:
        return record
    failed = next((stage for stage in record.stages.values() if stage.state is State.FAILED), None)
    code = failed.attempts[-1].exit_code if failed and failed.attempts else None
    reason = failed.reason if failed else f"the run failed in {claim.holder}"
    raise StageFailed(failed.name if failed else request.name, reason, code)


def _report(observer: Observer, stage: StageRecord, reported: dict[str, tuple[State, int]]) -> None:
    """Report a stage that has started or ended since the last call."""
    before = reported.get(stage.name, (State.PENDING, 0))
    now = (stage.state, len(stage.attempts))
    if now == before:
        return
    reported[stage.name] = now
    if now[1] > before[1]:
        observer.stage_started(stage)
    if stage.state in (State.DONE, State.FAILED, State.INTERRUPTED) and stage.attempts:
        observer.stage_ended(stage)
