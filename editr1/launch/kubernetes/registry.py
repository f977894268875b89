"""Which exact image a tag names now, asked of its registry (OCI distribution API), so that the record can hold it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpx

TIMEOUT_S = 4.0
FRESH_S = 60.0
"""An answer holds for this long: the stages of a run ask for the same images."""
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
    """A parsed image name without tag: the registry's host and the path below it."""

    registry: str
    path: str


def parse_image(repository: str) -> ImageName:
    """``repository`` as container engines read it: without a host it is Docker Hub's, without a folder its library."""
    first, slash, rest = repository.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, path = first, rest
    else:
        host, path = "docker.io", repository
    if host == "docker.io":
        host, path = "registry-1.docker.io", path if "/" in path else f"library/{path}"
    return ImageName(host, path)


def image_digest(repository: str, tag: str, *, scheme: str = "https") -> str | None:
    """``sha256:<hex>`` of what the tag names, None where the registry cannot be asked without a login or at all."""
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
    """Chart values with ``image.digest`` set to what their tag names now; as they are where that cannot be known."""
    image = values.get("image", {})
    if image.get("digest") or not image.get("repository"):
        return dict(values)
    minute = int(time.monotonic() // FRESH_S)
    digest = _known_digest(image["repository"], image.get("tag") or default_tag, minute)
    return {**values, "image": {**image, "digest": digest}} if digest else dict(values)


@lru_cache(64)
def _known_digest(repository: str, tag: str, _minute: int) -> str | None:
    return image_digest(repository, tag)


def _token(http: httpx.Client, challenge: str, scheme: str) -> str | None:
    """An anonymous token, as the challenge asks for it."""
    told = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = told.pop("realm", "")
    if not challenge.lower().startswith("bearer ") or not realm.startswith(f"{scheme}://"):
        return None
    answer = http.get(realm, params={key: value for key, value in told.items() if key in ("service", "scope")})
    if answer.status_code != 200:
        return None
    try:
        given = answer.json()
    except ValueError:  # a page for people, such as a proxy's log-in
        return None
    token = given.get("token") or given.get("access_token") if isinstance(given, dict) else None
    return token if isinstance(token, str) else None
