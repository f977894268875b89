"""Render, install and uninstall the Helm charts that ship with editr1."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from editr1.config.loader import ConfigError, read_yaml
from editr1.launch.kubernetes.errors import ClusterUnreachable

Object = dict[str, Any]
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""YAML loader. The loader of libyaml is preferred, because it is much faster and the operator renders many charts."""
_COPYING = threading.Lock()
_UNREACHABLE = re.compile(
    r"(?i)cluster unreachable|connection (refused|reset)|i/o timeout|handshake timeout|unexpected EOF|deadline exceeded"
    r"|too many requests|service unavailable|server is currently unable"
)


class HelmError(ConfigError):
    """Helm could not render, install or uninstall a chart. The message is Helm's error message without prefixes such as ``Error:``."""


@dataclass(frozen=True)
class Target:
    """The cluster and the namespace in which Helm installs releases.

    If ``context`` is None, the current context of the kubeconfig is used. If ``kubeconfig`` is None, Helm looks for the kubeconfig
    in its default locations.
    """

    namespace: str
    context: str | None = None
    kubeconfig: Path | None = None
    storage: str = "secret"
    """Kind of Kubernetes object in which Helm stores its releases: secret or configmap."""


def chart_folder(chart: str) -> Path:
    """Return the folder of a chart that ships with editr1.

    The folder is a temporary copy in which symbolic links are replaced with files, because Helm warns about symbolic
    links.

    Raises:
        ConfigError: editr1 ships no chart with that name.
    """
    if not (resources.files("editr1") / "charts" / chart / "Chart.yaml").is_file():
        raise ConfigError(f"chart {chart!r} does not exist in the installed editr1 package; reinstall editr1")
    with _COPYING:  # With two copies, one would be deleted while it is in use.
        copies = _copies()
    return Path(copies.name) / chart


@cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    """Copy all charts to a temporary folder, once per process. The folder is removed when the process ends."""
    scratch = tempfile.TemporaryDirectory(prefix="editr1-charts-")
    with resources.as_file(resources.files("editr1") / "charts") as folder:
        for chart in folder.iterdir():
            if (chart / "Chart.yaml").is_file():
                shutil.copytree(chart, Path(scratch.name) / chart.name)
    return scratch


@cache
def chart_version(chart: str) -> str:
    """Return the version of a chart that ships with editr1."""
    return str(read_yaml(chart_folder(chart) / "Chart.yaml")["version"])


def image_of(objects: Sequence[Object]) -> str:
    """Return the container image of a stage, from the rendered objects of its release.

    The result is empty if ``objects`` contain neither a PyTorchJob nor a Deployment.
    """
    for item in objects:
        spec = item.get("spec", {})
        templates = [spec["template"]] if item["kind"] == "Deployment" else []
        templates += [replica["template"] for replica in spec.get("pytorchReplicaSpecs", {}).values()]
        for template in templates:
            return str(template["spec"]["containers"][0]["image"])
    return ""


class Helm:
    """Interface to Helm, which renders, installs and uninstalls the charts that ship with editr1.

    The helm executable is not needed, because the package helm-python-sdk contains Helm 4 as a shared library. Only this module
    imports helm-python-sdk.
    """

    def render(self, chart: str, name: str, namespace: str, values: Mapping[str, Any]) -> list[Object]:
        """Return the objects of a release, without the pods of ``helm test``. Raises HelmError if the chart rejects ``values``."""
        with _engine() as helm_python, helm_python.Chart.load(chart_folder(chart)) as loaded:
            loaded.validate_schema(dict(values))
            texts = loaded.render(dict(values), name=name, namespace=namespace)
        return _objects(text for path, text in sorted(texts.items()) if path.endswith(".yaml"))

    def install(self, chart: str, name: str, target: Target, values: Mapping[str, Any]) -> None:
        """Install a release.

        Raises:
            HelmError: the chart rejects ``values``, or the API server rejects an object.
            ClusterUnreachable: the API server does not respond.
        """
        with _connected(target) as config:
            config.install(chart_folder(chart), name, dict(values), namespace=target.namespace)

    def uninstall(self, name: str, target: Target) -> bool:
        """Uninstall a release and thereby delete its objects. Returns False if the release does not exist."""
        if self.chart_of_release(name, target) is None:
            return False
        with _connected(target) as config:
            config.uninstall(name)
        return True

    def chart_of_release(self, name: str, target: Target) -> str | None:
        """Return the chart and version of a release, such as ``sft-0.1.0``; None if the release does not exist.

        Only this release is looked up, because a list of all releases of a namespace can be incomplete. A release whose
        installation was interrupted is found, too.
        """
        with _connected(target) as config:
            found = config.list(name_filter=f"^{re.escape(name)}$", all_states=True)
        return next((str(item.get("chart", "")) for item in found if item["name"] == name), None)


@contextmanager
def _engine() -> Iterator[Any]:
    """Context manager that yields the module ``helm_python`` and converts its errors to HelmError or ClusterUnreachable."""
    try:
        import helm_python
    except (ImportError, OSError) as error:
        raise ConfigError(
            f"the Helm library cannot be loaded: {error}; install it with: pip install helm-python-sdk"
        ) from None
    try:
        yield helm_python
    except helm_python.HelmError as error:
        raise _translated(str(error)) from None


@contextmanager
def _connected(target: Target) -> Iterator[Any]:
    with _engine() as helm_python:
        kubeconfig = str(target.kubeconfig) if target.kubeconfig else None
        with helm_python.Config(
            namespace=target.namespace,
            kube_context=target.context,
            kubeconfig_path=kubeconfig,
            storage_driver=target.storage,
        ) as config:
            yield config


def _objects(texts: Iterable[str]) -> list[Object]:
    found = [item for text in texts for item in yaml.load_all(text, Loader=_LOADER) if item]
    return [item for item in found if "helm.sh/hook" not in (item["metadata"].get("annotations") or {})]


def _translated(text: str) -> ConfigError:
    """Convert an error message of Helm to ClusterUnreachable if the API server did not respond, else to HelmError."""
    message = _plain(text)
    return ClusterUnreachable(message) if _UNREACHABLE.search(message) else HelmError(message)


def _plain(text: str) -> str:
    """Return an error message of Helm without its log lines and without prefixes such as ``Error:``."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and " level=" not in line[:60]]
    kept = [line for line in lines if not line.startswith(("level=", "walk.go", "WARNING", "Use --debug"))]
    message = "\n".join(kept) or text.strip()
    for head in ("Error: ", "INSTALLATION FAILED: ", "execution error at "):
        message = message.removeprefix(head)
    if message.startswith("(") and "): " in message:
        message = message.split("): ", 1)[1]
    return message.strip()
