"""Capacity of a namespace and its nodes: quotas, the resources that quotas require every container to set, and accelerators.

All functions are pure. They read objects in the JSON format of the Kubernetes API.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from editr1.launch.kubernetes.errors import ClusterError

_DEVICE = re.compile(r"gpu|/mig-|gaudi|/neuron|/tpu", re.IGNORECASE)
_NEEDED = re.compile(r"(count/)?pods|(requests\.|limits\.)?(cpu|memory)")
"""Resources that every pod uses."""
_DEMANDED = ("requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
"""Resources that every container must set if a quota limits them. In a quota, ``cpu`` means ``requests.cpu``."""


def quantity(value: object) -> Decimal:
    """Convert a quantity such as ``500m``, ``1k``, ``2Gi`` or ``8`` to a number. Raises ClusterError if it is not one.

    Source: "Quantity" in the Kubernetes API reference.
    """
    from kubernetes.utils.quantity import parse_quantity

    try:
        return Decimal(parse_quantity(value))
    except (ValueError, ArithmeticError, TypeError):
        raise ClusterError(f"{value!r} is not a quantity of Kubernetes, such as 500m, 2Gi or 8") from None


def devices(nodes: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the number of allocatable accelerators per resource name, including MIG devices and shared GPUs."""
    count: dict[str, int] = {}
    for node in nodes:
        for name, amount in (node.get("status", {}).get("allocatable") or {}).items():
            if _DEVICE.search(name):
                count[name] = count.get(name, 0) + int(quantity(amount))
    return {name: amount for name, amount in sorted(count.items()) if amount}


def exhausted(quota: Mapping[str, Any]) -> list[str]:
    """Return the resources of a quota that are used up. A limit of zero counts only for what every pod needs."""
    status = quota.get("status") or {}
    used = status.get("used") or {}
    return [
        name
        for name, most in (status.get("hard") or {}).items()
        if quantity(used.get(name, 0)) >= quantity(most) and (quantity(most) > 0 or _NEEDED.fullmatch(name))
    ]


def demanded(quotas: Iterable[Mapping[str, Any]], limit_ranges: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the resources that every container must set, such as ``limits.memory``, each with the name of the quota that requires it.

    A resource for which a LimitRange has a default is left out, because the API server adds it.
    """
    defaults = set[str]()
    for item in limit_ranges:
        for limit in item.get("spec", {}).get("limits") or ():
            if limit.get("type") == "Container":
                defaults |= {f"limits.{name}" for name in limit.get("default") or ()}
                defaults |= {
                    f"requests.{name}" for part in ("default", "defaultRequest") for name in limit.get(part) or ()
                }
    found: dict[str, str] = {}
    for quota in quotas:
        for name in (quota.get("spec") or {}).get("hard") or ():
            full = f"requests.{name}" if name in ("cpu", "memory") else name
            if full in _DEMANDED and full not in defaults:
                found.setdefault(full, quota["metadata"]["name"])
    return found


def lacking(resources: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    """Return the ``names``, such as ``limits.memory``, that a container with these ``resources`` (requests, limits) does not set.

    If a container sets a limit but no request, Kubernetes uses the limit as its request.
    """
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    missing = []
    for name in names:
        part, _, resource = name.partition(".")
        if resource not in limits and (part == "limits" or resource not in requests):
            missing.append(name)
    return missing
