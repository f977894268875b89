"""Settings of a namespace, and settings that only the operator's administrator may change."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.config.loader import ConfigError
from editr1_operator.settings import SettingsCache, read_run

BASE = {
    "registry": "here",
    "values": {"image": {"tag": "1"}, "store": {"url": "s3://bucket/x", "endpoint": "http://s3:8333"}},
}


class FakeClient:
    def __init__(self, settings: dict[str, Any] | str | None = None) -> None:
        text = settings if isinstance(settings, str) else yaml.safe_dump(settings)
        self.found = None if settings is None else {"data": {"cluster.yaml": text}}

    def get(self, *_: str) -> Any:
        return self.found


def settings_cache(tmp_path: Path, *stores: str, base: dict[str, Any] = BASE) -> SettingsCache:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(base))
    return SettingsCache(file, stores)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITR1_S3_ACCESS_KEY", "a")
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", "b")
    monkeypatch.delenv("EDITR1_S3_ENDPOINT", raising=False)


def test_settings_of_a_namespace_override_those_of_the_operator(tmp_path: Path) -> None:
    over = {"values": {"image": {"tag": "2"}}, "store_endpoint": "http://127.0.0.1:8333"}
    found = settings_cache(tmp_path).of_namespace(FakeClient(over), "lab", None)  # type: ignore[arg-type]
    assert found.cluster.values["image"] == {"tag": "2"} and found.cluster.registry == "here"
    assert found.config.endpoint == "http://s3:8333", "the operator used the endpoint for machines outside the cluster"


@pytest.mark.parametrize(
    ("over", "url", "message"),
    [
        (
            {"values": {"store": {"endpoint": "http://elsewhere:1"}}},
            None,
            "not allowed by the operator, which uses",
        ),
        (None, "s3://other/x", "not allowed by the operator; use a store below s3://bucket/x"),
        (None, "s3://bucket/xy", "not allowed by the operator; use a store below s3://bucket/x"),
        ("[", None, "not valid YAML"),
        ("- a", None, "must be a YAML mapping"),
        ({"regisrty": "x"}, None, "regisrty"),
    ],
)
def test_invalid_or_forbidden_settings_of_a_namespace_are_rejected(
    tmp_path: Path, over: Any, url: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_cache(tmp_path, "s3://bucket/x").of_namespace(FakeClient(over), "lab", url)  # type: ignore[arg-type]


def test_missing_store_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no artifact store is configured"):
        settings_cache(tmp_path, base={}).of_namespace(FakeClient(), "lab", None)  # type: ignore[arg-type]


def test_editrun_is_validated_like_a_run_file() -> None:
    body = {
        "apiVersion": "editr1.dev/v1alpha1",
        "kind": "EditRun",
        "metadata": {"name": "r", "namespace": "lab", "uid": "u"},
        "spec": {
            "stages": [{"name": "sft", "kind": "sft", "inputs": {"rows": "stage:none/rows", "model": "builtin:x"}}]
        },
    }
    with pytest.raises(ConfigError) as caught:
        read_run(body)
    assert "EditRun r: spec.stages.sft.inputs.rows: no earlier stage is named 'none'" in str(caught.value)
    assert "builtin:x" in str(caught.value)
