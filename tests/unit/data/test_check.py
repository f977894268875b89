"""Every violation in a table is reported with its row, field and value."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from editr1.data.check import Problem, check_file
from editr1.data.tables import write_table
from editr1.data.types import Candidate, EditCase, EncodedImage, PreferencePair, Quadruple, SftRow


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def case(name: str = "c", data: bytes | None = None) -> EditCase:
    return EditCase(case_id=name, source=EncodedImage(data=data or png()), instruction="do")


def candidate(name: str = "x", data: bytes | None = None) -> Candidate:
    return Candidate(candidate_id=name, editor="e", image=EncodedImage(data=data or png(9)))


def json_lines(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("images", ["inline", "digest"])
def test_valid_table_has_no_problems(tmp_path: Path, images: Any) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, [Quadruple(case=case(), candidate=candidate(name)) for name in "ab"], Quadruple, images=images)
    assert list(check_file(path)) == []


def test_undecodable_images_and_duplicate_ids_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = [case("a"), case("b", b"no picture"), case("a"), case("d", png()[:45])]
    write_table(path, rows, EditCase)
    problems = list(check_file(path))
    assert [(problem.row, problem.field) for problem in problems] == [(2, "source"), (3, "case_id"), (4, "source")]
    assert "not an image of an allowed format" in problems[0].rule and problems[0].value == "<10 bytes>"
    assert problems[1] == Problem(3, "case_id", "'a'", "must be unique, but row 1 has the same value; change one")
    assert [problem.row for problem in check_file(path, decode_images=False)] == [3]


def test_constraints_on_field_values_are_checked(tmp_path: Path) -> None:
    pairs = [PreferencePair(pair_id="p", case=case(), winner=candidate("x"), loser=candidate("x"))]
    write_table(tmp_path / "p.parquet", pairs, PreferencePair)
    assert [problem.field for problem in check_file(tmp_path / "p.parquet")] == ["loser.candidate_id"]
    rows = [SftRow(quadruple=Quadruple(case=case(), candidate=candidate()), trace="t", agreement=1.5)]
    write_table(tmp_path / "s.parquet", rows, SftRow)
    assert [str(problem) for problem in check_file(tmp_path / "s.parquet")] == [
        "row 1: agreement: 1.5: must be a number in [0, 1]"
    ]


def test_json_lines_are_checked_with_their_image_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    good = {"case_id": "a", "source": "a.png", "instruction": "do"}
    path = json_lines(
        tmp_path / "cases.jsonl",
        good,
        "",
        good | {"case_id": "b", "source": {"data": base64.b64encode(png()).decode()}},
        good | {"case_id": "c", "source": "../secret.png"},
        good | {"case_id": "d", "source": "none.png"},
        good | {"case_id": "e", "source": {"data": "%%%"}},
        good | {"case_id": "f g", "instruction": "", "mood": 1},
        "{broken",
        "[1]",
        good | {"case_id": "h", "principles": [{"question": "?", "category": "Mood"}]},
        good | {"case_id": "i", "source": {"data": "é"}},
    )
    found = [(problem.row, problem.field) for problem in check_file(path)]
    assert found == [
        (4, "source"), (5, "source"), (6, "source.data"), (7, "case_id"), (7, "instruction"), (7, "mood"),
        (8, None), (9, None), (10, "principles.0.category"), (11, "source.data"),
    ]  # fmt: skip
    assert all(problem.rule for problem in check_file(path))


def test_deeply_nested_line_and_too_many_principles_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    good = {"case_id": "a", "source": "a.png", "instruction": "do"}
    many = [{"question": f"{n}?", "category": "Image Quality"} for n in range(65)]
    path = json_lines(tmp_path / "cases.jsonl", good, good | {"case_id": "b", "principles": many})
    with path.open("a") as file:
        file.write("\n" + json.dumps(good)[:-1] + ', "x": ' + '{"y":' * 900 + "1" + "}" * 900 + "}\n")
    found = [(problem.row, problem.field) for problem in check_file(path)]
    assert found == [(2, "principles"), (3, None)]


@pytest.mark.parametrize("name", ["none.parquet", "none.jsonl"])
def test_missing_file_is_reported_as_one_problem(tmp_path: Path, name: str) -> None:
    [problem] = check_file(tmp_path / name)
    assert problem.row is None and str(problem).startswith("file: ")


def test_file_that_is_not_a_table_is_reported_as_one_problem(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_text("hello")
    assert ["not a Parquet file" in problem.rule for problem in check_file(tmp_path / "t.parquet")] == [True]
    [problem] = check_file(json_lines(tmp_path / "t.jsonl", {"a": 1}))
    assert (
        problem.rule
        == "these fields do not match any data type; use the fields of one of: EditCase, Quadruple, SftRow, PreferencePair"
    )
    write_table(tmp_path / "t.parquet", [case()], EditCase)
    assert [problem.field for problem in check_file(tmp_path / "t.parquet", SftRow)] == ["editr1.kind"]


@pytest.mark.parametrize("images", ["inline", "digest"])
def test_damaged_file_is_reported_without_an_exception(tmp_path: Path, images: Any) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, [case(f"c{i}", png(i)) for i in range(20)], EditCase, images=images)
    dice = random.Random(0)
    for file in sorted(tmp_path.iterdir()):
        whole, found = file.read_bytes(), 0
        for _ in range(150):
            broken = bytearray(whole)
            for _ in range(3):
                broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
            file.write_bytes(broken)
            problems = list(check_file(path))
            assert all(problem.rule for problem in problems)
            found += bool(problems)
        assert found > 100, "most flipped bits are detected"
        file.write_bytes(whole)
    assert list(check_file(path)) == []


def test_too_long_file_name_and_unclosed_json_are_reported(tmp_path: Path) -> None:
    good = {"case_id": "a", "source": "x" * 300, "instruction": "do"}
    path = json_lines(tmp_path / "cases.jsonl", good, "[" * 100_000)
    first, second = check_file(path)
    assert (first.row, first.field) == (1, "source") and "too long" in first.rule
    assert second.row == 2 and "not JSON" in second.rule
