"""Look up the digest of a container image in its registry, through the OCI distribution API.

With the digest, the record of a run identifies the image exactly, even if the tag is moved to another image later.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpx

TIMEOUT_S = 4.0
CACHE_S = 60.0
"""Time in seconds for which a digest is cached, so that stages with the same container image share one request."""
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class ImageName:
    """The name of a container image without its tag, split into the host of the registry and the path of the repository."""

    registry: str
    path: str


def parse_image(repository: str) -> ImageName:
    """Split the name of a container image into registry and path, with the same rules as container engines.

    A name without a registry refers to Docker Hub. There, an image without a namespace belongs to the namespace ``library``.
    """
    first, slash, rest = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, path = first, rest
    else:
        host, path = "docker.io", repository
    if host == "docker.io":
        host, path = "registry-1.docker.io", path if "/" in path else f"library/{path}"
    return ImageName(host, path)


def image_digest(repository: str, tag: str, *, scheme: str = "https") -> str | None:
    """Return the digest of the container image ``repository:tag`` as ``sha256:<hex>``.

    The result is None if the registry cannot be reached, requires a login, or does not have the tag.
    """
    name = parse_image(repository)
    url = f"{scheme}://{name.registry}/v2/{name.path}/manifests/{tag}"
    try:
        with httpx.Client(timeout=TIMEOUT_S) as http:
            answer = http.head(url, headers={"Accept": _MANIFESTS})
            if answer.status_code == 401:
                token = _token(http, answer.headers.get("WWW-Authenticate", ""), scheme)
                if token is None:
                    return None
                answer = http.head(url, headers={"Accept": _MANIFESTS, "Authorization": f"Bearer {token}"})
            if answer.status_code != 200:
                return None
            digest = answer.headers.get("Docker-Content-Digest", "")
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return digest if _DIGEST.fullmatch(digest) else None


def with_digest(values: Mapping[str, Any], default_tag: str) -> dict[str, Any]:
    """Return a copy of chart values with ``image.digest`` set to the current digest of the container image.

    The values are unchanged if they already contain a digest, or if the digest cannot be looked up.
    """
    image = values.get("image", {})
    if image.get("digest") or not image.get("repository"):
        return dict(values)
    period = int(time.monotonic() // CACHE_S)
    digest = _cached_digest(image["repository"], image.get("tag") or default_tag, period)
    return {**values, "image": {**image, "digest": digest}} if digest else dict(values)


@lru_cache(64)
def _cached_digest(repository: str, tag: str, _period: int) -> str | None:
    return image_digest(repository, tag)


def _token(http: httpx.Client, challenge: str, scheme: str) -> str | None:
    """Request an anonymous access token for the registry.

    ``challenge`` is the WWW-Authenticate header of the registry, which contains the address of the token server.
    Returns None if the token server does not issue a token.
    """
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    if not challenge.lower().startswith("bearer ") or not realm.startswith(f"{scheme}://"):
        return None
    answer = http.get(realm, params={key: value for key, value in fields.items() if key in ("service", "scope")})
    if answer.status_code != 200:
        return None
    try:
        given = answer.json()
    except ValueError:  # The response is not JSON but, for example, the login page of a proxy.
        return None
    token = given.get("token") or given.get("access_token") if isinstance(given, dict) else None
    return token if isinstance(token, str) else None
