"""Releases are found without their job, and their objects are removed with it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from editr1.cli import cluster as commands
from editr1.cli.main import app
from editr1.launch.kubernetes.errors import RequestRefused
from editr1.launch.kubernetes.release_objects import releases_of, remove_with_job

JOB = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "r-sft", "uid": "u1"}}
CONFIG = {"kind": "ConfigMap", "metadata": {"name": "r-sft"}}


class Api:
    """Fake namespace that contains the given ConfigMaps and jobs."""

    namespace = "lab"

    def __init__(self, *, config_maps: tuple[str, ...] = (), jobs: tuple[str, ...] = ()) -> None:
        self.target = SimpleNamespace(storage="secret")
        self._config_maps, self._jobs = config_maps, jobs
        self.patched: list[tuple[str, str, Any]] = []

    def jobs(self, run: str | None = None) -> list[Any]:
        return [SimpleNamespace(name=name, run="r") for name in self._jobs if run in (None, "r")]

    def find(self, kind: str, labelSelector: str) -> list[Any]:
        if kind == "Secret":
            assert labelSelector == "owner=helm,name=r-sft"
            return [{"metadata": {"name": "sh.helm.release.v1.r-sft.v1"}}]
        known = self._config_maps if labelSelector.endswith("editr1.dev/run=r") else ()
        return [{"metadata": {"name": name}} for name in known]

    def get(self, kind: str, name: str) -> Any:
        return JOB if (kind, name) == ("PyTorchJob", "r-sft") else None

    def patch(self, kind: str, name: str, body: Any) -> None:
        if kind == "ServiceAccount":
            raise RequestRefused(403, "forbidden")
        self.patched.append((kind, name, body["metadata"]["ownerReferences"][0]["uid"]))


def helm(*releases: str) -> Any:
    remaining = set(releases)

    def uninstall(name: str, _target: Any) -> bool:
        known = name in remaining
        remaining.discard(name)
        return known

    return SimpleNamespace(
        chart_of_release=lambda name, _target: "sft-0.1.0" if name in remaining else None, uninstall=uninstall
    )


def test_releases_are_found_by_job_config_map_or_name() -> None:
    api = cast(Any, Api(config_maps=("r-sft",), jobs=("r-gcpo",)))
    assert releases_of(api, helm(), "r") == ["r-gcpo", "r-sft"]
    assert releases_of(api, helm(), "r-gcpo") == ["r-gcpo"]
    assert releases_of(api, helm("old"), "old") == ["old"]
    assert releases_of(api, helm(), "none") == []


def test_objects_and_stored_release_are_owned_by_the_job() -> None:
    api = Api()
    remove_with_job(cast(Any, api), "r-sft", [CONFIG, JOB])
    assert api.patched == [("ConfigMap", "r-sft", "u1"), ("Secret", "sh.helm.release.v1.r-sft.v1", "u1")]
    service = Api()
    remove_with_job(cast(Any, service), "rrm", [{"kind": "Deployment", "metadata": {"name": "rrm"}}])
    assert not service.patched


def test_missing_permission_to_change_an_object_is_no_error() -> None:
    account = {"kind": "ServiceAccount", "metadata": {"name": "r-sft"}}
    remove_with_job(cast(Any, Api()), "r-sft", [account, CONFIG, JOB])


@pytest.mark.parametrize(
    ("run", "releases", "code", "words"),
    [
        ("r", ("r-sft",), 0, "uninstalled r-sft"),
        ("r", (), 2, "not removed: r-sft: no secret contains a Helm release with that name"),
        ("none", (), 2, "no run or release 'none' in namespace lab"),
    ],
)
def test_cancel_fails_if_it_removes_nothing(
    monkeypatch: pytest.MonkeyPatch, run: str, releases: tuple[str, ...], code: int, words: str
) -> None:
    connection = SimpleNamespace(api=Api(config_maps=("r-sft",)), helm=helm(*releases))
    monkeypatch.setattr(commands, "_connect", lambda *_: connection)
    monkeypatch.setattr(commands, "_edit_run", lambda *_: None)
    done = CliRunner().invoke(app, ["cancel", run])
    assert done.exit_code == code and words in " ".join(done.output.split())
