"""Take a run through its stages on a backend: start, follow, retry, skip what stands, stop when asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic

from editr1.artifacts import ArtifactStore
from editr1.config.store import StoreConfig
from editr1.errors import Editr1Error, ExitCode
from editr1.launch.launcher import Handle, Launcher, Observation, Request
from editr1.launch.observer import Observer
from editr1.runs.decide import NextStep, after_end, before_start, overdue, service_of, services_wanted, startable
from editr1.runs.job import StageJob
from editr1.runs.record import Attempt, Origin, RunRecord, StageRecord, State, load_result, save_record
from editr1.runs.resolve import ResolvedStage, resolve_stage
from editr1.runs.spec import RunSpec, StageSpec, reward_addresses
from editr1.telemetry import Span, span, traceparent

log = logging.getLogger("editr1.runs")
POLL_SECONDS = 0.1
READY_SECONDS = 600.0
GRACE_SECONDS = 300.0
ABORT_SECONDS = 5.0


class StageFailed(Editr1Error):
    """A stage ended for good without its result; ``exit_code`` is its process's."""

    def __init__(self, stage: str, reason: str, exit_code: int) -> None:
        super().__init__(f"stage {stage}: {reason}")
        self.exit_code = exit_code


class DeadlinePassed(StageFailed):
    """A stage took longer than its ``deadline_seconds``; it was asked to stop, so that a checkpoint stands."""

    def __init__(self, stage: StageSpec) -> None:
        super().__init__(stage.name, f"deadline of {stage.deadline_seconds:g} s passed", 1)


class RunStopped(Editr1Error):
    """The run stopped on request; its running stages have committed a checkpoint."""

    exit_code = ExitCode.TERMINATED

    def __init__(self) -> None:
        super().__init__("stopped; the same command continues from the last checkpoint")


class RunOrchestrator(Generic[Request, Handle]):
    """Drives one run. ``record`` is saved to the store after every change of state."""

    def __init__(
        self,
        spec: RunSpec,
        record: RunRecord,
        *,
        store: ArtifactStore,
        store_config: StoreConfig,
        folder: Path,
        launcher: Launcher[Request, Handle],
        observer: Observer,
        should_stop: Callable[[], bool],
        ready_seconds: float = READY_SECONDS,
        origin: Origin,
    ) -> None:
        self._spec, self._record, self._store, self._store_config = spec, record, store, store_config
        self._folder, self._launcher, self._observer, self._should_stop = folder, launcher, observer, should_stop
        self._outputs: dict[str, dict[str, str]] = {}
        self._services: dict[str, _Service[Handle]] = {}
        self._ready_seconds, self._origin = ready_seconds, origin
        self._notes: dict[str, str] = {}
        self._began: dict[str, float] = {}
        self._settled: dict[str, ResolvedStage] = {}

    def run(self) -> bool:
        """Take every stage to its end. Returns whether anything had to be started.

        Raises:
            StageFailed: a stage ended for good without a result.
            RunStopped: ``should_stop`` said yes.
        """
        worked = False
        self._record.state = State.RUNNING
        try:
            with span(Span.RUN, run=self._record.name, seed=self._record.seed):
                while ready := startable(self._spec.spec.stages, self._outputs.keys()):
                    worked = self._stage(ready[0]) or worked
                    self._stop_unneeded()
            self._record.state = State.DONE
        except RunStopped:
            self._record.state = State.INTERRUPTED
            raise
        except BaseException:
            self._record.state = State.FAILED
            raise
        finally:
            for name in list(self._services):
                with _told(name):
                    self._stop_service(name)
            if worked or self._record.state is not State.DONE:
                self._record.ended = time.time()
            self._save()
        return worked

    def _stage(self, stage: StageSpec) -> bool:
        record, config = self._prepare(stage)
        result = load_result(self._store, self._record.name, stage.name, record.key)
        decision = before_start(result is not None)
        if decision.action is NextStep.SKIP and result is not None:
            record.state, record.outputs, record.metrics = State.DONE, result.outputs, result.metrics
            self._outputs[stage.name] = result.outputs
            self._save()
            self._observer.stage_skipped(record, decision.reason)
            return False
        failures = 0
        while True:
            code, reason = self._attempt(stage, record, config)
            result = load_result(self._store, self._record.name, stage.name, record.key)
            failures += code != 0
            decision = after_end(code, result is not None, failures, stage.retries)
            if decision.action is NextStep.FINISH and result is not None:
                record.state, record.outputs, record.metrics = State.DONE, result.outputs, result.metrics
                self._outputs[stage.name] = result.outputs
                self._save()
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

    def _prepare(self, stage: StageSpec) -> tuple[StageRecord, dict[str, Any]]:
        stages = self._spec.spec.stages
        service = service_of(stage, stages)
        if service:
            self._prepare(service)
        # Once: what a folder or a branch holds later is not what the first attempt worked with.
        settled = self._settled.get(stage.name)
        if settled is None:
            settled = resolve_stage(stage, stages, self._record.seed, self._store, self._outputs)
            self._settled[stage.name] = settled
        record = self._record.stages.setdefault(stage.name, StageRecord(name=stage.name, kind=str(stage.kind)))
        if record.key != settled.key:
            # What came before was of other inputs or settings.
            record.attempts, record.metrics, record.outputs = [], {}, {}
        record.key, record.inputs, record.config = settled.key, settled.inputs, settled.config
        return record, settled.config

    def _job(self, stage: StageSpec, record: StageRecord, config: dict[str, Any]) -> StageJob:
        service = self._services.get(stage.reward or "")
        urls = list(service.urls) if service else reward_addresses(stage.reward)
        return StageJob(
            run=self._record.name,
            stage=stage.name,
            kind=stage.kind,
            key=record.key,
            seed=self._record.seed,
            store=self._store_config,
            inputs=record.inputs,
            reward_urls=urls,
            reward_digest=self._record.stages[stage.reward or ""].inputs["model"] if service else None,
            config=config,
            workdir=self._folder / "stages" / stage.name,
            git_revision=self._record.git_revision,
        )

    def _attempt(self, stage: StageSpec, record: StageRecord, config: dict[str, Any]) -> tuple[int, str]:
        service = service_of(stage, self._spec.spec.stages)
        if service:
            self._ensure_service(service)
        began = self._began.setdefault(stage.name, time.time())
        with span(Span.ATTEMPT, stage=stage.name, attempt=len(record.attempts) + 1):
            handle = self._submit(stage, record, config)
            try:
                while True:
                    seen = self._observe(record, handle)
                    if not seen.running:
                        return self._close(record, seen), seen.reason
                    if self._should_stop():
                        raise RunStopped
                    if overdue(began, time.time(), stage.deadline_seconds) is not None:
                        raise DeadlinePassed(stage)
                    if service:
                        self._ensure_service(service)
                    time.sleep(POLL_SECONDS)
            except BaseException as error:
                # Nothing outlives the driver: an attempt that goes on unseen would meet the next one.
                record.state, record.reason = State.INTERRUPTED, ""
                if isinstance(error, DeadlinePassed):
                    record.state, record.reason = State.FAILED, str(error)
                with _told(stage.name):
                    grace = ABORT_SECONDS if isinstance(error, KeyboardInterrupt) else GRACE_SECONDS
                    self._launcher.cancel(handle, grace)
                    self._close(record, self._observe(record, handle))
                self._observer.stage_ended(record)
                raise

    def _submit(self, stage: StageSpec, record: StageRecord, config: dict[str, Any]) -> Handle:
        environment = {"EDITR1_SPAN_FILE": str(self._folder / "spans.jsonl")}
        parent = traceparent()
        if parent:
            environment["TRACEPARENT"] = parent
        for name, fact in self._origin.items():
            setattr(self._record, name, fact)
        job = self._job(stage, record, config)
        request = self._launcher.render(job, processes=stage.processes, retries=stage.retries, environment=environment)
        for name, fact in self._launcher.facts(request).items():
            setattr(record, name, fact)
        record.state = State.RUNNING
        record.attempts.append(Attempt(started=time.time()))
        record.reason = ""
        self._save()
        self._observer.stage_started(record)
        return self._launcher.submit(request)

    def _observe(self, record: StageRecord, handle: Handle) -> Observation:
        seen = self._launcher.observe(handle)
        for line in seen.progress:
            self._observer.stage_progress(record, line)
        if seen.note and self._notes.get(record.name) != seen.note:
            self._observer.stage_waits(record, seen.note)
        self._notes[record.name] = seen.note
        return seen

    def _close(self, record: StageRecord, seen: Observation) -> int:
        attempt = record.attempts[-1]
        attempt.ended, attempt.exit_code, attempt.reason = time.time(), seen.exit_code, seen.reason
        self._save()
        return seen.exit_code if seen.exit_code is not None else 1

    def _ensure_service(self, stage: StageSpec) -> None:
        running = self._services.get(stage.name)
        if running is not None and self._launcher.observe(running.handle).running:
            return
        if running is None:
            record, config = self._prepare(stage)
        else:
            # What it served before: its clients check the model.
            record = self._record.stages[stage.name]
            config = record.config
            self._close(record, self._launcher.observe(running.handle))
            if running.restarts >= stage.retries:
                raise StageFailed(stage.name, f"the service ended: {record.attempts[-1].reason}", 1)
            # The same address again: its clients know no other.
            config = {**config, "port": int(running.urls[0].rsplit(":", 1)[1])}
        handle = self._submit(stage, record, config)
        # Known before it is ready, so that it is not left behind whatever happens meanwhile.
        service = self._services[stage.name] = _Service(
            handle, running.urls if running else (), running.restarts + 1 if running else 0
        )
        deadline = time.monotonic() + self._ready_seconds
        while True:
            seen = self._observe(record, handle)
            if seen.ready_urls:
                break
            if not seen.running or time.monotonic() > deadline or self._should_stop():
                del self._services[stage.name]
                self._launcher.cancel(handle, 10)
                code = self._close(record, seen)
                if self._should_stop():
                    raise RunStopped
                record.state, record.reason = State.FAILED, seen.reason or "the service did not become ready"
                self._observer.stage_ended(record)
                raise StageFailed(stage.name, record.reason, code)
            time.sleep(POLL_SECONDS)
        service.urls = seen.ready_urls
        self._observer.service_ready(record, seen.ready_urls)

    def _stop_unneeded(self) -> None:
        for name in self._services.keys() - services_wanted(self._spec.spec.stages, self._outputs.keys()):
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
            if self._should_stop():
                raise RunStopped
            time.sleep(POLL_SECONDS)

    def _save(self) -> None:
        save_record(self._store, self._record)


@contextmanager
def _told(stage: str) -> Iterator[None]:
    """Where something failed already: a stage that cannot be stopped either is told of, and hides not what failed first."""
    try:
        yield
    except Exception as error:
        log.warning("stage %s could not be stopped and may go on: %s", stage, error)


class _Service(Generic[Handle]):
    def __init__(self, handle: Handle, urls: tuple[str, ...], restarts: int) -> None:
        self.handle, self.urls, self.restarts = handle, urls, restarts
