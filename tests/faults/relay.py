"""A relay in front of an S3 server that injects faults into single requests."""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from dataclasses import dataclass, field
from urllib.parse import unquote

KINDS = (
    "status", "reset-before", "reset-after", "truncate", "flip", "latency", "stale-list", "empty-list", "broken-list",
    "missing", "precondition", "outage",
)  # fmt: skip
TARGETS = {
    "list": None, "blob": "/blobs/", "manifest": "/manifests/", "record": "/record.json", "result": "/result.json",
    "checkpoint": "/checkpoints/", "progress": "/progress.jsonl", "claim": "/claims/", "heartbeat": "/heartbeats/",
    "any": "",
}  # fmt: skip
"""Requests that a fault can concern: lists, or requests of keys that contain a text."""


@dataclass
class RelayFault:
    """A fault for requests of ``target`` with one of ``methods``, from the request ``first`` on (counted from 0), ``repeat`` times.

    An outage begins with the first such request and lasts ``seconds``.
    """

    kind: str
    target: str
    methods: tuple[str, ...]
    first: int
    repeat: int
    seed: int
    status: int = 500
    seconds: float = 0.0
    met: int = 0
    _count: int = 0
    _until: float = 0.0
    _rng: random.Random = field(default_factory=random.Random)
    _lists: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)

    def applies(self, method: str, path: str, query: str) -> bool:
        """Return True if this request meets the fault, and count it."""
        if self.kind == "outage" and self._until:
            return time.monotonic() < self._until
        is_list = "list-type" in query
        wanted = TARGETS[self.target]
        matches = is_list if wanted is None else wanted in path and not (is_list and wanted)
        if not matches or method not in self.methods:
            return False
        number, self._count = self._count, self._count + 1
        if self.kind == "outage" and number >= self.first:
            self._until, self.met = time.monotonic() + self.seconds, 1
            return True
        if not self.first <= number < self.first + self.repeat:
            return False
        self.met += 1
        return True


class Relay:
    """The relay, which runs in a thread of its own. ``fault`` is the fault of the present; None passes everything on."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.partition(":")
        self._port = int(port)
        self.fault: RelayFault | None = None
        self.port = 0
        started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve(started)), daemon=True).start()
        started.wait(10)

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._request(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        path, _, query = target.partition("?")
        fault = self.fault
        if fault is not None and not fault.applies(method, unquote(path), query):
            fault = None
        kind = fault.kind if fault else ""
        length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
        if kind in ("outage", "reset-before"):
            return
        body = await reader.readexactly(int(length[1])) if length else b""
        if fault and kind == "latency":
            await asyncio.sleep(fault.seconds)
        if fault and kind in ("status", "missing", "precondition"):
            code, name = {"missing": (404, "NoSuchKey"), "precondition": (412, "PreconditionFailed")}.get(
                kind, (fault.status, "SlowDown" if fault.status in (429, 503) else "InternalError")
            )
            writer.write(_response(code, b"" if method == "HEAD" else _error(name)))
            await writer.drain()
            return
        answer = await self._upstream(re.sub(rb"\r\n[Cc]onnection:[^\r]*", b"", head), body)
        if kind == "reset-after":
            return
        writer.write(self._changed(fault, answer, query) if fault else answer)
        self._keep(query, answer)
        await writer.drain()

    def _keep(self, query: str, answer: bytes) -> None:
        fault = self.fault
        prefix = re.search(r"prefix=([^&]*)", query)
        if fault is not None and "list-type" in query and prefix:
            fault._lists.setdefault(prefix[1], answer)

    async def _upstream(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(head[:-2] + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    @staticmethod
    def _changed(fault: RelayFault, answer: bytes, query: str) -> bytes:
        head, _, body = answer.partition(b"\r\n\r\n")
        if fault.kind == "truncate":
            return answer[: len(head) + 4 + len(body) // 2]
        if fault.kind == "flip" and body:
            place = fault._rng.randrange(len(body))
            body = body[:place] + bytes([body[place] ^ (1 << fault._rng.randrange(8))]) + body[place + 1 :]
            return head + b"\r\n\r\n" + body
        if fault.kind == "broken-list":
            return _response(200, body[: max(30, len(body) // 2)])
        if fault.kind == "empty-list":
            return _response(200, re.sub(rb"<Contents>.*</Contents>", b"", body, flags=re.DOTALL))
        if fault.kind == "stale-list":
            prefix = re.search(r"prefix=([^&]*)", query)
            return fault._lists.get(prefix[1] if prefix else "", answer)
        return answer


def _response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
