"""Import of a folder of images and a table. If a row is invalid, it is reported and nothing is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.artifacts import UnusableFolder
from editr1.data.check import check_file
from editr1.data.errors import TableError
from editr1.data.images import decode_image
from editr1.data.importer import format_problem, import_folder
from editr1.data.tables import read_table
from editr1.data.types import Category, EditCase, PreferencePair, Quadruple

ROW = {"source": "in/a.png", "instruction": "make it blue", "edited": "out/a1.png", "editor": "kontext"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["in/a.png", "in/b.png", "out/a1.png", "out/a2.png", "out/a3.png", "out/b1.png"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + number, 20), (number, 0, 0)).save(path)
    (tmp_path / "photos" / "broken.png").write_bytes(b"no")
    (tmp_path / "secret.png").write_bytes((tmp_path / "photos" / "in" / "a.png").read_bytes())
    return tmp_path / "photos"


def table_of(folder: Path, rows: list[dict[str, Any]], name: str = "table.csv") -> Path:
    path = folder / name
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list({key: 0 for row in rows for key in row}), delimiter=",")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["table.csv", "table.jsonl"])
def test_winners_and_losers_become_pairs(folder: Path, tmp_path: Path, name: str) -> None:
    rows = [
        ROW | {"preferred": "winner"},
        ROW | {"edited": "out/a2.png", "editor": "bagel", "preferred": "loser"},
        ROW | {"edited": "out/a3.png", "editor": "bagel", "preferred": ""},
        ROW | {"source": "in/b.png", "edited": "out/b1.png", "preferred": "same"},
    ]
    out = tmp_path / "out"
    report = import_folder(folder, table_of(folder, rows, name), out)
    assert report.problems == []
    assert report.counts == {"rows": 4, "bad_rows": 0, "cases": 2, "quadruples": 4, "pairs": 1, "same": 0}
    assert [str(path.relative_to(out)) for path in report.files] == [
        "cases/cases.parquet", "quadruples/quadruples.parquet", "pairs/pairs.parquet",
    ]  # fmt: skip
    cases = list(read_table(report.files[0], EditCase))
    assert [case.instruction for case in cases] == ["make it blue"] * 2
    assert cases[0].source.data == (folder / "in/a.png").read_bytes()
    assert [row.candidate.editor for row in read_table(report.files[1], Quadruple)] == [
        "kontext", "bagel", "bagel", "kontext",
    ]  # fmt: skip
    [pair] = read_table(report.files[2], PreferencePair)
    assert pair.winner.image.data == (folder / "out/a1.png").read_bytes()
    assert pair.loser.editor == "bagel" and pair.label == "winner"
    for path in report.files:
        assert list(check_file(path)) == []


def test_second_import_replaces_all_tables_of_the_first(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = [ROW | {"preferred": "winner"}, ROW | {"edited": "out/a2.png", "preferred": "loser"}]
    assert len(import_folder(folder, table_of(folder, rows), out).files) == 3
    report = import_folder(folder, table_of(folder, [ROW | {"instruction": "make it green"}]), out)
    assert [case.instruction for case in read_table(report.files[0], EditCase)] == ["make it green"]
    left = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert left == [
        "cases/cases.images",
        "cases/cases.parquet",
        "quadruples/quadruples.images",
        "quadruples/quadruples.parquet",
    ]


def test_output_path_below_a_file_is_refused_before_reading(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="not a folder"):
        import_folder(folder, folder / "no such table.csv", tmp_path / "file" / "out")


def test_ranks_become_pairs_and_equal_ranks_become_same_pairs(folder: Path, tmp_path: Path) -> None:
    ranks = {"out/a1.png": 2, "out/a2.png": 1, "out/a3.png": 2}
    rows = [ROW | {"edited": edited, "rank": rank, "case_id": "c1"} for edited, rank in ranks.items()]
    report = import_folder(folder, table_of(folder, rows), tmp_path / "out")
    pairs = list(read_table(report.files[2], PreferencePair))
    assert [(pair.winner.candidate_id, pair.loser.candidate_id, pair.label) for pair in pairs] == [
        ("c1/2", "c1/1", "winner"), ("c1/1", "c1/3", "same"), ("c1/2", "c1/3", "winner"),
    ]  # fmt: skip
    assert (report.counts["pairs"], report.counts["same"]) == (2, 1)


def test_no_pairs_are_written_without_preferences(folder: Path, tmp_path: Path) -> None:
    report = import_folder(folder, table_of(folder, [ROW]), tmp_path / "out")
    assert [path.name for path in report.files] == ["cases.parquet", "quadruples.parquet"]


def test_principles_of_the_table_apply_to_every_row_of_the_case(folder: Path, tmp_path: Path) -> None:
    principles = [{"question": "Is it blue?", "category": "Instruction Following"}]
    rows = [ROW | {"principles": ""}, ROW | {"edited": "out/a2.png", "principles": json.dumps(principles)}]
    report = import_folder(folder, table_of(folder, rows), tmp_path / "out")
    for row in read_table(report.files[1], Quadruple):
        assert [item.category for item in row.case.principles] == [Category.FOLLOW]


def test_large_images_are_scaled_down_and_others_keep_their_bytes(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (900, 300), "red").save(folder / "large.jpg")
    rows = [ROW, ROW | {"edited": "large.jpg"}]
    report = import_folder(folder, table_of(folder, rows), tmp_path / "out", max_side=300)
    small, large = (row.candidate.image.data for row in read_table(report.files[1], Quadruple))
    assert small == (folder / "out/a1.png").read_bytes()
    assert decode_image(large).size == (300, 100)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"source": "in/none.png"}, "source", "no such file"),
    ({"edited": "broken.png"}, "edited", "not an image of an allowed format"),
    ({"edited": "../secret.png"}, "edited", "must be a relative path inside"),
    ({"edited": "/etc/passwd"}, "edited", "must be a relative path inside"),
    ({"edited": ""}, "edited", "at least 1 character"),
    ({"instruction": " "}, "instruction", "at least 1 character"),
    ({"editor": ""}, "editor", "at least 1 character"),
    ({"preferred": "best"}, "preferred", "must be winner, loser, same or empty"),
    ({"rank": "0"}, "rank", "greater than or equal to 1"),
    ({"rank": "first"}, "rank", "valid integer"),
    ({"rank": "1", "preferred": "winner"}, "rank", "must not have both"),
    ({"case_id": "a b"}, "case_id", "pattern"),
    ({"principles": "Is it?"}, "principles", "not JSON"),
    ({"principles": '[{"question": "?", "category": "Mood"}]'}, "principles.0.category", "Instruction Following"),
]


@pytest.mark.parametrize(("change", "field", "rule"), BAD, ids=lambda value: str(value)[:40])
def test_invalid_row_is_reported_and_nothing_is_written(
    folder: Path, tmp_path: Path, change: dict[str, Any], field: str, rule: str
) -> None:
    table = table_of(folder, [ROW, ROW | {"edited": "out/a2.png"} | change])
    report = import_folder(folder, table, tmp_path / "out")
    [problem] = report.problems
    assert (problem.row, problem.field) == (3, field)
    assert rule in problem.rule
    assert format_problem(problem).startswith(f"{table}:3: {field}: ")
    assert report.files == [] and not (tmp_path / "out").exists()
    report = import_folder(folder, table, tmp_path / "out", skip_bad=True)
    assert len(report.problems) == 1 and report.counts["quadruples"] == 1 and len(report.files) == 2


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"source": "in/b.png", "edited": "out/a2.png"}, "source"),
        ({"instruction": "else", "edited": "out/a2.png"}, "instruction"),
        ({}, "edited"),
        ({"edited": "out/a2.png", "rank": "1"}, "rank"),
    ],
)
def test_inconsistent_rows_of_one_case_are_reported(
    folder: Path, tmp_path: Path, change: dict[str, Any], field: str
) -> None:
    first = ROW | {"case_id": "c", "preferred": "winner", "rank": ""}
    table = table_of(folder, [first, first | {"preferred": ""} | change])
    [problem] = import_folder(folder, table, tmp_path / "out").problems
    assert problem.field == field and "line 2" in problem.rule


@pytest.mark.parametrize(
    ("text", "field", "rule"),
    [
        (
            "source,instruction,edited\n",
            "editor",
            "this column is missing; the table has the columns: source, instruction, edited",
        ),
        ("source,instruction,edited,editor,mood\n", "mood", "unknown column; allowed columns: source"),
        ("source,instruction,edited,editor,editor\n", "editor", "this column occurs more than once"),
        ("", "source", "this column is missing because the table is empty"),
    ],
)
def test_table_with_wrong_columns_is_refused(folder: Path, tmp_path: Path, text: str, field: str, rule: str) -> None:
    (folder / "t.csv").write_text(text)
    with pytest.raises(TableError, match=rule) as caught:
        import_folder(folder, folder / "t.csv", tmp_path / "out")
    assert caught.value.field == field


def test_spreadsheet_exports_are_read(folder: Path, tmp_path: Path) -> None:
    text = '\ufeffsource;instruction;edited;editor\r\nin/a.png;"blue, please\nand ""soft""";out/a1.png;me\r\n'
    (folder / "t.csv").write_bytes(text.encode())
    report = import_folder(folder, folder / "t.csv", tmp_path / "out")
    [case] = read_table(report.files[0], EditCase)
    assert case.instruction == 'blue, please\nand "soft"'


def test_ragged_lines_other_encodings_and_missing_tables_are_reported(folder: Path, tmp_path: Path) -> None:
    (folder / "t.csv").write_text("source,instruction,edited,editor\nin/a.png,do\n")
    [problem] = import_folder(folder, folder / "t.csv", tmp_path / "out").problems
    assert (problem.row, "but the header has 4" in problem.rule) == (2, True)
    (folder / "t.csv").write_bytes("source,instruction,edited,editor\nin/a.png,grün,out/a1.png,me\n".encode("latin-1"))
    with pytest.raises(TableError, match="not UTF-8"):
        import_folder(folder, folder / "t.csv", tmp_path / "out")
    with pytest.raises(TableError, match="No such file"):
        import_folder(folder, folder / "none.csv", tmp_path / "out")


def test_foreign_file_in_the_folder_of_a_table_is_refused_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = table_of(folder, [ROW])
    assert import_folder(folder, rows, out).problems == []
    (out / "pairs").mkdir()
    (out / "pairs" / "part-2.parquet").write_bytes(b"x")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(UnusableFolder, match=r"pairs: .*part-2\.parquet") as caught:
        import_folder(folder, tmp_path / "missing.csv", out)
    assert caught.value.exit_code == 2
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
