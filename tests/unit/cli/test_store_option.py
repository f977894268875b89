"""Commands with a store option reject invalid addresses and list the valid forms."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.errors import ExitCode

SAMPLE = Path(__file__).parents[3] / "manifests" / "samples" / "quickstart.yaml"
BASE = "builtin:shapes-verifier"


@pytest.mark.parametrize(
    "command",
    [
        ["run", str(SAMPLE), "--check"],
        ["run", str(SAMPLE), "--on", "kubernetes"],
        ["sft", "--rows", BASE, "--model", BASE, "--out", "out"],
        ["serve", "--model", BASE],
        ["runs", "ls"],
        ["artifacts", "ls"],
        ["timeline", "quickstart"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("store", ["data/store", "s3:///prefix", "http://host/bucket"])
def test_invalid_store_address_is_rejected(
    command: list[str], store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*command, "--store", store])
    assert done.exit_code == ExitCode.CONFIG, done.output
    assert "error: store" in done.output and repr(store) in done.output
    assert "s3://bucket/prefix" in done.output
    assert list(tmp_path.iterdir()) == []
