"""Test whether an artifact store supports the operations that a run needs."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from editr1.artifacts.errors import AlreadyExists, StoreError
from editr1.artifacts.store import ArtifactStore


@dataclass(frozen=True)
class ProbeStep:
    """Result of one tested operation. If the operation failed, ``detail`` gives the reason."""

    name: str
    ok: bool
    detail: str = ""


def probe(store: ArtifactStore) -> list[ProbeStep]:
    """Test put, get, conditional put and delete on an object with a random name; stop at the first failure."""
    key = f"probes/{secrets.token_hex(8)}.json"
    data = b"{}"
    objects = store.objects

    def put() -> None:
        objects.put_bytes(key, data)

    def get() -> None:
        if objects.get_bytes(key) != data:
            raise StoreError(
                f"{store.url}: an object was read back with different content than was written; check the "
                "storage server"
            )

    def put_once() -> None:
        try:
            objects.put_bytes(key, b"[]", once=True)  # an object with the same content would count as written
        except AlreadyExists:
            return
        raise StoreError(
            f"{store.url}: the server ignores If-None-Match, so conditional writes are not possible; use a "
            "different S3 server"
        )

    def delete() -> None:
        objects.delete(key)
        if objects.size(key) is not None:
            raise StoreError(f"{store.url}: an object still exists after its deletion; check the storage server")

    steps: list[tuple[str, Callable[[], None]]] = [
        ("put", put),
        ("get", get),
        ("conditional put", put_once),
        ("delete", delete),
    ]
    done: list[ProbeStep] = []
    for name, action in steps:
        try:
            action()
        except StoreError as error:
            return [*done, ProbeStep(name, False, str(error))]
        done.append(ProbeStep(name, True))
    return done
