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


def test_photographs_are_curated_into_rows_pairs_and_cases(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "editr1.cli.main"]
    photos, imported = tmp_path / "photos", tmp_path / "imported"
    subprocess.run([*run, "data", "demo-photos", str(photos), "--cases", "2"], check=True)
    subprocess.run(
        [
            *run,
            "data",
            "import",
            str(photos),
            "--table",
            str(photos / "table.csv"),
            "--out",
            str(imported),
            "--max-side",
            "256",
        ],
        check=True,
    )
    done = subprocess.run(
        [
            *run, "curate", "--data", str(imported), "--out", str(tmp_path / "run"),
            "--set", "labeller=photos", "--set", "test_fraction=0.4",
            "--set", "curation.members=[{name: photo-judge, model: photo-judge, temperature: 1.0}]",
            "--set", "curation.principles={total: [3, 10], follow: [1, 4], keep: [1, 4], quality: [1, 3]}",
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("rows", "pairs", "pairs-test", "cases", "cases-test"):
        table = tmp_path / "run" / "outputs" / name / f"{name}.parquet"
        subprocess.run([*run, "data", "check", str(table)], check=True)
    sources = {
        name: source_images(tmp_path / "run" / "outputs" / name / f"{name}.parquet", kind)
        for name, kind in KINDS.items()
    }
    assert not (sources["rows"] | sources["pairs"] | sources["cases"]) & (sources["pairs-test"] | sources["cases-test"])


def source_images(table: Path, kind: type[SftRow] | type[PreferencePair] | type[EditCase]) -> set[str]:
    """Return the digests of the source images in a table. With two cases per photograph, an id does not identify one."""
    found = set()
    for row in read_table(table, kind):
        case = row if isinstance(row, EditCase) else row.quadruple.case if isinstance(row, SftRow) else row.case
        found.add(case.source.sha256)
    assert found
    return found
