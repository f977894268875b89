"""Preference pairs of an import: votes on pairs are refused, and pairs that cannot be right are dropped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.data.check import check_file
from editr1.data.errors import TableError
from editr1.data.importer import ImportReport, import_folder
from editr1.data.tables import read_table, write_table
from editr1.data.types import PreferencePair

IMAGES = {"a": 10, "b": 20, "c": 30, "d": 40}
VOTES = [("a", "b", "loser"), ("a", "c", "loser"), ("a", "d", "same"), ("b", "c", "same"), ("b", "d", "winner")]
OTHER = {"winner": "loser", "loser": "winner", "same": "same"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "pics"
    path.mkdir()
    Image.new("RGB", (40, 30), "white").save(path / "s.png")
    return path


def row(folder: Path, image: str, file: str, **values: Any) -> dict[str, Any]:
    """Write the image ``image`` to ``file``, and return a row of a table for it."""
    Image.new("RGB", (40, 30), (IMAGES[image], 0, 0)).save(folder / file)
    return {"source": "s.png", "instruction": "do it", "edited": file, "editor": f"editor-{image}"} | values


def imported(folder: Path, rows: list[dict[str, Any]], **options: Any) -> ImportReport:
    table = folder / "votes.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)))
    return import_folder(folder, table, folder.parent / "out", **options)


def vote_rows(folder: Path, *, shared_files: bool = False, **values: Any) -> list[dict[str, Any]]:
    """Return two rows per vote. Unless ``shared_files`` is set, each image is written once per row."""
    rows = []
    for number, (left, right, vote) in enumerate(VOTES):
        for image, side, preferred in ((left, "left", vote), (right, "right", OTHER[vote])):
            file = f"{image}.png" if shared_files else f"{number}-{side}.png"
            rows.append(row(folder, image, file, preferred=preferred, **values))
    return rows


@pytest.mark.parametrize("shared_files", [True, False])
@pytest.mark.parametrize("skip_bad", [True, False])
def test_votes_on_pairs_are_recognised_and_refused(folder: Path, shared_files: bool, skip_bad: bool) -> None:
    with pytest.raises(TableError, match="votes on pairs of edited images") as caught:
        imported(folder, vote_rows(folder, shared_files=shared_files), skip_bad=skip_bad)
    assert "1 of 1 cases" in caught.value.rule and "a separate case_id" in caught.value.rule
    assert not (folder.parent / "out" / "pairs").exists()


def test_votes_written_as_ranks_are_refused(folder: Path) -> None:
    rows = vote_rows(folder)
    for item in rows:
        item["rank"] = {"winner": 1, "same": 1, "loser": 2}[item.pop("preferred")]
    with pytest.raises(TableError, match="votes on pairs"):
        imported(folder, rows)


def test_votes_without_a_tie_and_with_one_winner_are_refused(folder: Path) -> None:
    rows = [row(folder, image, f"{number}.png", preferred=preferred)
            for number, (image, preferred) in enumerate([("a", "winner"), ("b", "loser"), ("a", "winner"), ("c", "loser")])]  # fmt: skip
    with pytest.raises(TableError, match="votes on pairs"):
        imported(folder, rows)


def test_votes_with_a_case_id_of_their_own_are_read(folder: Path) -> None:
    rows = [item | {"case_id": f"v{index // 2}"} for index, item in enumerate(vote_rows(folder))]
    report = imported(folder, rows)
    assert (report.counts["pairs"], report.counts["same"], report.dropped) == (3, 2, [])


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        (
            ["key", "instruction", "source_img", "left_output_image", "right_output_image", "vote_type"],
            "right_output_image",
        ),
        (["prompt", "path_src", "path1", "path2", "model1", "model2"], "path2"),
        (["source", "instruction", "imageA", "imageB"], "imageB"),
        (["text", "output_image", "rejected_images"], "rejected_images"),
        (["source", "instruction", "edited_winner", "edited_loser"], "edited_loser"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.json", "t.jsonl"])
def test_columns_of_a_vote_per_row_are_recognised(folder: Path, columns: list[str], named: str, name: str) -> None:
    line = json.dumps(dict.fromkeys(columns, "x"))
    text = {"t.csv": ",".join(columns) + "\n", "t.json": f"[{line}]", "t.jsonl": line}[name]
    (folder / name).write_text(text)
    with pytest.raises(TableError, match="vote on a pair") as caught:
        import_folder(folder, folder / name, folder.parent / "out")
    assert repr(named) in caught.value.rule


def test_many_numbered_columns_are_not_votes(folder: Path) -> None:
    (folder / "t.tsv").write_text("uid\tEditor1\tEditor2\tEditor3\n")
    with pytest.raises(TableError, match="column is missing"):
        import_folder(folder, folder / "t.tsv", folder.parent / "out")


def test_pairs_of_equal_images_are_dropped_and_counted(folder: Path) -> None:
    rows = [
        row(folder, "a", "a.png", rank=1),
        row(folder, "a", "again.png", rank=2, editor="other"),
        row(folder, "b", "b.png", rank=3),
    ]
    report = imported(folder, rows)
    assert report.counts == {
        "rows": 3, "bad_rows": 0, "cases": 1, "quadruples": 3, "pairs": 2, "same": 0, "equal_images": 1,
    }  # fmt: skip
    assert str(report.dropped[0]).startswith("line 1 and line 2: pair dropped: the two edited images are identical")
    assert [(pair.winner.image.sha256 != pair.loser.image.sha256) for pair in written(report)] == [True, True]


@pytest.mark.parametrize(
    ("first", "second"), [(("winner", "loser"), ("loser", "winner")), (("winner", "loser"), ("same", "same"))]
)
def test_contradicting_pairs_are_dropped_across_case_ids(folder: Path, first: Any, second: Any) -> None:
    rows = [
        row(folder, "a", "a.png", preferred=first[0], case_id="one"),
        row(folder, "b", "b.png", preferred=first[1], case_id="one"),
        row(folder, "a", "a2.png", preferred=second[0], case_id="two"),
        row(folder, "b", "b2.png", preferred=second[1], case_id="two"),
        row(folder, "a", "a.png", preferred=first[0], case_id="three") | {"instruction": "something else"},
        row(folder, "b", "b.png", preferred=first[1], case_id="three") | {"instruction": "something else"},
    ]
    report = imported(folder, rows)
    assert (report.counts["pairs"], report.counts["same"], report.counts["contradicting"]) == (1, 0, 2)
    assert [pair.case.case_id for pair in written(report)] == ["three"]


def test_vote_that_is_repeated_is_kept(folder: Path) -> None:
    rows = [row(folder, image, f"{image}.png", preferred=preferred, case_id=case)
            for case in ("one", "two") for image, preferred in (("a", "winner"), ("b", "loser"))]  # fmt: skip
    assert imported(folder, rows).counts["pairs"] == 2


def test_repeated_row_is_a_mistake_and_not_a_vote(folder: Path) -> None:
    rows = [row(folder, "a", "a.png", preferred="winner"), row(folder, "b", "b.png", preferred="loser")]
    [problem] = imported(folder, [*rows, rows[0]]).problems
    assert "line 1 has the same case, the same edited image and the same editor" in problem.rule


def test_equal_images_of_two_editors_are_a_ranking(folder: Path) -> None:
    rows = [
        row(folder, "a", "a.png", preferred="winner"),
        row(folder, "b", "b.png", preferred="loser"),
        row(folder, "b", "c.png", preferred="loser", editor="editor-c"),
        row(folder, "d", "d.png", preferred="winner"),
    ]
    assert imported(folder, rows).counts["pairs"] == 4


def test_check_reports_equal_images_and_contradictions(folder: Path, tmp_path: Path) -> None:
    [pair] = written(imported(folder, [row(folder, "a", "a.png", rank=1), row(folder, "b", "b.png", rank=2)]))
    equal = pair.loser.model_copy(update={"image": pair.winner.image})
    rows = [
        pair,
        pair.model_copy(update={"pair_id": "p2", "winner": pair.loser, "loser": pair.winner}),
        pair.model_copy(update={"pair_id": "p3", "loser": equal}),
    ]
    write_table(tmp_path / "p.parquet", rows, PreferencePair)
    found = [(problem.row, problem.rule) for problem in check_file(tmp_path / "p.parquet")]
    assert [number for number, _ in found] == [2, 3]
    assert "different preference" in found[0][1] and "are identical" in found[1][1]


def test_command_reports_the_dropped_pairs(folder: Path) -> None:
    rows = [row(folder, "a", "a.png", rank=1), row(folder, "a", "b.png", rank=2, editor="b")]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = CliRunner().invoke(
        app, ["data", "import", str(folder), "--table", str(folder / "t.jsonl"), "--out", str(folder.parent / "out")]
    )
    assert (done.exit_code, "equal_images 1" in done.output) == (0, True)
    assert "line 1 and line 2: pair dropped" in done.output


def written(report: ImportReport) -> list[PreferencePair]:
    return list(read_table(report.files[2], PreferencePair))
