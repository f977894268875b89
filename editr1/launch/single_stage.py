"""A single stage as a run of its own: what ``editr1 sft`` and its siblings do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from editr1.artifacts import open_store
from editr1.config.loader import load_settings
from editr1.config.store import store_at
from editr1.launch.execute import execute, git_revision
from editr1.launch.local.launcher import LocalLauncher
from editr1.launch.observer import Observer
from editr1.runs.job import PARENT_VARIABLE, StageJob
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.references import parse_reference
from editr1.runs.resolve import resolve_reference, stage_key
from editr1.runs.spec import API_VERSION, Metadata, RunBody, RunSpec, StageSpec, check_run


def run_alone(
    kind: str,
    inputs: Mapping[str, str],
    *,
    folder: Path,
    file: Path | None,
    overrides: Sequence[str],
    env: Mapping[str, str],
    seed: int,
    processes: int,
    reward: str | None,
    store: str | None,
    command: str,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> dict[str, Path]:
    """Run one stage in ``folder``; returns output name to the folder that holds it.

    Settings come from ``file``, then ``EDITR1_<KIND>__...`` in ``env``, then ``overrides``.
    """
    stage = StageSpec(
        name=kind,
        kind=Kind(kind),
        inputs=dict(inputs),
        reward=reward,
        config=_config(kind, file, overrides, env),
        processes=processes,
    )
    spec = RunSpec(
        api_version=API_VERSION,
        kind="EditRun",
        metadata=Metadata(name=f"{kind}-alone"),
        spec=RunBody(seed=seed, stages=[stage]),
    )
    check_run(spec, f"editr1 {kind}")
    config = store_at(store or (folder.resolve() / "store").as_uri())
    record, _ = execute(spec, folder=folder, command=command, observer=observer, should_stop=should_stop, store=config)
    opened = open_store(config)
    outputs = record.stages[kind].outputs
    return {name: opened.fetch(digest, folder / "outputs" / name) for name, digest in outputs.items()}


def serve_here(
    model: str, *, folder: Path, file: Path | None, overrides: Sequence[str], env: Mapping[str, str], store: str | None
) -> None:
    """Become the reward server of ``model`` in this process; does not return."""
    config = _config("serve", file, overrides, env)
    store_config = store_at(store or (folder.resolve() / "store").as_uri())
    frozen = resolve_reference(parse_reference(model, "--model"), open_store(store_config), {}, "--model")
    job = StageJob(
        run="serve-alone",
        stage="serve",
        kind=Kind.SERVE,
        key=stage_key(Kind.SERVE, config, {"model": frozen}, 0),
        seed=0,
        store=store_config,
        inputs={"model": frozen},
        config=config,
        workdir=folder.resolve(),
        git_revision=git_revision(),
    )
    request = LocalLauncher().render(job, processes=1, environment={})
    job.workdir.mkdir(parents=True, exist_ok=True)
    request.job_file.write_text(job.model_dump_json(indent=2), encoding="utf-8")
    environment = {**os.environ, **request.environment}
    # This process becomes the stage; it has no launcher to end with.
    environment.pop(PARENT_VARIABLE)
    os.execve(sys.executable, list(request.argv), environment)


def _config(kind: str, file: Path | None, overrides: Sequence[str], env: Mapping[str, str]) -> dict[str, object]:
    model = KINDS[Kind(kind)].settings_model()
    where = f"editr1 {kind}" + (f" -f {file}" if file else "")
    settings = load_settings(
        model, file=file, env=env, env_prefix=f"EDITR1_{kind.upper()}__", overrides=overrides, where=where
    )
    return settings.model_dump(mode="json", exclude_unset=True)
