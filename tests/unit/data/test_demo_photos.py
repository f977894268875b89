"""The demo photographs cover all image modes, can be imported, and are ranked by their known faults."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editr1.data.check import check_file
from editr1.data.demo_photos import make_photos
from editr1.data.images import decode_image
from editr1.data.importer import ImportReport, import_folder
from editr1.data.summary import summarise
from editr1.data.tables import read_table
from editr1.data.types import EncodedImage, PreferencePair, Quadruple

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"), cases_per_photo=1)


@pytest.fixture(scope="module")
def imported(photos: Path) -> ImportReport:
    return import_folder(photos.parent, photos, photos.parent / "tables", max_side=160)


def pixels(image: EncodedImage) -> np.ndarray:
    return np.asarray(decode_image(image.data), dtype=float)


def test_sources_cover_several_image_modes_and_exif_rotation(photos: Path) -> None:
    modes = {path.stem: Image.open(path).mode for path in (photos.parent / "sources").iterdir()}
    assert modes == {
        "astronaut": "RGB", "chelsea": "RGBA", "coffee": "P", "rocket": "RGB", "motorcycle": "I;16",
        "china": "CMYK", "flower": "RGB",
    }  # fmt: skip
    lying = (photos.parent / "sources" / "flower.jpg").read_bytes()
    assert Image.open(photos.parent / "sources" / "flower.jpg").size == (427, 640)
    assert decode_image(lying).size == (640, 427)


def test_demo_is_imported_without_problems(imported: ImportReport) -> None:
    assert imported.problems == []
    assert imported.counts == {"rows": 35, "bad_rows": 0, "cases": 7, "quadruples": 35, "pairs": 56, "same": 14}
    for path in imported.files:
        assert list(check_file(path)) == []


def test_correct_edit_wins_every_pair_and_missing_or_wrong_edit_wins_none(imported: ImportReport) -> None:
    wins = Counter(
        (pair.winner.editor, pair.loser.editor)
        for pair in read_table(imported.files[2], PreferencePair)
        if pair.label == "winner"
    )
    assert not [pair for pair in wins if pair[0] in ("nothing-done", "other-edit") or pair[1] == "as-asked"]
    assert sum(count for (winner, _), count in wins.items() if winner == "as-asked") == 7 * 4


def test_each_fault_is_visible(imported: ImportReport) -> None:
    by_case: dict[str, dict[str, Quadruple]] = {}
    for row in read_table(imported.files[1], Quadruple):
        by_case.setdefault(row.case.case_id, {})[row.candidate.editor] = row
    assert {len(rows) for rows in by_case.values()} == {5}
    for name, rows in by_case.items():
        images = {editor: pixels(row.candidate.image) for editor, row in rows.items()}
        source = pixels(rows["as-asked"].case.source)
        assert np.abs(images["nothing-done"] - source).mean() < 6, name
        for editor in ("bordered", "false-colours", "nothing-done"):
            same_size = images[editor].shape == images["as-asked"].shape
            assert not same_size or np.abs(images[editor] - images["as-asked"]).mean() > 2, (name, editor)
        assert images["bordered"][0].min() > 240, name


def test_demo_is_deterministic(photos: Path, tmp_path: Path) -> None:
    again = make_photos(tmp_path, cases_per_photo=1)
    assert again.read_text() == photos.read_text()
    for path in (photos.parent / "edited").iterdir():
        assert (tmp_path / "edited" / path.name).read_bytes() == path.read_bytes()


def test_table_is_summarised(imported: ImportReport) -> None:
    summary = summarise(imported.files[1], first=2)
    assert (summary.kind, summary.version, summary.images) == ("Quadruple", "editr1.dev/table/v1", "digest")
    assert (summary.rows, summary.scanned, summary.distinct_cases, summary.image_count) == (35, 35, 7, 70)
    assert summary.principles == {"Instruction Following": 7, "Feature Preservation": 7, "Image Quality": 7}
    assert summary.editors["as-asked"] == 7
    assert summary.image_sides is not None and summary.image_sides[1] <= 160
    assert summary.trace_length is None
    assert len(summary.first) == 2 and summary.first[0]["case.case_id"] == "astronaut-grey"
    assert all(isinstance(text, str) and len(text) <= 80 for row in summary.first for text in row.values())
    pairs = summarise(imported.files[2], scan=10)
    assert (pairs.rows, pairs.scanned, sum(pairs.labels.values())) == (70, 10, 10)
