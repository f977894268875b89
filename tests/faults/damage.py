"""Damage files at rest: in a folder store, or in the folder of a run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.faults.workloads import RUN, Workload, pointers, stage_results

REPLACED: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncate": lambda data, rng: data[: rng.randrange(len(data))] if data else data,
    "empty": lambda data, rng: b"",
    "garbage": lambda data, rng: rng.randbytes(max(16, min(len(data), 4096))),
}


def targets(folder: Path, workload: Workload, target: str) -> list[Path]:
    """Return the files of a run folder that ``target`` names; a fault damages one of them (``all-pointers``: all of them)."""
    store, work = folder / "store", folder / "stages" / workload.stage
    records = store / "records" / "runs" / RUN
    found = pointers(store, workload.stage)
    choices: dict[str, Callable[[], list[Path]]] = {
        "input-blob": lambda: _blobs(store, _inputs(folder, workload)),
        "input-manifest": lambda: [_manifest(store, digest) for digest in _inputs(folder, workload)],
        "output-blob": lambda: _blobs(store, _outputs(store, workload)),
        "output-manifest": lambda: [_manifest(store, digest) for digest in _outputs(store, workload)],
        "newest-checkpoint-blob": lambda: _blobs(store, [_pointed(found[-1])]),
        "newest-checkpoint-manifest": lambda: [_manifest(store, _pointed(found[-1]))],
        "newest-pointer": lambda: found[-1:],
        "older-pointer": lambda: found[:-1],
        "all-pointers": lambda: found,
        "run-record": lambda: [records / "record.json"],
        "stage-result": lambda: stage_results(store, workload.stage),
        "earlier-result": lambda: stage_results(store, "curate"),
        "stage-progress": lambda: sorted((records / "stages" / workload.stage).glob("*/progress.jsonl")),
        "local-progress": lambda: sorted(work.glob("progress-*.jsonl")),
        "newest-claim": lambda: sorted((records / "claims").iterdir())[-1:],
        "newest-heartbeat": lambda: sorted((records / "heartbeats").iterdir())[-1:],
        "cached-input": lambda: _files(work / "in-0"),
        "cached-checkpoint": lambda: _files(work / "resume-0"),
        "job": lambda: [work / "job.json"],
    }
    return [path for path in choices[target]() if path.is_file()]


def owner(store: Path, file: Path, digests: Iterable[str]) -> str:
    """Return the artifact among ``digests`` of which ``file`` is the manifest or a blob. It may be damaged already."""
    for digest in digests:
        manifest = _manifest(store, digest)
        if manifest == file or (manifest.is_file() and file.name in manifest.read_text(errors="replace")):
            return digest
    raise ValueError(f"{file}: no output has this file")


def is_in_all_checkpoints(store: Path, workload: Workload, file: Path) -> bool:
    """Return True if the blob ``file`` is part of every checkpoint. Identical files of several artifacts are stored only once."""
    return all(
        file.name in _manifest(store, _pointed(pointer)).read_text() for pointer in pointers(store, workload.stage)
    )


def is_in_an_input(folder: Path, workload: Workload, file: Path) -> bool:
    """Return True if the blob ``file`` is also part of an artifact that the stage reads, so that the stage cannot do without it."""
    record = json.loads((folder / "store" / "records" / "runs" / RUN / "record.json").read_text())
    inputs = record["stages"][workload.stage]["inputs"].values()
    manifests = (_manifest(folder / "store", digest) for digest in inputs)
    return any(manifest.is_file() and file.name in manifest.read_text() for manifest in manifests)


def apply(kind: str, file: Path, rng: random.Random, folder: Path) -> str:
    """Damage a file, and return a description; empty if nothing changed. Hard links to the file keep their content."""
    data = file.read_bytes()
    if kind == "remove":
        file.unlink()
        return f"{file.relative_to(folder)} removed"
    if kind == "flip":
        if not data:
            return ""
        place = rng.randrange(len(data))
        changed = data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]
        detail = f"bit flipped in byte {place} of {len(data)}"
    elif kind == "foreign":
        others = sorted(path for path in folder.rglob(f"*{file.suffix}") if path.is_file() and path != file)
        alike = [path for path in others if path.parent.name == file.parent.name or path.name == file.name] or others
        if not alike:
            return ""
        other = rng.choice(alike)
        changed, detail = other.read_bytes(), f"replaced by {other.relative_to(folder)}"
    elif kind == "other-value":
        changed, detail = _other_value(data, rng)
    else:
        changed, detail = REPLACED[kind](data, rng), kind
    if changed == data:
        return ""
    file.unlink()
    file.write_bytes(changed)
    return f"{file.relative_to(folder)}: {detail}"


def _other_value(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """Change one value of a JSON document, whose syntax stays valid."""
    try:
        document = json.loads(data)
    except ValueError:
        return data, ""
    places = list(_places(document, ()))
    if not places:
        return data, ""
    path = rng.choice(places)
    holder = document
    for name in path[:-1]:
        holder = holder[name]
    old = holder[path[-1]]
    if isinstance(old, bool):
        new: object = not old
    elif isinstance(old, int | float):
        new = old + rng.choice((1, -1, 10))
    else:
        characters = list(old)
        place = rng.randrange(len(characters))
        characters[place] = "0" if characters[place] != "0" else "1"
        new = "".join(characters)
    holder[path[-1]] = new
    return json.dumps(document, indent=2).encode(), f"{'.'.join(map(str, path))}: {old!r} -> {new!r}"


def _places(value: object, path: tuple[object, ...]) -> list[tuple[object, ...]]:
    if isinstance(value, dict):
        return [place for key, inner in value.items() for place in _places(inner, (*path, key))]
    if isinstance(value, list):
        return [place for number, inner in enumerate(value) for place in _places(inner, (*path, number))]
    return [path] if isinstance(value, bool | int | float) or (isinstance(value, str) and value) else []


def _inputs(folder: Path, workload: Workload) -> list[str]:
    """Return the digests of the artifacts that earlier stages made and this stage reads."""
    record = json.loads((folder / "store" / "records" / "runs" / RUN / "record.json").read_text())
    needed = {
        "sft": ("rows",),
        "gcpo": ("pairs", "model"),
        "grpo": ("cases",),
        "evaluate": ("model", "pairs-test", "cases-test"),
    }
    earlier = [stage for name, stage in record["stages"].items() if name != workload.stage]
    wanted = needed.get(workload.stage, ())
    return [digest for stage in earlier for name, digest in stage["outputs"].items() if name in wanted]


def _outputs(store: Path, workload: Workload) -> list[str]:
    return [
        digest
        for file in stage_results(store, workload.stage)
        for digest in json.loads(file.read_text())["outputs"].values()
    ]


def _pointed(pointer: Path) -> str:
    return str(json.loads(pointer.read_text())["digest"])


def _manifest(store: Path, digest: str) -> Path:
    return store / "manifests" / "sha256" / f"{digest.removeprefix('sha256:')}.json"


def _blobs(store: Path, digests: list[str]) -> list[Path]:
    names = {
        file["digest"].removeprefix("sha256:")
        for digest in digests
        for file in json.loads(_manifest(store, digest).read_text())["files"]
    }
    return [store / "blobs" / "sha256" / name[:2] / name for name in sorted(names)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
