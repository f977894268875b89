"""Run the experiments of all seeds, several in parallel. Completed experiments are not run again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from editr1.artifacts import ArtifactStore, OutageWait, StoreError, open_store
from editr1.config.reproduce import Budget
from editr1.config.store import StoreConfig
from editr1.evaluation.metrics import Bootstrap
from editr1.launch.local.lock import lock
from editr1.launch.orchestrator import ABORT_SECONDS, RunStopped
from editr1.reproduce.claims import Comparison, experiment_names
from editr1.reproduce.experiments import make_experiments, run_name, run_spec, with_dependencies
from editr1.reproduce.plan import PlannedRun, make_plan, next_run
from editr1.reproduce.results import (
    CollectedResults,
    Reproduction,
    ceilings,
    measure_comparison,
    measure_experiment,
    versions_of,
)
from editr1.reproduce.run_process import GRACE, RunProcess
from editr1.runs.record import load_record
from editr1.runs.resolve import is_complete
from editr1.runs.spec import RunSpec, check_run

POLL_SECONDS = 0.2


class ReproductionObserver(Protocol):
    """Interface for receivers of the events of a reproduction, for example to display its progress."""

    def experiment_skipped(self, item: PlannedRun) -> None:
        """Called if a run is not started, because its results already exist."""

    def experiment_started(self, item: PlannedRun) -> None:
        """Called when the process of a run has started."""

    def experiment_progress(self, item: PlannedRun, stage: str, line: Mapping[str, Any]) -> None:
        """Called when a stage of a run has written a progress line (see :mod:`editr1.telemetry.progress`)."""

    def experiment_ended(self, item: PlannedRun, seconds: float, failure: str | None) -> None:
        """Called when a run has ended after ``seconds``. ``failure`` is None, or the reason why there are no results."""

    def results_updated(self, found: Reproduction) -> None:
        """Called whenever all runs of a seed have ended, and at the end of the reproduction.

        ``found`` contains the results of the seeds whose runs have ended.
        """


@dataclass(frozen=True)
class ReproductionRequest:
    """Settings of a reproduction.

    Artifacts and records are written to ``folder/store``, and the logs of a run are written to ``folder/runs/<run>``.
    At most ``parallel`` runs are active at a time. ``command`` is the command line, which the report displays.
    """

    comparisons: Sequence[Comparison]
    seeds: Sequence[int]
    budget: Budget
    folder: Path
    command: str
    parallel: int = 1


def reproduce(
    request: ReproductionRequest, observer: ReproductionObserver, should_stop: Callable[[], bool]
) -> Reproduction:
    """Run every experiment that the comparisons need with each seed, and compute the results of the comparisons.

    If an experiment fails, the experiments that depend on it fail as well, and all others continue. The report lists
    the comparisons that could not be measured. If the same call is repeated after an interruption, it resumes.

    Raises:
        ConfigError: The run file of an experiment is invalid; no run was started.
        RunStopped: ``should_stop`` returned True.
    """
    plan = make_plan(experiment_names(request.comparisons), request.seeds, request.budget)
    folder = request.folder.resolve()
    store = StoreConfig(url=(folder / "store").as_uri())
    for item in plan:
        spec = run_spec(item.experiment, item.seed, store.url)
        check_run(spec, f"seed {item.seed}, experiment {item.experiment.name}")
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", "another reproduction is running in this folder"):
        runs = _Runs(plan, folder / "runs", store, observer, request.parallel)
        try:
            for ended in runs.until_done(should_stop):
                if len(ended) < len(request.seeds):
                    observer.results_updated(_measure(request, ended, runs.collected))
        except BaseException as error:
            runs.stop(GRACE if isinstance(error, RunStopped) else ABORT_SECONDS)
            raise
        found = _measure(request, request.seeds, runs.collected)
        observer.results_updated(found)
        return found


class _Runs:
    def __init__(
        self,
        plan: Sequence[PlannedRun],
        folder: Path,
        where: StoreConfig,
        observer: ReproductionObserver,
        parallel: int,
    ) -> None:
        self.collected = CollectedResults()
        self._waiting, self._running = list(plan), dict[str, tuple[PlannedRun, RunProcess]]()
        self._failed: set[str] = set()
        self._started_seeds: set[int] = set()
        self._folder, self._where, self._observer, self._parallel = folder, where, observer, parallel
        self._store: ArtifactStore = open_store(where, OutageWait(where.outage_seconds))

    def until_done(self, should_stop: Callable[[], bool]) -> Iterator[list[int]]:
        """Run all planned runs. When all runs of a seed have ended, yield all seeds whose runs have ended.

        If all runs of a seed are skipped, nothing is yielded at that point.
        """
        seeds, reported = sorted({item.seed for item in self._waiting}), set[int]()
        while self._waiting or self._running:
            if should_stop():
                raise RunStopped
            started = self._start_next()
            for run in list(self._running):
                self._poll(run)
            active = {item.seed for item in self._waiting} | {item.seed for item, _ in self._running.values()}
            if new := self._started_seeds - active - reported:
                reported |= new
                yield [seed for seed in seeds if seed not in active]
            if not started:
                time.sleep(POLL_SECONDS)

    def stop(self, grace: float) -> None:
        """Stop all runs. Each run has ``grace`` seconds to commit a checkpoint. Ctrl-C kills all runs at once."""
        processes = [process for _, process in self._running.values()]
        for process in processes:
            process.request_stop()
        try:
            for process in processes:
                process.wait(grace)
        except KeyboardInterrupt:
            for process in processes:
                process.wait(0.0)
            raise

    def _start_next(self) -> bool:
        """Take the next run whose dependencies have ended, and start it.

        If the results of the run already exist, it is skipped. If one of its dependencies failed, the run counts as failed.
        Return False if every waiting run still has unfinished dependencies, or if ``parallel`` runs are active.
        """
        unfinished = {item.run for item in self._waiting} | self._running.keys()
        item = next_run(self._waiting, unfinished) if len(self._running) < self._parallel else None
        if item is None:
            return False
        self._waiting.remove(item)
        spec = run_spec(item.experiment, item.seed, self._where.url)
        missing = [run for run in item.needs if run in self._failed]
        if missing:
            self._fail(item, 0.0, f"{missing[0]} failed")
        elif self._is_complete(item, spec):
            if self._collect(item):
                self._observer.experiment_skipped(item)
        else:
            self._started_seeds.add(item.seed)
            self._running[item.run] = item, RunProcess(spec, self._folder)
            self._observer.experiment_started(item)
        return True

    def _poll(self, run: str) -> None:
        item, process = self._running[run]
        code = process.poll()
        for stage, line in process.progress():
            self._observer.experiment_progress(item, stage, line)
        if code is None:
            return
        del self._running[run]
        if code != 0:
            self._fail(item, process.seconds(), process.failure_reason(self._store))
        elif self._collect(item):
            self._observer.experiment_ended(item, process.seconds(), None)

    def _is_complete(self, item: PlannedRun, spec: RunSpec) -> bool:
        record = load_record(self._store, item.run)
        return record is not None and is_complete(spec, record, self._store)

    def _collect(self, item: PlannedRun) -> bool:
        """Read the results of a run from the store. If they cannot be read, record a failure and return False."""
        try:
            record = load_record(self._store, item.run)
            if record is None:
                raise ValueError("the run succeeded, but the store has no record of it")
            self.collected.add(item.seed, item.experiment, record, self._store)
        except (StoreError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0]
            records = f"{self._store.url}/runs/{item.run}"
            self._fail(item, 0.0, f"the results cannot be read: {reason}; remove {records} to run it again")
            return False
        return True

    def _fail(self, item: PlannedRun, seconds: float, reason: str) -> None:
        self._failed.add(item.run)
        self.collected.failed[item.seed, item.experiment.name] = reason
        self._observer.experiment_ended(item, seconds, reason)


def _measure(request: ReproductionRequest, seeds: Sequence[int], collected: CollectedResults) -> Reproduction:
    bootstrap = Bootstrap(samples=request.budget.bootstrap_samples)
    records = [record for (seed, _), record in collected.records.items() if seed in seeds]
    names = experiment_names(request.comparisons)
    experiments = with_dependencies(names, make_experiments(seeds[0], request.budget))
    return Reproduction(
        seeds=tuple(seeds),
        budget=request.budget,
        command=request.command,
        git_revisions=sorted({record.git_revision for record in records}),
        machines=sorted({record.machine for record in records}),
        versions=versions_of(records),
        seconds=sum(taken for (seed, _), taken in collected.seconds.items() if seed in seeds),
        failed={run_name(*key): reason for key, reason in collected.failed.items() if key[0] in seeds},
        comparisons=[measure_comparison(item, collected, seeds, bootstrap) for item in request.comparisons],
        experiments=[measure_experiment(item, collected, seeds, bootstrap) for item in experiments],
        ceilings=ceilings(collected, seeds, bootstrap),
    )
