"""What the API server refuses, in words for people."""

from __future__ import annotations

import json
from typing import Any

from editr1.config.loader import ConfigError
from editr1.errors import ExitCode


class ClusterError(ConfigError):
    """The cluster refused, or cannot do, what was asked; the message is for people."""


class ClusterUnreachable(ClusterError):
    """The API server does not answer, or says that it cannot now: the same may be asked again."""

    exit_code = ExitCode.TRANSIENT


class Errors:
    """Turns the client's errors into ClusterError, those that may pass into ClusterUnreachable."""

    def __init__(self, what: str, server: str) -> None:
        self._what, self._server = what, server

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        if isinstance(error, ApiException):
            raise refusal(error)(f"{self._what}: {words(error)}") from None
        if isinstance(error, HTTPError | OSError):
            raise ClusterUnreachable(f"{self._server} cannot be reached: {last_words(error)}") from None


def refusal(error: Any) -> type[ClusterError]:
    """What an answer of the API server means: whether another try may go better."""
    return ClusterUnreachable if error.status in (0, 429) or error.status >= 500 else ClusterError


def words(error: Any) -> str:
    """The server's message; what a role lacks in words."""
    return named(error) or f"{error.status} {error.reason}"


def named(error: Any) -> str:
    """The server's message, empty where it did not answer as the API does."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return ""


def last_words(error: BaseException) -> str:
    """The end of a chain of errors, which says what happened."""
    return str(getattr(error, "reason", None) or error).rsplit(": ", 1)[-1]


def missing_kind(kind: str, version: str) -> str:
    """What to install where the cluster does not know a kind."""
    hints = {
        "PyTorchJob": "install Kubeflow's training-operator 1.9 or newer",
        "ScaledObject": "install KEDA 2.19 or newer, or set autoscaling.mode to hpa or none",
        "PodMonitor": "install prometheus-operator, or set monitoring.podMonitor to false",
        "PrometheusRule": "install prometheus-operator, or set monitoring.rules to false",
    }
    return f"the cluster has no kind {kind} ({version}): {hints.get(kind, 'its definition is not installed')}"
