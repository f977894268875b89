"""Helm, by the program where it is installed, else by the library that this package brings: one place for both."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import yaml

from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.errors import ClusterUnreachable

Object = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where it was built in: an operator renders many charts."""


_COPYING = threading.Lock()


_SILENT = re.compile(
    r"(?i)cluster unreachable|connection (refused|reset)|i/o timeout|handshake timeout|unexpected EOF|deadline exceeded"
    r"|too many requests|service unavailable|server is currently unable"
)


class HelmError(ConfigError):
    """A chart cannot be rendered or installed; the message is Helm's, without its prefixes."""


@dataclass(frozen=True)
class Target:
    """The cluster and namespace that a release goes to; None leaves kubeconfig's own choice."""

    namespace: str
    context: str | None = None
    kubeconfig: Path | None = None
    storage: str = "secret"
    """Where Helm keeps releases: secret or configmap."""


class Helm(Protocol):
    """What is needed of Helm."""

    def render(self, chart: str, name: str, namespace: str, values: Mapping[str, Any]) -> list[Object]:
        """The objects of a release, tests left out. Raises HelmError when values are refused."""

    def install(self, chart: str, name: str, target: Target, values: Mapping[str, Any], *, dry_run: bool) -> None:
        """Install, or have the server check every object. Raises HelmError; nothing is left behind when it fails."""

    def uninstall(self, name: str, target: Target) -> bool:
        """Remove a release and its objects; whether there was one."""

    def releases(self, target: Target) -> dict[str, str]:
        """Names of the namespace's releases, with chart and version (``sft-0.1.0``)."""


def find_helm() -> Helm:
    """The program when it is on PATH (``EDITR1_HELM=library`` prefers the library), else the library."""
    program = shutil.which("helm")
    if program and os.environ.get("EDITR1_HELM") != "library":
        return HelmProgram(program)
    try:
        import helm_python  # noqa: F401
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"Helm is needed: put the helm program (4 or newer) on PATH, or pip install helm-python-sdk ({error})"
        ) from None
    return HelmLibrary()


def chart_folder(chart: str) -> Path:
    """A copy of a chart that ships with the package, links followed: Helm warns of every link. Raises ConfigError."""
    if not (resources.files("editr1") / "charts" / chart / "Chart.yaml").is_file():
        raise ConfigError(f"{chart!r}: no such chart")
    with _COPYING:  # a second copy would be removed as soon as nobody holds it, under whoever reads from it
        copies = _copies()
    return Path(copies.name) / chart


@cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    """All charts, copied once a process; removed when it ends."""
    scratch = tempfile.TemporaryDirectory(prefix="editr1-charts-")
    with resources.as_file(resources.files("editr1") / "charts") as folder:
        for chart in folder.iterdir():
            if (chart / "Chart.yaml").is_file():
                shutil.copytree(chart, Path(scratch.name) / chart.name)
    return scratch


@cache
def chart_version(chart: str) -> str:
    """Version of a chart that ships with the package."""
    return str(yaml.safe_load((chart_folder(chart) / "Chart.yaml").read_text(encoding="utf-8"))["version"])


def image_of(objects: Sequence[Object]) -> str:
    """The image of the stage's container among rendered objects."""
    for item in objects:
        spec = item.get("spec", {})
        templates = [spec["template"]] if item["kind"] == "Deployment" else []
        templates += [replica["template"] for replica in spec.get("pytorchReplicaSpecs", {}).values()]
        for template in templates:
            return str(template["spec"]["containers"][0]["image"])
    return ""


class HelmLibrary:
    """Helm 4's engine through helm-python-sdk."""

    def render(self, chart: str, name: str, namespace: str, values: Mapping[str, Any]) -> list[Object]:
        """See :class:`Helm`."""
        import helm_python

        try:
            with helm_python.Chart.load(chart_folder(chart)) as loaded:
                loaded.validate_schema(dict(values))
                texts = loaded.render(dict(values), name=name, namespace=namespace)
        except helm_python.HelmError as error:
            raise _refusal(str(error)) from None
        return _objects(text for path, text in sorted(texts.items()) if path.endswith(".yaml"))

    def install(self, chart: str, name: str, target: Target, values: Mapping[str, Any], *, dry_run: bool) -> None:
        """See :class:`Helm`."""
        import helm_python

        try:
            with self._config(target) as config:
                config.install(
                    chart_folder(chart),
                    name,
                    dict(values),
                    namespace=target.namespace,
                    dry_run="server" if dry_run else None,
                )
        except helm_python.HelmError as error:
            raise _refusal(str(error)) from None

    def uninstall(self, name: str, target: Target) -> bool:
        """See :class:`Helm`."""
        import helm_python

        if name not in self.releases(target):
            return False
        try:
            with self._config(target) as config:
                config.uninstall(name)
        except helm_python.HelmError as error:
            raise _refusal(str(error)) from None
        return True

    def releases(self, target: Target) -> dict[str, str]:
        """See :class:`Helm`."""
        import helm_python

        try:
            with self._config(target) as config:
                return {str(item["name"]): str(item.get("chart", "")) for item in config.list()}
        except helm_python.HelmError as error:
            raise _refusal(str(error)) from None

    def _config(self, target: Target) -> Any:
        import helm_python

        return helm_python.Config(
            namespace=target.namespace,
            kube_context=target.context,
            kubeconfig_path=str(target.kubeconfig) if target.kubeconfig else None,
            storage_driver=target.storage,
        )


class HelmProgram:
    """The helm program."""

    def __init__(self, program: str) -> None:
        self._program = program

    def render(self, chart: str, name: str, namespace: str, values: Mapping[str, Any]) -> list[Object]:
        """See :class:`Helm`."""
        with _values_file(values) as file:
            arguments = [
                "template",
                name,
                str(chart_folder(chart)),
                "--namespace",
                namespace,
                "--values",
                file,
                "--skip-tests",
            ]
            return _objects([self._run(arguments, {})])

    def install(self, chart: str, name: str, target: Target, values: Mapping[str, Any], *, dry_run: bool) -> None:
        """See :class:`Helm`."""
        with _values_file(values) as file:
            arguments = ["install", name, str(chart_folder(chart)), "--values", file]
            self._on(target, arguments + (["--dry-run=server"] if dry_run else []))

    def uninstall(self, name: str, target: Target) -> bool:
        """See :class:`Helm`."""
        if name not in self.releases(target):
            return False
        self._on(target, ["uninstall", name])
        return True

    def releases(self, target: Target) -> dict[str, str]:
        """See :class:`Helm`."""
        listed = json.loads(self._on(target, ["list", "--output", "json"]))
        return {str(item["name"]): str(item.get("chart", "")) for item in listed}

    def _on(self, target: Target, arguments: list[str]) -> str:
        where = ["--namespace", target.namespace]
        where += ["--kube-context", target.context] if target.context else []
        where += ["--kubeconfig", str(target.kubeconfig)] if target.kubeconfig else []
        return self._run(arguments + where, {"HELM_DRIVER": target.storage})

    def _run(self, arguments: list[str], environment: Mapping[str, str]) -> str:
        done = subprocess.run(
            [self._program, *arguments], env={**os.environ, **environment}, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise _refusal(done.stderr or done.stdout)
        return done.stdout


@contextmanager
def _values_file(values: Mapping[str, Any]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.json"
        file.write_text(json.dumps(values), encoding="utf-8")
        yield str(file)


def _objects(texts: Any) -> list[Object]:
    found = [item for text in texts for item in yaml.load_all(text, Loader=_LOADER) if item]
    return [item for item in found if "helm.sh/hook" not in (item["metadata"].get("annotations") or {})]


def _refusal(text: str) -> ConfigError:
    """Helm's message as an error; ClusterUnreachable where it speaks of an API server that does not answer."""
    message = _plain(text)
    return ClusterUnreachable(message) if _SILENT.search(message) else HelmError(message)


def _plain(text: str) -> str:
    """Helm's message without log lines and wrappings that say nothing to a user."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and " level=" not in line[:60]]
    kept = [line for line in lines if not line.startswith(("level=", "walk.go", "WARNING", "Use --debug"))]
    message = "\n".join(kept) or text.strip()
    for head in ("Error: ", "INSTALLATION FAILED: ", "execution error at "):
        message = message.removeprefix(head)
    if message.startswith("(") and "): " in message:
        message = message.split("): ", 1)[1]
    return message.strip()
