"""Run a single stage without a run file, for ``editr1 sft`` and the other stage commands."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from editr1.artifacts import OutageWait, StoreError, open_store
from editr1.artifacts.destination import check_destination
from editr1.config.loader import load_settings, validate
from editr1.config.names import MAX_NAME_LENGTH, name_fault
from editr1.config.store import StoreConfig, store_at
from editr1.launch.checkout import git_revision
from editr1.launch.execute import execute
from editr1.launch.job_builder import JobContext, build_job
from editr1.launch.local.launcher import LocalLauncher
from editr1.launch.observer import Observer
from editr1.parallel.heartbeat import FOLDER_VARIABLE
from editr1.runs.job import PARENT_VARIABLE, RuntimeSettings
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.record import load_record
from editr1.runs.references import parse_reference
from editr1.runs.resolve import ResolvedStage, resolve_reference, stage_key
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec, check_run
from editr1.runs.stored import dump_stored
from editr1.telemetry.log import requested_format


def stage_settings(kind: Kind, file: Path | None, overrides: Sequence[str], env: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a stage that were set explicitly, without defaults. Raises ConfigError.

    They are read from ``file``, from the variables ``EDITR1_<KIND>__...`` in ``env``, and from ``overrides``. A later source
    overrides an earlier one.
    """
    where = f"editr1 {kind}" + (f" -f {file}" if file else "")
    prefix = f"EDITR1_{kind.upper()}__"
    settings = load_settings(
        KINDS[kind].settings_model(), file=file, env=env, env_prefix=prefix, overrides=overrides, where=where
    )
    return settings.model_dump(mode="json", exclude_unset=True)


def run_single_stage(
    stage: StageSpec,
    *,
    seed: int,
    folder: Path,
    store: str | None,
    command: str,
    observer: Observer,
    should_stop: Callable[[], bool],
    name: str | None = None,
    replace: bool = False,
) -> dict[str, Path]:
    """Run one stage in ``folder``, and copy its outputs to ``<folder>/outputs``. Returns the folders of the outputs by output name.

    The run is named ``name`` or, if that is None, after the folder (:func:`run_name_of`). The artifact store is
    ``store``, or ``<folder>/store`` if it is None. For ``replace``, see :func:`editr1.launch.execute.execute`. Raises
    ConfigError, StageFailed, RunStopped, and, before the stage starts, UnusableFolder if the folder of an output contains
    other files than those of the artifact that was copied there before.
    """
    spec = RunSpec(
        api_version=API_VERSION,
        kind="EditRun",
        metadata=validate(Metadata, {"name": name or run_name_of(folder)}, where="--name"),
        spec=RunBody(seed=seed, stages=[stage]),
    )
    check_run(spec, f"editr1 {stage.kind}")
    config = store_at(store or (folder.resolve() / "store").as_uri())
    _check_outputs(folder / "outputs", stage, config, spec.metadata.name)
    record, _ = execute(
        spec,
        folder=folder,
        command=command,
        observer=observer,
        should_stop=should_stop,
        store=config,
        replace=replace,
        # Earlier versions named every single-stage run after the kind of the stage.
        reuse=(run_name_of(folder), f"{stage.kind}-single"),
    )
    opened = open_store(config, OutageWait(config.outage_seconds))
    outputs = record.stages[stage.name].outputs
    return {name: opened.fetch(digest, folder / "outputs" / name) for name, digest in outputs.items()}


def _check_outputs(folder: Path, stage: StageSpec, store: StoreConfig, run: str) -> None:
    """Raise UnusableFolder if the subfolder for an output of the stage contains files that editr1 did not write there."""
    for output in KINDS[stage.kind].outputs:
        recorded = None
        if (folder / output).is_dir():
            opened = open_store(store)
            with suppress(StoreError):  # The store may have been moved or cleaned since the output was copied.
                record = load_record(opened, run, ignore_unreadable=True)
                known = record.stages.get(stage.name) if record else None
                if known is not None and output in known.outputs:
                    recorded = opened.manifest(known.outputs[output])
        check_destination(folder / output, recorded)


def run_name_of(folder: Path) -> str:
    """Return the name of a single-stage run: the name of its folder, with hyphens instead of invalid characters.

    If the name of the folder is not valid as it is, eight digits of its SHA-256 digest are appended, so that different
    folder names lead to different run names. A name that would begin with a digit begins with ``run-``.
    """
    given = folder.resolve().name
    if name_fault(given) is None:
        return given
    name = re.sub(r"[^a-z0-9]+", "-", given.lower()).strip("-") or "stage"
    if name[0].isdigit():
        name = f"run-{name}"
    digest = hashlib.sha256(given.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME_LENGTH - 9].rstrip('-')}-{digest}"


def serve_in_process(model: str, config: Mapping[str, Any], *, folder: Path, store: str | None) -> None:
    """Replace this process with a reward server for ``model``. This function does not return."""
    store_config = store_at(store or (folder.resolve() / "store").as_uri())
    digest = resolve_reference(parse_reference(model, "--model"), open_store(store_config), {}, "--model")
    stage = StageSpec(name="serve", kind=Kind.SERVE, inputs={"model": model})
    inputs = {"model": digest}
    job = build_job(
        stage,
        JobContext(
            run=run_name_of(folder),
            seed=0,
            store=store_config,
            git_revision=git_revision(),
            workdir=folder.resolve(),
            runtime=RuntimeSettings(log_format=requested_format()),
        ),
        ResolvedStage(dict(config), inputs, stage_key(Kind.SERVE, config, inputs, 0)),
    )
    request = LocalLauncher().render(job, stage)
    job.workdir.mkdir(parents=True, exist_ok=True)
    request.job_file.write_bytes(dump_stored(job))
    environment = {**os.environ, **request.environment}
    for name in (PARENT_VARIABLE, FOLDER_VARIABLE):
        environment.pop(name)  # the stage replaces this process, so no parent process has to end or watch it
    os.execve(sys.executable, list(request.argv), environment)
