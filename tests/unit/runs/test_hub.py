"""Resolution of hub references: current commits, rejected requests and an unreachable hub."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from editr1.artifacts import open_store
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.runs.references import parse_reference
from editr1.runs.resolve import HubUnreachable, resolve_reference


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://hub.example/api/models/a/b"))


def resolve(text: str, tmp_path: Path) -> str:
    return resolve_reference(parse_reference(text), open_store(StoreConfig(url=tmp_path.as_uri())), {}, "input model")


def hub_fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def model_info(_self: HfApi, _name: str, revision: str | None = None) -> Any:
        raise error

    monkeypatch.setattr(HfApi, "model_info", model_info)


@pytest.mark.parametrize(
    "error",
    [
        HfHubHTTPError("busy", response=response(503)),
        HfHubHTTPError("slow down", response=response(429)),
        OSError("down"),
    ],
)
def test_unresponsive_hub_is_a_transient_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_fails(monkeypatch, error)
    with pytest.raises(HubUnreachable, match="hub:a/b@<40 hex digits>"):
        resolve("hub:a/b", tmp_path)


@pytest.mark.parametrize(
    "error",
    [RepositoryNotFoundError("none", response=response(404)), HfHubHTTPError("no", response=response(403))],
)
def test_request_rejected_by_the_hub_is_a_permanent_error(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_fails(monkeypatch, error)
    with pytest.raises(ConfigError, match="'a/b'") as raised:
        resolve("hub:a/b", tmp_path)
    assert not isinstance(raised.value, HubUnreachable)


def test_reference_with_a_commit_needs_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_fails(monkeypatch, AssertionError("a request was sent"))
    named = f"hub:a/b@{'0a' * 20}"
    assert resolve(named, tmp_path) == named


def test_branch_resolves_to_its_current_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = {"main": "1" * 40, None: "2" * 40}
    monkeypatch.setattr(HfApi, "model_info", lambda _s, _n, revision=None: SimpleNamespace(sha=commits[revision]))
    assert resolve("hub:a/b@main", tmp_path) == f"hub:a/b@{'1' * 40}"
    assert resolve("hub:a/b", tmp_path) == f"hub:a/b@{'2' * 40}"


def test_missing_revision_is_reported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_fails(monkeypatch, RevisionNotFoundError("none", response=response(404)))
    with pytest.raises(ConfigError, match="'a/b' has no revision 'v9'"):
        resolve("hub:a/b@v9", tmp_path)


def test_branch_resolves_from_the_cache_while_the_hub_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_fails(monkeypatch, OSError("offline"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_a, **_k: str(tmp_path / "snapshots" / ("3" * 40)))
    assert resolve("hub:a/b@v1", tmp_path) == f"hub:a/b@{'3' * 40}"
    with pytest.raises(HubUnreachable):
        resolve("hub:a/b", tmp_path)


def test_uncached_branch_is_a_transient_error_while_the_hub_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_fails(monkeypatch, OSError("offline"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(HubUnreachable, match="could not be looked up"):
        resolve("hub:a/b@v1", tmp_path)
