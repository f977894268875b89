"""Open a run's folder and store, and drive it on this machine."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from editr1.artifacts import ArtifactStore, open_store
from editr1.config.cluster import ClusterConfig
from editr1.config.store import StoreConfig
from editr1.launch.launcher import Handle, Launcher, Request
from editr1.launch.local.launcher import LocalLauncher
from editr1.launch.local.lock import locked
from editr1.launch.observer import Observer
from editr1.launch.orchestrator import GRACE_SECONDS, READY_SECONDS, RunOrchestrator, RunStopped
from editr1.runs.record import Origin, RunRecord, load_record
from editr1.runs.spec import RunSpec
from editr1.telemetry import configure

_PACKAGES = ("editr1", "torch", "transformers", "diffusers", "trl", "accelerate", "peft", "numpy")


def execute(
    spec: RunSpec,
    *,
    folder: Path,
    command: str,
    observer: Observer,
    should_stop: Callable[[], bool],
    store: StoreConfig | None = None,
    cluster: ClusterConfig | None = None,
    wait: float = 0.0,
) -> tuple[RunRecord, bool]:
    """Drive ``spec`` from ``folder``; returns the record and whether anything was started.

    Stages run on this machine, or on ``cluster``; ``folder`` holds the run's spans and, without ``store``, its artifacts.

    A second call continues what is half done and starts nothing that stands. Where an earlier one was killed, its stages
    are waited for: they commit a checkpoint and end.

    Raises:
        ConfigError: another process is driving the same folder, and went on for ``wait`` seconds.
        StageFailed, RunStopped: see :class:`RunOrchestrator`.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    store_config = store or StoreConfig(url=spec.spec.store or (folder / "store").as_uri())
    busy, left = "another process is driving this run", "a stage of an earlier call has not ended"
    with (
        locked(folder / ".lock", busy, wait=wait, meanwhile=_Wait(busy, observer, should_stop)),
        locked(folder / ".stages.lock", left, wait=GRACE_SECONDS, meanwhile=_Wait(left, observer, should_stop)) as held,
    ):
        opened = open_store(store_config)
        origin = Origin(command=command, git_revision=git_revision(), versions=versions(), machine=machine())
        record = _record(opened, spec, origin)
        configure("editr1-run", folder / "spans.jsonl", **{"editr1.run": record.name})
        worked = _drive(spec, record, opened, store_config, folder, observer, should_stop, cluster, held, origin)
    return record, worked


class _Wait:
    """Says once why a run does not begin yet, and ends the wait when asked to stop."""

    def __init__(self, reason: str, observer: Observer, should_stop: Callable[[], bool]) -> None:
        self._reason, self._observer, self._should_stop, self._told = reason, observer, should_stop, False

    def __call__(self) -> None:
        if not self._told:
            self._observer.run_waits(self._reason)
            self._told = True
        if self._should_stop():
            raise RunStopped


def _drive(
    spec: RunSpec,
    record: RunRecord,
    store: ArtifactStore,
    store_config: StoreConfig,
    folder: Path,
    observer: Observer,
    should_stop: Callable[[], bool],
    cluster: ClusterConfig | None,
    held: int,
    origin: Origin,
) -> bool:
    def driver(launcher: Launcher[Request, Handle], ready_seconds: float) -> RunOrchestrator[Request, Handle]:
        return RunOrchestrator(
            spec,
            record,
            store=store,
            store_config=store_config,
            folder=folder,
            launcher=launcher,
            observer=observer,
            should_stop=should_stop,
            ready_seconds=ready_seconds,
            origin=origin,
        )

    if cluster is None:
        return driver(LocalLauncher((held,)), READY_SECONDS).run()
    from editr1.launch.kubernetes.connect import connect
    from editr1.launch.kubernetes.launcher import KubernetesLauncher

    joined = connect(cluster)
    launcher = KubernetesLauncher(cluster, joined.api, joined.helm, store, folder / "spans.jsonl")
    return driver(launcher, cluster.reward_ready_timeout_seconds).run()


def git_revision(folder: Path | None = None) -> str:
    """Revision of the checkout that holds this code, with ``+dirty`` when it differs; empty outside a checkout."""
    where = folder or Path(__file__).resolve().parents[2]
    revision = _git(where, "rev-parse", "HEAD")
    if not revision:
        return ""
    return revision + ("+dirty" if _git(where, "status", "--porcelain") else "")


def versions() -> dict[str, str]:
    """Python and package versions that decide the figures; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Processor and cores in words."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} cores, {model}"


def _record(store: ArtifactStore, spec: RunSpec, origin: Origin) -> RunRecord:
    known = load_record(store, spec.metadata.name)
    if known is not None:
        wanted = {stage.name for stage in spec.spec.stages}
        for gone in set(known.stages) - wanted:
            del known.stages[gone]
        known.seed = spec.spec.seed
        return known
    return RunRecord(name=spec.metadata.name, seed=spec.spec.seed, created=time.time(), **origin)


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
