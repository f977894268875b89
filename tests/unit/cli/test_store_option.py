"""Commands with a store option reject invalid addresses and list the valid forms."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.artifacts import ArtifactStore
from editr1.cli.main import app
from editr1.config.store import StoreConfig
from editr1.errors import ExitCode
from editr1.launch.kubernetes import connect

SAMPLE = Path(__file__).parents[3] / "manifests" / "samples" / "quickstart.yaml"
BASE = "builtin:shapes-verifier"


@pytest.mark.parametrize(
    "command",
    [
        ["run", str(SAMPLE), "--check"],
        ["run", str(SAMPLE), "--on", "kubernetes"],
        ["curate", "--out", "out"],
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


@pytest.mark.parametrize("command", [["runs", "ls"], ["runs", "show", "x"], ["artifacts", "ls"]], ids=" ".join)
@pytest.mark.parametrize("store", [["--store", "s3://other/y"], []], ids=["store", "cluster file alone"])
def test_store_on_s3_is_opened_with_the_endpoint_of_the_cluster_file(
    command: list[str], store: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "store_endpoint: http://127.0.0.1:9\nvalues: {store: {url: s3://bucket/x, endpoint: http://s3:8333}}\n"
    )
    opened: list[StoreConfig] = []

    def open_store(config: StoreConfig, _wait: object = None) -> ArtifactStore:
        opened.append(config)
        return real(StoreConfig(url=(tmp_path / "store").as_uri()))

    real = connect.open_store
    monkeypatch.setattr(connect, "open_store", open_store)
    monkeypatch.delenv("EDITR1_S3_ENDPOINT", raising=False)
    monkeypatch.delenv("EDITR1_STORE", raising=False)
    CliRunner().invoke(app, [*command, *store, "--cluster", str(file)])
    assert [(one.url, one.endpoint) for one in opened] == [
        (store[1] if store else "s3://bucket/x", "http://127.0.0.1:9")
    ]
