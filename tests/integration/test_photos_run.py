"""Import and curation of photographs of real sizes and modes."""

import subprocess
import sys
from pathlib import Path

import pytest

from editr1.data.tables import read_table
from editr1.data.types import EditCase, PreferencePair, SftRow

KINDS = {
    "rows": SftRow,
    "pairs": PreferencePair,
    "pairs-test": PreferencePair,
    "cases": EditCase,
    "cases-test": EditCase,
}

pytest.importorskip("skimage", reason="needs the extra photos")


RUN = [sys.executable, "-m", "editr1.cli.main"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Import the demo photographs, with two cases per photograph."""
    folder = tmp_path_factory.mktemp("photos")
    photos, out = folder / "photos", folder / "imported"
    subprocess.run([*RUN, "data", "demo-photos", str(photos), "--cases", "2"], check=True)
    table = ["--table", str(photos / "table.csv"), "--out", str(out), "--max-side", "256"]
    subprocess.run([*RUN, "data", "import", str(photos), *table], check=True)
    return out


def curated(imported: Path, out: Path, seed: int = 0) -> Path:
    """Run the stage ``curate``, and return the folder with its outputs."""
    done = subprocess.run(
        [
            *RUN, "curate", "--data", str(imported), "--out", str(out),
            "--set", "labeller=photos", "--set", "test_fraction=0.4", "--set", f"seed={seed}",
            "--set", "curation.members=[{name: photo-judge, model: photo-judge, temperature: 1.0}]",
            "--set", "curation.principles={total: [3, 10], follow: [1, 4], keep: [1, 4], quality: [1, 3]}",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out / "outputs"


@pytest.fixture(scope="module")
def outputs(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return curated(imported, tmp_path_factory.mktemp("run") / "out")


def test_photographs_are_curated_into_rows_pairs_and_cases(outputs: Path) -> None:
    for name in KINDS:
        subprocess.run([*RUN, "data", "check", str(outputs / name / f"{name}.parquet")], check=True)
    sources = {name: source_images(outputs / name / f"{name}.parquet", kind) for name, kind in KINDS.items()}
    assert not (sources["rows"] | sources["pairs"] | sources["cases"]) & (sources["pairs-test"] | sources["cases-test"])


def test_seed_of_the_stage_changes_the_labels_of_imported_data(imported: Path, outputs: Path, tmp_path: Path) -> None:
    first, second = (
        [row.trace for row in read_table(folder / "rows" / "rows.parquet", SftRow)]
        for folder in (outputs, curated(imported, tmp_path / "out", seed=1))
    )
    assert len(first) == len(second) and first != second


def source_images(table: Path, kind: type[SftRow] | type[PreferencePair] | type[EditCase]) -> set[str]:
    """Return the digests of the source images in a table. With two cases per photograph, an id does not identify one."""
    found = set()
    for row in read_table(table, kind):
        case = row if isinstance(row, EditCase) else row.quadruple.case if isinstance(row, SftRow) else row.case
        found.add(case.source.sha256)
    assert found
    return found
