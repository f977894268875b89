"""Bad input ends a command with a message that names the file, the row and the field, and with its documented exit code."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from editr1.artifacts import open_store
from editr1.cli.main import app
from editr1.config.store import StoreConfig
from editr1.runs.live import LiveFiles
from editr1.runs.record import load_result, result_key, stage_prefix
from editr1.runs.stored import DamagedRecord

HEADER = "source,instruction,edited,editor,principles\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (32, 32), "red").save(tmp_path / "a.png")
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "b.png")
    return tmp_path


def run(*arguments: object, **environment: str) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def import_row(folder: Path, row: str) -> Result:
    (folder / "t.csv").write_text(HEADER + row + "\n")
    return run("data", "import", folder, "--table", folder / "t.csv", "--out", folder / "out")


def test_loop_of_symbolic_links(folder: Path) -> None:
    (folder / "loop.png").symlink_to("loop.png")
    result = import_row(folder, "loop.png,x,a.png,e,")
    assert result.exit_code == 3
    assert "t.csv:2: source" in result.output and "symbolic link that leads to itself" in result.output


def test_deeply_nested_principles(folder: Path) -> None:
    result = import_row(folder, 'a.png,x,b.png,e,"' + "[" * 100_000 + '"')
    assert result.exit_code == 3
    assert "t.csv:2: principles" in result.output and len(result.output) < 2000


@pytest.mark.parametrize("value", [{"sha256": 1, "data": None}, {"a": 1}, {"sha256": "zz", "data": None}])
def test_digest_of_an_image_that_is_no_digest(folder: Path, value: dict[str, object]) -> None:
    assert import_row(folder, "a.png,x,b.png,e,").exit_code == 0
    path = folder / "out/cases/cases.parquet"
    table = pq.read_table(path)
    index = table.schema.get_field_index("source")
    pq.write_table(table.set_column(index, "source", pa.array([value])), path)
    for command in ("show", "check"):
        result = run("data", command, path)
        assert result.exit_code == 3
        assert "row 1: source" in result.output


@pytest.mark.parametrize("endpoint", ["http://h:abc", "http://h:99999", "http://:9000", "https://h:0"])
def test_endpoint_of_the_store_that_can_never_work(endpoint: str) -> None:
    keys = {"EDITR1_S3_ACCESS_KEY": "a", "EDITR1_S3_SECRET_KEY": "b"}
    result = run("artifacts", "ls", "--store", "s3://bucket/x", EDITR1_S3_ENDPOINT=endpoint, **keys)
    assert result.exit_code == 2
    assert endpoint in result.output


@pytest.mark.parametrize("text", ["", '{"outputs": {"rows', "[]", "not JSON", "\x00\xff"])
def test_damaged_result_of_a_stage_is_named_with_a_remedy(tmp_path: Path, text: str) -> None:
    store = open_store(StoreConfig(url=tmp_path.as_uri()))
    key = result_key("demo", "sft", "k")
    store.put_record(key, text.encode())
    with pytest.raises(
        DamagedRecord, match=rf"{key}: the record is damaged .*; move it aside with .*, and run the stage again"
    ) as error:
        load_result(store, "demo", "sft", "k")
    assert error.value.exit_code == 5


def test_damaged_progress_and_attempts_are_ignored(tmp_path: Path) -> None:
    store = open_store(StoreConfig(url=tmp_path.as_uri()))
    prefix = stage_prefix("demo", "sft", "k")
    store.put_record(prefix + "live.json", b'{"t": 1')
    store.put_record(prefix + "attempts/1.json", b"")
    files = LiveFiles(store, "demo", "sft", "k")
    assert files.progress() is None
    assert files.attempts() == []
