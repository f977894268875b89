"""Resolution of a job without uploading its inputs, as in a dry run."""

from pathlib import Path

from editr1.artifacts import open_store
from editr1.config.store import StoreConfig
from editr1.runs.job import StageJob
from editr1.runs.kinds import Kind
from editr1.runs.resolve import resolve_job


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
