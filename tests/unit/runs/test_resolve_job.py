"""Resolution of a job without uploading its inputs, as in a dry run."""

from pathlib import Path

import pytest

from editr1.artifacts import open_store
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.runs.job import StageJob
from editr1.runs.kinds import Kind
from editr1.runs.resolve import check_key, resolve_job, stage_key


def test_resolution_without_upload_gives_the_same_job_and_stores_nothing(tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "rows.parquet").write_bytes(b"rows")
    config = StoreConfig(url=(tmp_path / "store").as_uri())
    inputs = {"rows": f"path:{tmp_path / 'rows'}", "model": "builtin:shapes-verifier"}
    job = StageJob(run="r", stage="sft", kind=Kind.SFT, key="", seed=0, store=config, inputs=inputs, workdir=tmp_path)
    store = open_store(config)
    dry = resolve_job(job, store, upload=False)
    assert not list(store.list())
    assert dry == resolve_job(job, store)
    assert {item.digest for item in store.list()} == set(dry.inputs.values())


def test_content_of_the_expert_examples_is_part_of_the_key(tmp_path: Path) -> None:
    config = StoreConfig(url=(tmp_path / "store").as_uri())
    folder = tmp_path / "experts"
    folder.mkdir()
    job = StageJob(
        run="r",
        stage="curate",
        kind=Kind.CURATE,
        key="",
        seed=0,
        store=config,
        inputs={"experts": f"path:{folder}"},
        workdir=tmp_path,
    )

    def key(content: str) -> str:
        (folder / "experts.jsonl").write_text(content)
        return resolve_job(job, open_store(config), upload=False).key

    assert key("one") != key("two")
    assert key("one") == key("one")


def test_key_that_does_not_belong_to_the_job_is_refused(tmp_path: Path) -> None:
    job = StageJob(
        run="r",
        stage="curate",
        kind=Kind.CURATE,
        seed=0,
        store=StoreConfig(url=(tmp_path / "store").as_uri()),
        workdir=tmp_path,
    )
    resolved = resolve_job(job, open_store(job.store), upload=False)
    check_key(job)
    check_key(resolved)
    # A newer version has settings that the job of an older one does not contain.
    older = {name: value for name, value in resolved.config.items() if name != "test_fraction"}
    key = stage_key(job.kind, older, resolved.inputs, job.seed)
    check_key(resolved.model_copy(update={"config": older, "key": key}))
    for change in (
        {"config": resolved.config | {"test_fraction": 0.5}},
        {"seed": 1},
        {"inputs": {"data": "sha256:" + "a" * 64}},
    ):
        with pytest.raises(
            ConfigError, match=r"does not belong to the settings, inputs and seed of the job.*uninstall it"
        ):
            check_key(resolved.model_copy(update=change))


def test_service_whose_release_was_upgraded_is_not_refused(tmp_path: Path) -> None:
    job = StageJob(
        run="r",
        stage="reward",
        kind=Kind.SERVE,
        key="b" * 64,
        seed=0,
        store=StoreConfig(url=(tmp_path / "store").as_uri()),
        inputs={"model": "sha256:" + "a" * 64},
        workdir=tmp_path,
    )
    check_key(job)
    with pytest.raises(ConfigError, match="does not belong to"):
        check_key(job.model_copy(update={"kind": Kind.SFT}))
