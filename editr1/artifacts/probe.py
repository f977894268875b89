"""Whether a store can do what a run needs of it: write, read, refuse a second write, remove."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from editr1.artifacts.errors import AlreadyExists, StoreError
from editr1.artifacts.store import ArtifactStore


@dataclass(frozen=True)
class ProbeStep:
    """One thing that was tried; ``detail`` says why it failed."""

    name: str
    ok: bool
    detail: str = ""


def probe(store: ArtifactStore) -> list[ProbeStep]:
    """Try put, get, conditional put and delete on an object of a random name; stops at the first that fails."""
    key = f"probes/{secrets.token_hex(8)}.json"
    data = b"{}"
    objects = store.objects

    def put() -> None:
        objects.put_bytes(key, data)

    def get() -> None:
        if objects.get_bytes(key) != data:
            raise StoreError(f"{store.url}: read other bytes than were written")

    def put_once() -> None:
        try:
            objects.put_bytes(key, data, once=True)
        except AlreadyExists:
            return
        raise StoreError(f"{store.url}: ignores If-None-Match: two writers of one artifact could not be told apart")

    def delete() -> None:
        objects.delete(key)
        if objects.size(key) is not None:
            raise StoreError(f"{store.url}: an object that was removed is still there")

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
