"""Run the operator as a local process that a test can kill and restart."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import yaml

from tests.cluster.conftest import ROOT, Lab, until


class Operator:
    """An operator process that watches the lab's namespace."""

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
            until("the operator is healthy", self.healthy, 60, 0.2)

    def healthy(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self._health}/readyz", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """Send SIGKILL."""
        self._stop(signal.SIGKILL)

    def stop(self) -> None:
        self._stop(signal.SIGTERM)

    def _stop(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None


class Relay:
    """A TCP proxy on loopback to the API server that a test can interrupt, and a kubeconfig that uses the proxy."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        server = urlsplit(config["clusters"][0]["cluster"]["server"])
        self._target = (server.hostname or "", server.port or 443)
        self.on_loopback = self._target[0] in ("127.0.0.1", "localhost")
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        self.kubeconfig = folder / "kubeconfig-through-relay"
        self.kubeconfig.write_text(yaml.safe_dump(config))
        self._open: list[socket.socket] = []
        self._cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections, and refuse new ones until ``restore`` is called."""
        self._cut.set()
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._open.clear()

    def restore(self) -> None:
        """Accept connections again."""
        self._cut.clear()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._cut.is_set():
                client.close()
                continue
            server = socket.create_connection(self._target)
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


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


def install_crd(lab: Lab) -> bool:
    """Install the CRD, and return whether it existed before. ``editr1 run`` uses the operator if the CRD exists."""
    known = bool(lab.kubectl("get", "crd", "editruns.editr1.dev", "-o", "name", check=False))
    lab.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "charts/operator/files/editruns.yaml"))
    lab.wait_established("editruns.editr1.dev")
    return known


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
