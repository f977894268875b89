"""Tell apart trace collectors inside and outside of the cluster by their address."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit


def service_of(endpoint: str, namespace: str) -> tuple[str, str] | None:
    """Return the name and the namespace of the Service at ``endpoint``, as pods in ``namespace`` resolve it.

    The result is None if the address cannot be that of a Service: an IP address, localhost, or a domain name such as
    ``otel.example.com``. A name with one dot can be either. It is taken for a Service, and the caller has to check whether
    its namespace exists.
    """
    host = (urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname or "").rstrip(".")
    try:
        ip_address(host)
        return None
    except ValueError:
        pass
    parts = host.split(".")
    if not parts[0] or host == "localhost":
        return None
    if len(parts) > 2 and parts[2] != "svc":
        return None
    return parts[0], parts[1] if len(parts) > 1 else namespace
