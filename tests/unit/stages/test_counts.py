"""Counts of requests and tokens cover all attempts of a stage."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from editr1.config.store import StoreConfig
from editr1.llm.vlm import Usage, VlmClient
from editr1.runs.job import RuntimeSettings, StageJob
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.counts import counts_file
from editr1.telemetry import progress_lines


def context(folder: Path) -> StageContext:
    job = StageJob(
        run="r", stage="curate", kind="curate", key="a" * 64, seed=0, workdir=folder / "work",
        store=StoreConfig(url=(folder / "store").as_uri()), runtime=RuntimeSettings(publish_seconds=0.01),
    )  # fmt: skip
    return StageContext(job, lambda: False)


def test_counts_are_continued_in_the_same_folder_and_on_another_machine(tmp_path: Path) -> None:
    for attempt in range(3):
        with pytest.raises(KeyboardInterrupt), counts_file(context(tmp_path)) as file:
            usage = Usage.load(file)
            assert usage.requests == 5 * attempt
            usage.requests += 5
            usage.cost += 0.25
            usage.save(file)
            raise KeyboardInterrupt
        if attempt == 1:
            shutil.rmtree(tmp_path / "work")
    assert Usage.load(file) == Usage(requests=15, cost=0.75)


def test_counts_are_stored_while_the_stage_runs(tmp_path: Path) -> None:
    stage = context(tmp_path)
    with counts_file(stage) as file:
        Usage(requests=7).save(file)
        key = f"runs/r/stages/curate/{'a' * 64}/counts.json"
        while (data := stage.store.get_record(key)) is None:
            pass
    assert json.loads(data)["requests"] == 7


@pytest.mark.parametrize("text", [b"", b"{", b'{"requests": "many"}', b'{"of_tomorrow": 1}', b"\xff"])
def test_damaged_counts_start_again_with_a_warning(
    tmp_path: Path, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "counts.json").write_bytes(text)
    assert Usage.load(tmp_path / "counts.json") == Usage()
    assert "counts.json" in caplog.text and "damaged" in caplog.text
    Usage(requests=1234).save(tmp_path / "counts.json")
    (tmp_path / "counts.json").write_bytes((tmp_path / "counts.json").read_bytes().replace(b"1234", b"1235"))
    assert Usage.load(tmp_path / "counts.json") == Usage()


def test_client_continues_the_counts_of_earlier_clients(tmp_path: Path) -> None:
    file = tmp_path / "counts.json"
    Usage(requests=3, retries=2, prompt_tokens=100).save(file)

    async def use() -> Usage:
        async with VlmClient({}, None, file) as client:
            return client.usage

    assert asyncio.run(use()) == Usage(requests=3, retries=2, prompt_tokens=100)


def test_damaged_progress_lines_are_skipped() -> None:
    good = '{"t": 1.0, "phase": "sft", "done": 1, "total": 2, "metrics": {"loss": 0.5}}'
    damaged = ("{", "[]", good.replace("phase", "phasf"), good.replace("0.5", '"x"'), good.replace('"sft"', "1"))
    assert [line["done"] for line in progress_lines("\n".join((*damaged, good)))] == [1]
    assert list(progress_lines(b"\xff\xfe\n")) == []
