"""Compare what a run left in its store with what an undisturbed run leaves there."""

from __future__ import annotations

import json
from pathlib import Path

from editr1.artifacts import ArtifactStore, open_store
from editr1.artifacts.errors import StoreError
from tests.faults.workloads import RUN, Reference, Workload

IN_FLIGHT = 16
"""Requests that are in flight when a process is killed, at most: the default concurrency of an endpoint."""
_REQUESTED = ("requests", "prompt_tokens", "completion_tokens")
_TIMING = ("second", "cached", "retries")
"""Parts of the names of metrics that differ between two undisturbed runs, or that count what an interruption repeats."""


def difference(
    where: Path | ArtifactStore, workload: Workload, reference: Reference, base: Path, *, kills: int = 0
) -> str:
    """Return how the outputs and metrics of the stage differ from the reference; empty if they do not.

    ``kills`` is the number of times that a process was stopped or killed. An answer that had arrived but was not stored then
    is requested and counted again.
    """
    store = _opened(where)
    data = store.get_record(f"runs/{RUN}/stages/{workload.stage}/{reference.key}/result.json")
    if data is None:
        return "the command ended with 0, but the store has no result of the stage under its key"
    try:
        result = json.loads(data)
        outputs, metrics = result["outputs"], result["metrics"]
    except (ValueError, KeyError, TypeError) as error:
        return f"the command ended with 0, but the result record is damaged: {error}"
    for name, digest in reference.outputs.items():
        if outputs.get(name) != digest:
            return f"output {name}: {_files(store, outputs.get(name), digest, base, workload)}"
        try:
            if problems := store.verify(digest):
                return f"output {name} is damaged in the store: {problems[0]}"
        except StoreError as error:
            return f"output {name} is damaged in the store: {error}"
    changed = [
        f"{name} {value} instead of {reference.metrics.get(name)}"
        for name, value in metrics.items()
        if not any(part in name for part in _TIMING)
        and reference.metrics.get(name) != value
        and not (name in _REQUESTED and _repeated(name, value, result["metrics"], reference, kills))
    ]
    return f"metrics: {', '.join(changed)}" if changed else ""


def _repeated(name: str, value: float, metrics: dict[str, float], reference: Reference, kills: int) -> bool:
    """Return True if a count is larger than in the reference only because requests in flight were repeated after a kill."""
    requests = metrics["requests"] - reference.metrics["requests"]
    return 0 < requests <= kills * IN_FLIGHT and value > reference.metrics[name]


def failed_scores(where: Path | ArtifactStore, workload: Workload, reference: Reference) -> int:
    """Return how many more scores failed than in the reference."""
    data = _opened(where).get_record(f"runs/{RUN}/stages/{workload.stage}/{reference.key}/result.json")
    metrics = json.loads(data)["metrics"] if data else {}
    return int(metrics.get("failed", 0) - reference.metrics.get("failed", 0))


def repeated_steps(work: Path, key: str) -> int:
    """Return the largest number of steps that were repeated after a restart, from the progress lines of the stage."""
    file = work / f"progress-{key[:12]}.jsonl"
    if not file.is_file():
        return 0
    worst = highest = 0
    for line in file.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            done = int(entry["done"]) if "metrics" in entry else 0
        except (ValueError, KeyError, TypeError):
            continue  # a damaged line
        if done and done <= highest:
            worst = max(worst, highest - done + 1)
            highest = done
        highest = max(highest, done)
    return worst


def rerun_stages(where: Path | ArtifactStore, workload: Workload, base: Path) -> tuple[str, ...]:
    """Return the stages that were complete before the fault and have new attempts."""
    before = _attempts((base / workload.after / "finished" / RUN / "store") if workload.after else None)
    after = _attempts(where)
    return tuple(name for name, count in before.items() if name != "serve" and after.get(name, count) > count)


def _attempts(where: Path | ArtifactStore | None) -> dict[str, int]:
    data = _opened(where).get_record(f"runs/{RUN}/record.json") if where else None
    try:
        return {name: len(stage["attempts"]) for name, stage in json.loads(data)["stages"].items()} if data else {}
    except (ValueError, KeyError, TypeError):
        return {}


def _files(store: ArtifactStore, actual: str | None, expected: str, base: Path, workload: Workload) -> str:
    """Return in which files or fields the manifests of two artifacts differ."""
    if actual is None:
        return "missing"
    try:
        ours = store.manifest(actual).model_dump(mode="json")
    except StoreError as error:
        return f"its manifest cannot be read: {error}"
    theirs = _opened(base / workload.name / "finished" / RUN / "store").manifest(expected).model_dump(mode="json")
    files = [{file["path"]: file["digest"] for file in each.pop("files")} for each in (ours, theirs)]
    paths = sorted(path for path in files[0] | files[1] if files[0].get(path) != files[1].get(path))
    fields = sorted(name for name in ours if ours[name] != theirs.get(name))
    return f"other digest; files that differ: {paths[:6]}; fields that differ: {fields}"


def _opened(where: Path | ArtifactStore) -> ArtifactStore:
    return open_store(where.resolve().as_uri()) if isinstance(where, Path) else where
