"""Tables are written and read without loss, and errors identify the invalid row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from editr1.data.errors import DataError, TableError
from editr1.data.schema import KINDS, VERSION, schema_of
from editr1.data.tables import count_rows, read_table, table_kind, write_table
from editr1.data.types import (
    Candidate,
    Category,
    DataModel,
    EditCase,
    EncodedImage,
    PreferencePair,
    Principle,
    Quadruple,
    SftRow,
)

PRINCIPLES = (
    Principle(question="Is it black and white?", category=Category.FOLLOW),
    Principle(question="Größe unverändert?", category=Category.KEEP),
)


def case(number: int = 0, principles: tuple[Principle, ...] = PRINCIPLES) -> EditCase:
    source = EncodedImage(data=b"source" * (number + 1))
    return EditCase(case_id=f"case-{number}", source=source, instruction="make it ✨", principles=principles)


def candidate(number: int = 0) -> Candidate:
    return Candidate(candidate_id=f"c{number}", editor="kontext", image=EncodedImage(data=b"edit%d" % number))


def quadruple(number: int = 0) -> Quadruple:
    return Quadruple(case=case(number), candidate=candidate(number))


ROWS: dict[type[DataModel], list[Any]] = {
    EditCase: [case(0), case(1, principles=())],
    Quadruple: [quadruple(0), quadruple(1)],
    SftRow: [
        SftRow(quadruple=quadruple(0), trace="it is so", agreement=0.75, member="a"),
        SftRow(quadruple=quadruple(1), trace="t"),
    ],
    PreferencePair: [
        PreferencePair(pair_id="p0", case=case(), winner=candidate(0), loser=candidate(1)),
        PreferencePair(pair_id="p1", case=case(), winner=candidate(0), loser=candidate(1), label="same"),
    ],
}


@pytest.mark.parametrize("images", ["inline", "digest"])
@pytest.mark.parametrize("kind", ROWS, ids=lambda kind: kind.__name__)
def test_rows_survive_a_round_trip(tmp_path: Path, kind: type[DataModel], images: Any) -> None:
    path = tmp_path / "new" / "t.parquet"
    assert write_table(path, ROWS[kind], kind, images=images) == 2
    assert list(read_table(path, kind)) == ROWS[kind]
    assert count_rows(path) == 2
    assert table_kind(path) is kind
    assert sorted(item.name for item in path.parent.iterdir()) == (["t.images"] if images == "digest" else []) + [
        "t.parquet"
    ]


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_documented_columns_are_the_fields_of_the_data_type(kind: type[DataModel]) -> None:
    assert schema_of(kind).names == list(kind.model_fields)


def test_metadata_contains_schema_version_and_kind(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", ROWS[EditCase], EditCase)
    metadata = pq.read_schema(tmp_path / "t.parquet").metadata
    assert metadata[b"editr1.schema"] == VERSION.encode() == b"editr1.dev/table/v1"
    assert metadata[b"editr1.kind"] == b"EditCase"
    assert pq.read_schema(tmp_path / "t.parquet").field("source").type.names == ["data", "sha256"]


def test_table_without_rows_is_valid(tmp_path: Path) -> None:
    assert write_table(tmp_path / "t.parquet", [], SftRow) == 0
    assert list(read_table(tmp_path / "t.parquet", SftRow)) == []


def test_digest_form_stores_equal_images_once(tmp_path: Path) -> None:
    source = EncodedImage(data=b"\x01" * 500_000)
    rows = [
        Quadruple(case=EditCase(case_id="c", source=source, instruction="i"), candidate=candidate(number))
        for number in range(40)
    ]
    write_table(tmp_path / "t.parquet", rows, Quadruple, images="digest")
    assert pq.read_metadata(tmp_path / "t.images").num_rows == 41
    assert (tmp_path / "t.images").stat().st_size < 600_000
    assert list(read_table(tmp_path / "t.parquet", Quadruple)) == rows


def test_slice_is_read_across_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editr1.data.tables.ROW_GROUP_ROWS", 3)
    write_table(tmp_path / "t.parquet", map(case, range(10)), EditCase)
    assert pq.read_metadata(tmp_path / "t.parquet").num_row_groups == 4
    for start, stop in [(0, None), (2, 7), (3, 6), (9, 10), (10, None), (4, 4), (0, 99)]:
        expected = [f"case-{number}" for number in range(10)][start:stop]
        assert [row.case_id for row in read_table(tmp_path / "t.parquet", EditCase, start=start, stop=stop)] == expected


def test_failed_write_keeps_the_previous_file(tmp_path: Path) -> None:
    def rows() -> Iterator[EditCase]:
        yield case(5)
        raise RuntimeError("stop")

    for images in ("inline", "digest"):
        write_table(tmp_path / "t.parquet", ROWS[EditCase], EditCase, images=images)  # type: ignore[arg-type]
        before = sorted(tmp_path.iterdir())
        with pytest.raises(RuntimeError, match="stop"):
            write_table(tmp_path / "t.parquet", rows(), EditCase, images=images)  # type: ignore[arg-type]
        assert list(read_table(tmp_path / "t.parquet", EditCase)) == ROWS[EditCase]
        assert sorted(tmp_path.iterdir()) == before


def test_rows_of_another_type_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="row 2 has type Candidate, expected EditCase"):
        write_table(tmp_path / "t.parquet", [case(), candidate()], EditCase)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="Candidate cannot be stored as a table; allowed: EditCase"):
        write_table(tmp_path / "t.parquet", [candidate()], Candidate)
    assert not [*tmp_path.iterdir()]


def altered(path: Path, row: int, change: Any, images: str = "inline") -> None:
    """Apply ``change`` to one row of the table and rewrite the file."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows[row])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


@pytest.mark.parametrize(
    ("change", "field", "value", "rule"),
    [
        (lambda row: row.update(case_id="no spaces"), "case_id", "no spaces", "pattern"),
        (lambda row: row.update(instruction=""), "instruction", "", "at least 1 character"),
        (lambda row: row["principles"][1].update(category="Mood"), "principles.1.category", "Mood", "'Image Quality'"),
        (
            lambda row: row["source"].update(data=b"other"),
            "source.sha256",
            None,
            "does not match the image, whose SHA-256 is",
        ),
        (lambda row: row["source"].update(data=None), "source.data", None, "valid bytes"),
    ],
)
def test_invalid_row_is_reported_with_field_value_and_rule(
    tmp_path: Path, change: Any, field: str, value: Any, rule: str
) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, [case(0), case(1), case(2)], EditCase)
    altered(path, 1, change)
    rows = read_table(path, EditCase)
    assert next(rows) == case(0)
    with pytest.raises(TableError, match=rule) as caught:
        next(rows)
    assert (caught.value.file, caught.value.row, caught.value.field) == (path, 2, field)
    assert value is None or caught.value.value == value
    assert str(caught.value).startswith(f"{path}: row 2: {field}: ")
    assert isinstance(caught.value, DataError)


def test_table_of_wrong_kind_or_version_is_refused_before_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, ROWS[EditCase], EditCase)
    with pytest.raises(TableError, match="must be SftRow"):
        read_table(path, SftRow)
    newer = pq.read_table(path).replace_schema_metadata({"editr1.schema": "editr1.dev/table/v9"})
    pq.write_table(newer, path)
    with pytest.raises(TableError, match=r"editr1.schema: 'editr1.dev/table/v9': must be editr1.dev/table/v1"):
        read_table(path, EditCase)


def test_table_without_metadata_is_read_if_its_columns_match(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    row = {"case_id": "a", "source": {"data": b"x"}, "instruction": "do"}
    pq.write_table(pa.Table.from_pylist([row]), path)
    assert table_kind(path) is EditCase
    assert list(read_table(path, EditCase)) == [EditCase(case_id="a", source=EncodedImage(data=b"x"), instruction="do")]
    pq.write_table(pa.Table.from_pylist([row | {"mood": 1}]), path)
    with pytest.raises(TableError, match="mood: unknown column; allowed columns: case_id"):
        read_table(path, EditCase)
    pq.write_table(pa.Table.from_pylist([{"case_id": "a"}]), path)
    with pytest.raises(TableError, match="instruction: this column is missing; the table has the columns: case_id"):
        read_table(path, EditCase)


def test_file_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="no such file"):
        read_table(tmp_path / "none.parquet", EditCase)
    for data in (b"", b"PAR1 no", b"case_id,source\n"):
        (tmp_path / "t.parquet").write_bytes(data)
        with pytest.raises(TableError, match="not a Parquet file"):
            read_table(tmp_path / "t.parquet", EditCase)


def test_error_for_damaged_table_contains_the_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, (case(number) for number in range(200)), EditCase)
    data = bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    with pytest.raises(TableError, match="row 1: "):
        list(read_table(path, EditCase))


def test_missing_images_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, ROWS[EditCase], EditCase, images="digest")
    write_table(tmp_path / "u.parquet", ROWS[EditCase][:1], EditCase, images="digest")
    (tmp_path / "u.images").rename(tmp_path / "t.images")
    rows = read_table(path, EditCase)
    next(rows)
    with pytest.raises(
        TableError, match=r"row 2: source\.sha256: .*: the image file t\.images has no image with this digest"
    ):
        next(rows)
    (tmp_path / "t.images").unlink()
    with pytest.raises(TableError, match=r"t\.images is missing"):
        read_table(path, EditCase)
