"""Exceptions for failed requests to the Kubernetes API, and their error messages."""

from __future__ import annotations

import json
from typing import Any

from editr1.config.loader import ConfigError
from editr1.errors import ExitCode


class ClusterError(ConfigError):
    """The cluster rejected a request or cannot serve it."""


class RequestRefused(ClusterError):
    """The API server rejected a request. A retry would be rejected as well.

    Attributes:
        status: HTTP status code of the response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ClusterUnreachable(ClusterError):
    """The API server did not respond, or was temporarily unable to process a request. A retry may succeed."""

    exit_code = ExitCode.TRANSIENT


def api_error(error: Exception, server: str) -> ClusterError:
    """Convert an exception of the kubernetes package or of urllib3 to an exception of this module.

    A request without a response, or with status 429 or 5xx, becomes :class:`ClusterUnreachable`. Every other status becomes
    :class:`RequestRefused`.
    """
    from kubernetes.client import ApiException

    if not isinstance(error, ApiException):
        return ClusterUnreachable(f"{server} cannot be reached: {root_cause(error)}")
    message = server_message(error) or f"{error.status} {error.reason}"
    if error.status in (0, 429, None) or error.status >= 500:
        return ClusterUnreachable(message)
    if error.status == 404 and not server_message(error):
        message = "404: the API server does not serve this resource"
    return RequestRefused(int(error.status), message)


def server_message(error: Any) -> str:
    """Return the error message in the API server's response; empty if the response contains none."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return ""


def root_cause(error: BaseException) -> str:
    """Return the last part of an error message, such as ``c`` in ``a: b: c``, which describes the original cause."""
    return str(getattr(error, "reason", None) or error).rsplit(": ", 1)[-1]


def missing_kind(kind: str, version: str) -> str:
    """Return the error message for a kind that is not installed in the cluster.

    The message states what to install.
    """
    hints = {
        "PyTorchJob": "install Kubeflow's training-operator 1.9",
        "ScaledObject": "install KEDA 2.19 or newer, or set autoscaling.mode to hpa or none",
        "PodMonitor": "install prometheus-operator, or set monitoring.podMonitor to false",
        "PrometheusRule": "install prometheus-operator, or set monitoring.rules to false",
    }
    return f"the cluster has no kind {kind} ({version}): {hints.get(kind, 'its CustomResourceDefinition is not installed')}"
