"""The operator as a process of this machine against the cluster, so that a test can kill it and start it again."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster.conftest import ROOT, Lab, until


class Operator:
    """Watches the lab's namespace. ``kill`` is SIGKILL."""

    def __init__(self, lab: Lab, folder: Path, **environment: str) -> None:
        self._log = (folder / "operator.log").open("ab")
        self._health, self.metrics = _port(), _port()
        settings = {key: value for key, value in lab.settings.items() if key != "store_endpoint"}
        self._environment = {
            **lab.environment,
            "EDITR1_CLUSTER_FILE": "",
            "EDITR1_OPERATOR_NAMESPACES": lab.namespace,
            "EDITR1_OPERATOR_CLUSTER_FILE": lab.file("operator-cluster.yaml", settings),
            "EDITR1_OPERATOR_LIVENESS_PORT": str(self._health),
            "EDITR1_OPERATOR_METRICS_PORT": str(self.metrics),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "operator.log"

    def start(self, *, wait: bool = True) -> None:
        command = [sys.executable, "-m", "editr1_operator"]
        self._process = subprocess.Popen(
            command, env=self._environment, stdout=self._log, stderr=self._log, cwd=self.log.parent
        )
        if wait:
            until("the operator answers", self.healthy, 60, 0.2)

    def healthy(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._health}/healthz", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        self._stop(signal.SIGKILL)

    def stop(self) -> None:
        self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None


def edit_run(name: str, stages: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "editr1.dev/v1alpha1",
        "kind": "EditRun",
        "metadata": {"name": name},
        "spec": {"stages": stages, **spec},
    }


def apply(lab: Lab, body: dict[str, Any]) -> None:
    lab.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(body))


def status(lab: Lab, name: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.get("editrun", name).get("status", {})
    return found


def stage(lab: Lab, run: str, name: str) -> dict[str, Any]:
    return next((item for item in status(lab, run).get("stages", ()) if item["name"] == name), {})


def wait_state(lab: Lab, name: str, *states: str, seconds: float = 180) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        found = status(lab, name)
        return found if found.get("state") in states else None

    try:
        found: dict[str, Any] = until(f"run {name} is {' or '.join(states)}", over, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {status(lab, name)}") from None
    return found


def install_crd(lab: Lab) -> None:
    lab.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "charts/operator/files/editruns.yaml"))
    lab.kubectl("wait", "--for=condition=Established", "crd/editruns.editr1.dev", "--timeout=60s")


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
