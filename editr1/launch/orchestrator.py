"""Run the stages of a run file, either on this machine or on a cluster.

Stages whose result already exists are skipped. The others are started one after another, polled until they exit, and
retried after a transient failure. If the user stops the run, the running stage commits a checkpoint before it exits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, NoReturn

from editr1.artifacts import ArtifactStore
from editr1.config.store import StoreConfig
from editr1.errors import Editr1Error, ExitCode, failure_code
from editr1.launch.job_builder import JobContext, RewardEndpoints, build_job
from editr1.launch.launcher import Handle, Launcher, Observation, Request
from editr1.launch.observer import Observer
from editr1.runs.await_result import await_result
from editr1.runs.job import RuntimeSettings, StageJob
from editr1.runs.next_step import (
    NextStep,
    after_end,
    after_service_end,
    before_start,
    overdue,
    service_of,
    services_wanted,
    startable,
)
from editr1.runs.partial import result_to_reuse
from editr1.runs.record import (
    Attempt,
    Missing,
    Origin,
    RunRecord,
    StageRecord,
    State,
    load_complete_result,
    save_record,
)
from editr1.runs.resolve import AskIdentity, ResolvedStage, resolve_stage
from editr1.runs.spec import RunSpec, StageSpec
from editr1.serving.identity import RewardIdentity, RewardUnreachable, ask_identity
from editr1.telemetry import Span, span, traceparent

log = logging.getLogger("editr1.runs")

_NOT_STOPPED = "stage {} could not be stopped and may still be running"
POLL_SECONDS = 0.1
READY_SECONDS = 600.0
"""Default time in seconds within which a reward service must become ready (:attr:`RunContext.ready_seconds`)."""
GRACE_SECONDS = 300.0
"""Time in seconds that a stage has after SIGTERM to commit a checkpoint. After this time, the stage is killed."""
ABORT_SECONDS = 5.0
"""Grace period in seconds of a stage after the user has pressed Ctrl-C a second time."""


class StageFailed(Editr1Error):
    """A stage failed and will not be retried.

    ``exit_code`` is the exit code of the stage's process, as :func:`editr1.errors.failure_code` returns it: never 0.
    """

    def __init__(self, stage: str, reason: str, exit_code: int | None) -> None:
        super().__init__(f"stage {stage}: {reason}")
        self.exit_code = failure_code(exit_code)


class DeadlineExceeded(StageFailed):
    """A stage ran longer than its ``deadline_seconds``. It received SIGTERM and had time to commit a checkpoint."""

    def __init__(self, stage: StageSpec) -> None:
        super().__init__(
            stage.name, f"did not finish within deadline_seconds ({stage.deadline_seconds:g} s)", ExitCode.UNEXPECTED
        )


class RunStopped(Editr1Error):
    """The run was stopped on request, for example by Ctrl-C. The stage that was running has committed a checkpoint."""

    exit_code = ExitCode.TERMINATED

    def __init__(self) -> None:
        super().__init__("stopped; repeat the command to resume from the last checkpoint")


@dataclass(frozen=True)
class RunContext:
    """Inputs of the orchestrator for one run. They do not depend on the backend that runs the stages."""

    spec: RunSpec
    store: ArtifactStore
    store_config: StoreConfig
    folder: Path
    """Folder of the run, with a scratch folder ``stages/<name>`` for each stage."""
    observer: Observer
    should_stop: Callable[[], bool]
    origin: Origin
    """Command line, code version and machine of this process; copied to the run's record when a stage is started."""
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)
    ready_seconds: float = READY_SECONDS
    """Time in seconds within which a reward service must become ready after its start."""
    ask: AskIdentity | None = None
    """Function that requests the identity of the model from the addresses in a stage's ``reward``.

    If it is None, this machine sends the request.
    """
    may_save: Callable[[], bool] = lambda: True
    """Function that returns False if another process has taken over the run, so that this process must no longer write the run's record."""


class RunOrchestrator(Generic[Request, Handle]):
    """Orchestrator of the stages of one run file. It saves ``record`` to the artifact store after every change of state."""

    def __init__(self, context: RunContext, record: RunRecord, launcher: Launcher[Request, Handle]) -> None:
        self._context, self._record, self._launcher = context, record, launcher
        self._stages, self._store, self._observer = context.spec.spec.stages, context.store, context.observer
        self._outputs: dict[str, dict[str, str]] = {}
        self._services: dict[str, _Service[Handle]] = {}
        self._notes: dict[str, str] = {}
        self._first_started: dict[str, float] = {}
        self._resolved: dict[str, ResolvedStage] = {}

    def run(self) -> bool:
        """Run every stage that has no result yet. Returns False if no stage had to run.

        Raises:
            StageFailed: a stage failed and will not be retried.
            RunStopped: ``should_stop`` returned True.
        """
        any_started = False
        self._record.state = State.RUNNING
        try:
            with span(Span.RUN, run=self._record.name, seed=self._record.seed):
                while ready := startable(self._stages, self._outputs.keys()):
                    any_started = self._run_stage(ready[0]) or any_started
                    self._stop_unneeded_services()
            self._record.state = State.DONE
        except (RunStopped, KeyboardInterrupt):
            self._record.state = State.INTERRUPTED
            raise
        except BaseException:
            self._record.state = State.FAILED
            raise
        finally:
            for name in list(self._services):
                with _log_errors(_NOT_STOPPED.format(name)):
                    self._stop_service(name)
            if any_started or self._record.state is not State.DONE:
                self._record.ended = time.time()
            self._save()
        return any_started

    def _run_stage(self, stage: StageSpec) -> bool:
        record, resolved = self._prepare(stage)
        decision = before_start(result_to_reuse(self._store, self._record.name, record.name, record.key) is not None)
        if decision.action is NextStep.SKIP and self._adopt_result(record):
            self._observer.stage_skipped(record, decision.reason)
            return False
        failures = 0
        while True:
            code, reason = self._attempt(stage, record, resolved)
            failures += code != ExitCode.DONE
            decision = after_end(code, self._adopt_result(record, ended_with=code), failures, stage.retries)
            if decision.action is NextStep.FINISH:
                self._observer.stage_ended(record)
                return True
            record.reason = f"{decision.reason}{': ' + reason if reason else ''}"
            if decision.action is NextStep.FAIL:
                record.state = State.FAILED
                self._observer.stage_ended(record)
                raise StageFailed(stage.name, record.reason, code)
            self._save()
            self._observer.stage_retried(record, record.reason, decision.delay)
            self._sleep(decision.delay)

    def _adopt_result(self, record: StageRecord, ended_with: int | None = None) -> bool:
        """Copy the stage's result from the store into ``record``. Returns False if the store contains no result.

        If the stage has just ended with code 0, the store is searched repeatedly (:func:`await_result`).
        """
        where = (self._store, self._record.name, record.name, record.key)
        if ended_with == ExitCode.DONE:
            result = await_result(*where, should_stop=self._context.should_stop)
        else:
            result = load_complete_result(*where)
        if result is None:
            return False
        record.state, record.outputs, record.metrics = State.DONE, result.outputs, result.metrics
        record.missing = result.missing
        self._outputs[record.name] = result.outputs
        self._save()
        return True

    def _prepare(self, stage: StageSpec) -> tuple[StageRecord, ResolvedStage]:
        """Resolve the inputs and settings of a stage and of its reward service, and write them to the run's record."""
        service = service_of(stage, self._stages)
        if service:
            self._prepare(service)
        # Resolve only once per run: an input folder or a branch on the hub may change before a retry.
        resolved = self._resolved.get(stage.name)
        if resolved is None:
            ask = self._context.ask or waiting_ask(self._context.should_stop, self._observer.run_waits)
            resolved = resolve_stage(stage, self._stages, self._record.seed, self._store, self._outputs, ask=ask)
            self._resolved[stage.name] = resolved
        record = self._record.stages.setdefault(stage.name, StageRecord(name=stage.name, kind=str(stage.kind)))
        if record.key != resolved.key:
            # The recorded attempts used different inputs or settings.
            record.attempts, record.metrics, record.outputs, record.missing = [], {}, {}, Missing()
        record.key, record.inputs, record.config = resolved.key, resolved.inputs, resolved.config
        record.reward = resolved.reward.model_dump(mode="json") if resolved.reward else {}
        return record, resolved

    def _attempt(self, stage: StageSpec, record: StageRecord, resolved: ResolvedStage) -> tuple[int, str]:
        """Run one attempt of a stage until it ends. Returns its exit code and, if it failed, the reason."""
        service = service_of(stage, self._stages)
        if service:
            self._ensure_service(service)
        started = self._first_started.setdefault(stage.name, time.time())
        with span(Span.ATTEMPT, stage=stage.name, attempt=len(record.attempts) + 1):
            handle = self._submit(stage, record, resolved)
            try:
                while True:
                    observation = self._observe(record, handle)
                    if not observation.running:
                        return self._close(record, observation), observation.reason
                    if self._context.should_stop():
                        raise RunStopped
                    if overdue(started, time.time(), stage.deadline_seconds) is not None:
                        raise DeadlineExceeded(stage)
                    if service:
                        self._ensure_service(service)
                    time.sleep(POLL_SECONDS)
            except BaseException as error:
                self._abandon(record, handle, error)
                raise

    def _abandon(self, record: StageRecord, handle: Handle, error: BaseException) -> None:
        """Cancel a running attempt because of ``error``, so that it does not conflict with the next attempt."""
        late = isinstance(error, DeadlineExceeded)
        record.state, record.reason = (State.FAILED, str(error)) if late else (State.INTERRUPTED, "")
        with _log_errors(_NOT_STOPPED.format(record.name)):
            self._launcher.cancel(handle, ABORT_SECONDS if isinstance(error, KeyboardInterrupt) else GRACE_SECONDS)
        with _log_errors(f"the end of stage {record.name} could not be recorded"):
            self._close(record, self._observe(record, handle))
        self._observer.stage_ended(record)

    def _submit(self, stage: StageSpec, record: StageRecord, resolved: ResolvedStage) -> Handle:
        for name, value in self._context.origin.items():
            setattr(self._record, name, value)
        request = self._launcher.render(self._job(stage, resolved), stage, traceparent())
        for name, value in self._launcher.record_fields(request).items():
            setattr(record, name, value)
        record.state = State.RUNNING
        record.attempts.append(Attempt(started=time.time()))
        record.reason = ""
        self._save()
        self._observer.stage_started(record)
        return self._launcher.submit(request)

    def _job(self, stage: StageSpec, resolved: ResolvedStage) -> StageJob:
        context = JobContext(
            run=self._record.name,
            seed=self._record.seed,
            store=self._context.store_config,
            git_revision=self._record.git_revision,
            workdir=self._context.folder / "stages" / stage.name,
            runtime=self._context.runtime,
        )
        service = self._services.get(stage.reward or "")
        reward = None
        if service:
            reward = RewardEndpoints(service.urls, self._record.stages[stage.reward or ""].inputs["model"])
        return build_job(stage, context, resolved, reward)

    def _observe(self, record: StageRecord, handle: Handle) -> Observation:
        observation = self._launcher.observe(handle)
        for line in observation.progress:
            self._observer.stage_progress(record, line)
        if observation.note and self._notes.get(record.name) != observation.note:
            self._observer.stage_waits(record, observation.note)
        self._notes[record.name] = observation.note
        return observation

    def _close(self, record: StageRecord, observation: Observation) -> int:
        attempt = record.attempts[-1]
        attempt.ended, attempt.exit_code, attempt.reason = time.time(), observation.exit_code, observation.reason
        self._save()
        return ExitCode.UNEXPECTED if observation.exit_code is None else observation.exit_code

    def _ensure_service(self, stage: StageSpec) -> None:
        """Start a reward service, or restart it if it has exited, and wait until it is ready.

        Raises:
            StageFailed: the service has no retries left, failed with a permanent error, or did not become ready in
                time.
        """
        service = self._services.get(stage.name)
        if service is None:
            record, resolved = self._prepare(stage)
            service = self._services[stage.name] = _Service(self._submit(stage, record, resolved))
        else:
            record = self._record.stages[stage.name]
            if self._observe(record, service.handle).running:
                return
            self._restart(stage, record, service)
        while not (urls := self._wait_ready(stage, record, service.handle)):
            self._restart(stage, record, service)
        service.urls = urls
        self._observer.service_ready(record, urls)

    def _restart(self, stage: StageSpec, record: StageRecord, service: _Service[Handle]) -> None:
        """Restart a reward service that has exited. Raises StageFailed if it must not be restarted."""
        service.failures += 1
        code = self._close(record, self._launcher.observe(service.handle))
        decision = after_service_end(code, bool(service.urls), service.failures, stage.retries)
        cause = record.attempts[-1].reason
        record.reason = f"{decision.reason}{': ' + cause if cause else ''}"
        if decision.action is NextStep.FAIL:
            self._fail_service(stage, record, code)
        self._save()
        self._observer.stage_retried(record, record.reason, decision.delay)
        self._sleep(decision.delay)
        config = record.config
        if service.urls:
            # The stage continues to use the old address, and checks that the same model is served there.
            config = {**config, "port": int(service.urls[0].rsplit(":", 1)[1])}
        service.handle = self._submit(stage, record, ResolvedStage(config, record.inputs, record.key))

    def _wait_ready(self, stage: StageSpec, record: StageRecord, handle: Handle) -> tuple[str, ...]:
        """Wait until a reward service is ready and return its addresses; empty if the service has exited.

        Raises:
            StageFailed: the service did not become ready in time and was cancelled.
            RunStopped: the run was stopped, and the service was cancelled.
        """
        deadline = time.monotonic() + self._context.ready_seconds
        while True:
            observation = self._observe(record, handle)
            if observation.ready_urls or not observation.running:
                return observation.ready_urls if observation.running else ()
            if time.monotonic() > deadline or self._context.should_stop():
                break
            time.sleep(POLL_SECONDS)
        self._launcher.cancel(handle, 10)
        self._close(record, self._launcher.observe(handle))
        if self._context.should_stop():
            del self._services[stage.name]
            raise RunStopped
        record.reason = f"the reward service did not become ready within {self._context.ready_seconds:g} s"
        self._fail_service(stage, record, ExitCode.UNEXPECTED)

    def _fail_service(self, stage: StageSpec, record: StageRecord, code: int) -> NoReturn:
        """Record the failure of a reward service that has exited, and raise StageFailed."""
        del self._services[stage.name]
        record.state = State.FAILED
        self._observer.stage_ended(record)
        raise StageFailed(stage.name, record.reason, code)

    def _stop_unneeded_services(self) -> None:
        for name in self._services.keys() - services_wanted(self._stages, self._outputs.keys()):
            self._stop_service(name)

    def _stop_service(self, name: str) -> None:
        service = self._services.pop(name)
        record = self._record.stages[name]
        self._launcher.cancel(service.handle, GRACE_SECONDS)
        self._close(record, self._launcher.observe(service.handle))
        record.state = State.DONE
        self._observer.stage_ended(record)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self._context.should_stop():
                raise RunStopped
            time.sleep(POLL_SECONDS)

    def _save(self) -> None:
        if self._context.may_save():
            save_record(self._store, self._record)


def waiting_ask(should_stop: Callable[[], bool], report: Callable[[str], None]) -> AskIdentity:
    """Return a function that requests the model identity from reward servers and waits until they respond.

    The function reports the wait to the observer, and raises RunStopped if the user stops the run.
    """

    def ask(urls: Sequence[str], seconds: float, *, where: str) -> RewardIdentity:
        try:
            return ask_identity(urls, 0.0, where=where)
        except RewardUnreachable:
            report(f"{where}: no server responds at {', '.join(urls)}; retrying for up to {seconds:g} s")
        try:
            return ask_identity(urls, seconds, where=where, should_stop=should_stop)
        except RewardUnreachable:
            if should_stop():
                raise RunStopped from None
            raise

    return ask


@contextmanager
def _log_errors(message: str) -> Iterator[None]:
    """Log an exception with ``message`` instead of raising it, so that the error that ended the run stays visible."""
    try:
        yield
    except Exception as error:
        log.warning("%s: %s", message, error)


@dataclass
class _Service(Generic[Handle]):
    handle: Handle
    urls: tuple[str, ...] = ()
    """Addresses of the service; empty until it has been ready once."""
    failures: int = 0
    """Number of times that the service has exited while it was needed."""
