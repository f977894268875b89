"""Write an archive of a run's Kubernetes objects, logs and settings for a bug report. Secrets are redacted."""

from __future__ import annotations

import io
import json
import tarfile
import time
from dataclasses import asdict
from pathlib import Path

from editr1.artifacts import StoreError
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
