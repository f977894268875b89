"""Bad input ends a command with a message that names the file, the row and the field, and with its documented exit code."""

from __future__ import annotations

import unicodedata
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


def test_question_that_a_case_has_twice(folder: Path) -> None:
    principle = '{""question"": ""a?"", ""category"": ""Image Quality""}'
    result = import_row(folder, f'a.png,x,b.png,e,"[{principle},{principle}]"')
    assert result.exit_code == 3
    assert "t.csv:2: principles.1.question" in result.output and "the same question" in result.output
    (folder / "p.json").write_text(
        '[{"question": "a?", "category": "Image Quality"}, {"question": "a?", "category": "Image Quality"}]'
    )
    scored = score(folder, "--principles", folder / "p.json")
    assert scored.exit_code == 2 and "the same question" in scored.output, scored.output


def test_instruction_in_two_unicode_forms_is_one_case(folder: Path) -> None:
    rows = [f"a.png,{unicodedata.normalize(form, 'mach es grün')},b.png,{form}," for form in ("NFC", "NFD")]
    assert import_row(folder, "\n".join(rows)).exit_code == 0
    assert pq.read_table(folder / "out/cases/cases.parquet").num_rows == 1


def test_case_id_in_two_unicode_forms_is_one_case(folder: Path) -> None:
    rows = [f"a.png,x,b.png,{form},,{unicodedata.normalize(form, 'grün')}" for form in ("NFC", "NFD")]
    (folder / "t.csv").write_text("\n".join([HEADER.strip() + ",case_id", *rows]) + "\n")
    assert run("data", "import", folder, "--table", folder / "t.csv", "--out", folder / "out").exit_code == 0
    assert pq.read_table(folder / "out/cases/cases.parquet").num_rows == 1


ROW = '"source": "a.png", "instruction": "x", "edited": "b.png", "editor": "e"'


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.jsonl", "{%s, %s}", ("t.jsonl:1", "the key 'preferred' appears twice")),
        ("t.json", "[{%s, %s}]", ("t.json", "the key 'preferred' appears twice")),
    ],
)
def test_key_that_a_row_contains_twice(folder: Path, name: str, text: str, words: tuple[str, ...]) -> None:
    (folder / name).write_text(text % (ROW, '"preferred": "winner", "preferred": "loser"'))
    result = run("data", "import", folder, "--table", folder / name, "--out", folder / "out")
    assert result.exit_code == 3
    assert all(word in result.output for word in words), result.output
    assert not (folder / "out").exists() or not list((folder / "out").rglob("*.parquet"))


def test_key_that_a_principle_contains_twice(folder: Path) -> None:
    principle = '{""question"": ""a?"", ""question"": ""b?"", ""category"": ""Image Quality""}'
    result = import_row(folder, f'a.png,x,b.png,e,"[{principle}]"')
    assert result.exit_code == 3
    assert "t.csv:2: principles" in result.output and "the key 'question' appears twice" in result.output


def test_rank_that_is_true_is_no_number(folder: Path) -> None:
    (folder / "t.jsonl").write_text("{" + ROW + ', "rank": true}')
    result = run("data", "import", folder, "--table", folder / "t.jsonl", "--out", folder / "out")
    assert result.exit_code == 3
    assert "t.jsonl:1: rank" in result.output and "true" in result.output.lower()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"question": "a?"}', "must contain a list of principles, got dict"),
        ('[{"question": "a?", "category": "Sharpness"}]', "0: category"),
        ('[{"question": "a?", "question": "b?", "category": "Image Quality"}]', "appears twice"),
    ],
)
def test_file_of_principles_that_is_not_valid(folder: Path, text: str, words: str) -> None:
    (folder / "p.json").write_text(text)
    result = score(folder, "--principles", folder / "p.json")
    assert result.exit_code == 2
    assert "p.json" in result.output and words in result.output and len(result.output) < 1000, result.output


def test_file_of_principles_with_a_byte_order_mark(folder: Path) -> None:
    (folder / "p.json").write_bytes(b'\xef\xbb\xbf[{"question": "a?", "category": "Image Quality"}]')
    assert "no score: unreachable" in score(folder, "--principles", folder / "p.json").output


def score(folder: Path, *options: object) -> Result:
    edit = ("--source", folder / "a.png", "--edited", folder / "b.png", "--instruction", "x", "--deadline", 1)
    return run("score", *edit, "--server", "http://127.0.0.1:1", *options)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "items: Tuple should have at least 1 item"),
        ('[{"source": {"data": "!!"}, "instruction": "x"}]', "items.0."),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_items_to_score_that_are_not_valid(folder: Path, text: str, words: str) -> None:
    (folder / "items.json").write_text(text)
    result = run("check-reward", "--server", "http://127.0.0.1:1", "--items", folder / "items.json")
    assert result.exit_code == 2
    assert "items.json" in result.output and words in result.output, result.output
    assert "errors.pydantic.dev" not in result.output and len(result.output) < 1000


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
