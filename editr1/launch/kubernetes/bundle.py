"""Write an archive of a run's Kubernetes objects, logs and settings for a bug report. Secrets are redacted."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from editr1.errors import Editr1Error
from editr1.launch.kubernetes.connect import Connection
from editr1.launch.kubernetes.doctor import examine
from editr1.launch.kubernetes.editruns import EditRuns
from editr1.launch.kubernetes.overview import StageOverview, explain, jobs_of, overview
from editr1.launch.kubernetes.redact import redacted, redacted_text
from editr1.launch.origin import versions


def write_bundle(connection: Connection, run: str, target: Path) -> list[str]:
    """Write the diagnostics of a run to the archive ``target`` (.tar.gz), and return the names of the files in it.

    Secrets are hidden as :mod:`editr1.launch.kubernetes.redact` describes.

    Raises:
        ConfigError: the run does not exist.
    """
    edit_run = EditRuns(connection.api).get(run)
    jobs = connection.api.jobs(run) if edit_run else jobs_of(connection, run)
    files = {
        "versions.json": _text(lambda: json.dumps(versions(), indent=1)),
        "doctor.txt": _text(lambda: _examined(connection)),
    }
    if edit_run is not None:
        spec, status = edit_run.spec, edit_run.status
        files["editrun.json"] = _text(
            lambda: json.dumps(redacted({"spec": spec.model_dump(mode="json"), "status": status.as_json()}), indent=1)
        )
    explained = []
    for job in jobs:
        try:
            stage = overview(connection, job)
        except Exception as error:
            explained.append(f"{job.name}: {_failure(error)}")
        else:
            explained.append(_text(partial(explain, stage)))
            files |= _stage_files(connection, stage)
    files["explain.txt"] = "\n".join(explained)
    with tarfile.open(target, "w:gz") as archive:
        for name, text in sorted(files.items()):
            data = redacted_text(text).encode()
            info = tarfile.TarInfo(f"{run}/{name}")
            info.size, info.mtime = len(data), int(time.time())
            archive.addfile(info, io.BytesIO(data))
    return sorted(files)


def _examined(connection: Connection) -> str:
    return "\n".join(f"{'ok  ' if f.ok else 'FAIL'} {f.check}: {f.detail}" for f in examine(connection))


def _stage_files(connection: Connection, stage: StageOverview) -> dict[str, str]:
    head, api = stage.job.name, connection.api
    texts: dict[str, Callable[[], str]] = {
        f"{head}/objects.json": lambda: json.dumps(redacted(asdict(stage.release)), indent=1),
        f"{head}/job.json": lambda: json.dumps(redacted(json.loads(api.job_file(head) or "null")), indent=1),
    }
    for pod in stage.release.pods:
        container = pod.main.name if pod.main else None
        texts[f"{head}/logs/{pod.name}.txt"] = partial(api.log, pod.name, container=container, tail=2000)
    files = {name: _text(action) for name, action in texts.items()}
    if stage.files is not None:
        stored = stage.files
        try:
            files |= {f"{head}/stored-logs/{name}.txt": text for name, text in stored.logs().items()}
            files[f"{head}/attempts.json"] = json.dumps([item.model_dump() for item in stored.attempts()], indent=1)
        except Exception as error:
            files[f"{head}/store-error.txt"] = _failure(error)
    return files


def _text(action: Callable[[], str]) -> str:
    """Return the result of ``action``, the content of a file in the archive. If it fails, return a description of the failure.

    The archive is part of a bug report, so the cluster may contain unexpected objects. They must not end the command.
    """
    try:
        return action()
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> str:
    return f"not available: {error if isinstance(error, Editr1Error) else f'{type(error).__name__}: {error}'}"
