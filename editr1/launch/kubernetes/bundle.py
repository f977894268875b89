"""Write an archive of a run's Kubernetes objects, logs and settings for a bug report. Secrets are redacted."""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from editr1.artifacts import StoreError
from editr1.launch.kubernetes.connect import Connection
from editr1.launch.kubernetes.doctor import examine
from editr1.launch.kubernetes.editruns import EditRuns
from editr1.launch.kubernetes.overview import StageOverview, explain, jobs_of, overview
from editr1.launch.origin import versions

_SECRET = r"secret(?:[_-]?key)?|password|token|api[_-]?key|access[_-]?key|credential|authorization|signature"
_SECRET_NAME = re.compile(rf"(?i)({_SECRET})")
_SECRET_VALUE = re.compile(rf"(?i)((?:{_SECRET})[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?)([^\s\"',&}}]+)")
_USER_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s@\"']+@")
REDACTED = "[redacted]"


def write_bundle(connection: Connection, run: str, target: Path) -> list[str]:
    """Write the diagnostics of a run to the archive ``target`` (.tar.gz), and return the names of the files in it.

    Raises:
        ConfigError: the run does not exist.
    """
    edit_run = EditRuns(connection.api).get(run)
    jobs = connection.api.jobs(run) if edit_run else jobs_of(connection, run)
    stages = [overview(connection, job) for job in jobs]
    files = {
        "versions.json": json.dumps(versions(), indent=1),
        "doctor.txt": "\n".join(f"{'ok  ' if f.ok else 'FAIL'} {f.check}: {f.detail}" for f in examine(connection)),
        "explain.txt": "\n".join(explain(stage) for stage in stages),
    }
    if edit_run is not None:
        files["editrun.json"] = json.dumps(
            redacted({"spec": edit_run.spec.model_dump(mode="json"), "status": edit_run.status.as_json()}), indent=1
        )
    for stage in stages:
        files |= _stage_files(connection, stage)
    with tarfile.open(target, "w:gz") as archive:
        for name, text in sorted(files.items()):
            data = redacted_text(text).encode()
            info = tarfile.TarInfo(f"{run}/{name}")
            info.size, info.mtime = len(data), int(time.time())
            archive.addfile(info, io.BytesIO(data))
    return sorted(files)


def redacted(value: Any) -> Any:
    """Return a copy of a JSON value in which secrets are redacted.

    A value is redacted if the name of its key or environment variable, such as ``secretKey``, suggests that the value is secret.
    """
    if isinstance(value, Mapping):
        if _SECRET_NAME.search(str(value.get("name", ""))) and "value" in value:
            return {**value, "value": REDACTED}
        return {
            key: REDACTED if _SECRET_NAME.search(str(key)) and isinstance(item, str) else redacted(item)
            for key, item in value.items()
        }
    return [redacted(item) for item in value] if isinstance(value, list | tuple) else value


def redacted_text(text: str) -> str:
    """Return ``text`` with secrets redacted: credentials in URLs, and values in texts such as ``secret=...`` or ``token: ...``."""
    return _USER_IN_URL.sub(rf"\g<1>{REDACTED}@", _SECRET_VALUE.sub(lambda found: found[1] + REDACTED, text))


def _stage_files(connection: Connection, stage: StageOverview) -> dict[str, str]:
    head = stage.job.name
    files = {f"{head}/objects.json": json.dumps(redacted(asdict(stage.release)), indent=1)}
    job = connection.api.job_file(stage.job.name)
    if job:
        files[f"{head}/job.json"] = json.dumps(redacted(json.loads(job)), indent=1)
    for pod in stage.release.pods:
        container = pod.main.name if pod.main else None
        files[f"{head}/logs/{pod.name}.txt"] = connection.api.log(pod.name, container=container, tail=2000)
    if stage.files is not None:
        try:
            files |= {f"{head}/stored-logs/{name}.txt": text for name, text in stage.files.logs().items()}
            attempts = [item.model_dump() for item in stage.files.attempts()]
            files[f"{head}/attempts.json"] = json.dumps(attempts, indent=1)
        except StoreError as error:
            files[f"{head}/store-error.txt"] = str(error)
    return files
