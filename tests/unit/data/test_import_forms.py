"""Forms of import tables: CSV as spreadsheets write it, JSON, Parquet; and names of files in any script."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from editr1.data.check import check_file
from editr1.data.errors import TableError
from editr1.data.ids import generated_case_id, readable
from editr1.data.importer import ImportReport, import_folder
from editr1.data.tables import read_table
from editr1.data.types import EditCase, Quadruple

HEADER = "source,instruction,edited,editor\n"
ROW = {"source": "a.png", "instruction": "make it blue", "edited": "b.png", "editor": "kontext"}


def png(red: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for number, name in enumerate(["a", "b", "c"]):
        (path / f"{name}.png").write_bytes(png(number))
    return path


def imported(folder: Path, name: str, content: bytes | str, **options: Any) -> ImportReport:
    table = folder / name
    table.write_bytes(content.encode() if isinstance(content, str) else content)
    return import_folder(folder, table, folder.parent / "out", **options)


def only_case(report: ImportReport) -> EditCase:
    assert report.problems == []
    [case] = read_table(report.files[0], EditCase)
    return case


def refusal(folder: Path, name: str, content: bytes | str) -> TableError:
    with pytest.raises(TableError) as caught:
        imported(folder, name, content)
    return caught.value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["t.json", "t.jsonl"])
def test_json_list_and_json_lines_are_read_in_each_encoding(folder: Path, name: str, encoding: str) -> None:
    rows = [ROW | {"instruction": "mach es grün"}, ROW | {"instruction": "mach es grün", "edited": "c.png"}]
    text = json.dumps(rows, indent=1, ensure_ascii=False) if name == "t.json" else "\n".join(map(json.dumps, rows))
    assert only_case(imported(folder, name, text.encode(encoding))).instruction == "mach es grün"


def test_json_lines_in_a_file_named_json_are_read(folder: Path) -> None:
    assert only_case(imported(folder, "t.json", json.dumps(ROW) + "\n")).instruction == "make it blue"


def test_rows_of_a_json_list_are_counted(folder: Path) -> None:
    rows = [ROW, "not an object", ROW | {"edited": "none.png"}]
    report = imported(folder, "t.json", json.dumps(rows))
    assert [(problem.row, problem.field) for problem in report.problems] == [(2, None), (3, "edited")]
    assert refusal(folder, "t.json", "[\n{]").row == 2
    assert "a list of JSON objects" in refusal(folder, "t.json", "3").rule
    assert "not JSON" in refusal(folder, "t.json", "[" * 100_000).rule


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_exports_of_spreadsheets_are_read(folder: Path, delimiter: str, encoding: str) -> None:
    lines = [
        "",
        delimiter.join(ROW),
        delimiter.join(["a.png", '"blau, ""weich""; jetzt"', "b.png", "me"]),
        delimiter * 3,
    ]
    report = imported(folder, "t.csv", "\r\n".join(lines).encode(encoding))
    assert only_case(report).instruction == 'blau, "weich"; jetzt'


@pytest.mark.parametrize("blank", ["", ",,,", " , ,\t, ", ",,,,,,", "  "])
def test_blank_row_is_no_row(folder: Path, blank: str) -> None:
    report = imported(folder, "t.csv", f"{HEADER}a.png,x,b.png,k\n{blank}\na.png,x,c.png,k\n")
    assert (report.problems, report.counts["rows"]) == ([], 2)


def test_fault_is_reported_at_the_first_line_of_its_row(folder: Path) -> None:
    text = f'{HEADER}a.png,"two\nlines\n",b.png,k\n\nnone.png,"three\n\nlines",b.png,k\na.png,too short\n'
    report = imported(folder, "t.csv", text)
    assert [(problem.row, problem.field) for problem in report.problems] == [(6, "source"), (9, None)]


def test_line_of_a_quotation_mark_is_reported(folder: Path) -> None:
    wrong = refusal(folder, "t.csv", f'{HEADER}a.png,the 5" sign,b.png,k\nb.png,"say "hi" on it",a.png,k\n')
    assert (wrong.row, "double every quotation mark" in wrong.rule) == (3, True)
    never = refusal(folder, "t.csv", f'{HEADER}a.png,x,b.png,k\nb.png,"say,a.png,k\na.png,x,c.png,k\n')
    assert (never.row, "no closing quotation mark" in never.rule) == (3, True)


def test_column_without_a_name_is_named_by_its_position(folder: Path) -> None:
    error = refusal(folder, "t.csv", "source,instruction,edited,editor,\na.png,x,b.png,k,\n")
    assert (error.row, error.field) == (1, "column 5 of 5")
    assert "rename 'Source' to 'source'" in refusal(folder, "t.csv", "Source,instruction,edited,editor\n").rule


def test_table_that_is_not_utf_8_is_refused_with_its_line(folder: Path) -> None:
    assert refusal(folder, "t.csv", f"{HEADER}a.png,grün,b.png,k\n".encode("latin-1")).row == 2


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.xlsx", b"PK\x03\x04rest"), ("t.parquet", b"no"), ("t.csv.gz", b"\x1f\x8b"), ("t", b"a\0b")],
)
def test_other_forms_are_refused_by_naming_the_forms_that_are_read(folder: Path, name: str, content: bytes) -> None:
    rule = refusal(folder, name, content).rule
    assert all(form in rule for form in ("CSV", "JSON Lines", "JSON list", "Parquet"))


def parquet(columns: dict[str, list[Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def hugging_face(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    """Return an image as the feature ``Image`` of the package datasets stores it."""
    return {"bytes": data, "path": path}


def test_parquet_with_embedded_images_is_read(folder: Path) -> None:
    columns = {
        "source": [
            hugging_face(png(9), "deep/a.png"),
            hugging_face(png(9), "deep/other.png"),
            hugging_face(None, "a.png"),
        ],
        "instruction": ["make it blue"] * 3,
        "edited": [hugging_face(png(1)), hugging_face(png(2)), hugging_face(png(3))],
        "editor": ["a", "b", "a"],
        "rank": [1.0, 2.0, float("nan")],
        "principles": [[{"question": "Is it blue?", "category": "Instruction Following"}], None, None],
    }
    report = imported(folder, "t.parquet", parquet(columns))
    assert report.counts == {"rows": 3, "bad_rows": 0, "cases": 2, "quadruples": 3, "pairs": 1, "same": 0}
    rows = list(read_table(report.files[1], Quadruple))
    assert [row.candidate.image.data for row in rows] == [png(1), png(2), png(3)]
    assert [row.case.source.data for row in rows] == [png(9), png(9), (folder / "a.png").read_bytes()]
    assert rows[0].case.case_id.startswith("make-it-blue-") and rows[2].case.case_id.startswith("a-")


def test_parquet_with_paths_or_bytes_is_read_and_other_values_are_reported(folder: Path) -> None:
    columns = {"source": ["a.png"], "instruction": ["x"], "edited": [png(7)], "editor": ["k"]}
    assert only_case(imported(folder, "data.bin", parquet(columns))).source.data == png(0)
    [problem] = imported(folder, "t.parquet", parquet(columns | {"source": [3]})).problems
    assert (problem.row, problem.field) == (1, "source") and "Hugging Face" in problem.rule
    [problem] = imported(folder, "t.parquet", parquet(columns | {"edited": [b"not an image"]})).problems
    assert problem.field == "edited"
    assert refusal(folder, "t.parquet", parquet({"source": ["a.png"]})).field == "instruction"


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_names_are_found_in_either_unicode_normalisation(folder: Path, on_disk: Any, in_table: Any) -> None:
    (folder / unicodedata.normalize(on_disk, "é")).mkdir()
    (folder / unicodedata.normalize(on_disk, "é/café.png")).write_bytes(png(5))
    name = unicodedata.normalize(in_table, "é/café.png")
    case = only_case(imported(folder, "t.csv", f"{HEADER}{name},x,b.png,k\né/café.png,x,c.png,k\n"))
    assert case.source.data == png(5)
    assert case.case_id.startswith("café-")


def test_line_that_states_the_delimiter_is_skipped(folder: Path) -> None:
    report = imported(
        folder, "t.csv", "sep=;\nsource;instruction;edited;editor\na.png;x, y;b.png;k\nnone.png;x;b.png;k\n"
    )
    assert [problem.row for problem in report.problems] == [4]


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("t.csv", HEADER.encode("utf-16-le"), "without a byte order mark"),
        ("t.csv", HEADER.encode("utf-16")[:-1], "not valid UTF-16"),
        ("t.json", HEADER.encode("utf-16")[:-1], "not valid UTF-16"),
        ("t.csv", f"{HEADER}a.png,{'x' * 200_000},b.png,k\n", "more than 131072 characters"),
        ("t.json", '{"rows":\n [1]}', "a list of JSON objects"),
        ("t.json", '[{"rank": ' + "9" * 5000 + "}]", "4300 digits"),
    ],
)
def test_damaged_table_is_refused_with_its_cause(folder: Path, name: str, content: bytes | str, rule: str) -> None:
    assert rule in refusal(folder, name, content).rule


def test_folder_is_not_a_table(folder: Path) -> None:
    with pytest.raises(TableError, match="this is a folder"):
        import_folder(folder, folder, folder.parent / "out")


def test_path_with_backslashes_is_explained(folder: Path) -> None:
    [problem] = imported(folder, "t.csv", f"{HEADER}sub\\a.png,x,b.png,k\n").problems
    assert "separate folders with /" in problem.rule


def test_sources_whose_ids_collided_at_32_bits_are_two_cases(folder: Path) -> None:
    names = ["047841/source.png", "064667/source.png"]
    for name in names:
        (folder / name).parent.mkdir()
        (folder / name).write_bytes(png(9))
    report = imported(folder, "t.csv", HEADER + "".join(f"{name},make it red,b.png,k\n" for name in names))
    assert (report.problems, report.counts["cases"]) == ([], 2)


@pytest.mark.parametrize("name", ["写真 1", "фото кошки", "चित्र", "صورة", "ملف.v2"])
def test_names_in_any_script_stay_readable_in_ids(folder: Path, name: str) -> None:
    (folder / f"{name}.png").write_bytes(png(4))
    report = imported(folder, "t.csv", f"{HEADER}{name}.png,x,b.png,k\n")
    assert only_case(report).case_id.startswith(name.replace(" ", "-").replace(".", "-") + "-")
    assert [list(check_file(path)) for path in report.files] == [[], []]


def test_generated_ids_are_valid_for_any_name() -> None:
    assert readable("🙂 ... ") == ""
    for name in ("🙂", "\u0301x", "-" * 300, "é" * 300, "a\u200db", "١٢٣"):
        case_id = generated_case_id("s.png", "x", name)
        assert (
            EditCase.model_validate({"case_id": case_id, "source": {"data": b"x"}, "instruction": "x"}).case_id
            == case_id
        )


@pytest.mark.parametrize("suffix", [".json", ".tsv", ".csv", ".txt"])
def test_check_of_another_form_names_the_forms_that_it_reads(folder: Path, suffix: str) -> None:
    (folder / f"t{suffix}").write_text(HEADER)
    [problem] = check_file(folder / f"t{suffix}")
    assert suffix in problem.rule and ".parquet" in problem.rule and ".jsonl" in problem.rule
    assert "editr1 data import" in problem.rule
