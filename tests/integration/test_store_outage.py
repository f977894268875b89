"""A real S3 server behind a TCP relay that can refuse connections, break answers off, and flip bytes."""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from editr1.artifacts import OutageWait, StoreConfig, StoreMisconfigured, StoreUnreachable, open_store
from editr1.artifacts.errors import StoreError
from editr1.runs.checkpoints import StageCheckpoints
from editr1.runs.job import StageJob
from editr1.stages.runtime.context import StageContext

if TYPE_CHECKING:
    from conftest import S3Server

Edit = Callable[[bytes], bytes | None]


class Relay:
    """TCP relay on the loopback interface. ``closed`` refuses all requests.

    ``edit`` receives each piece of an answer; it returns the piece to send, or None to break the connection
    off. A shorter piece is sent and then breaks the connection off.
    """

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self.closed = False
        self.edit: Edit | None = None
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            if self.closed:
                client.close()
                continue
            server = socket.create_connection(self._target)
            for source, target, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, target, answers), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                if self.closed:
                    break
                edited = self.edit(data) if answers and self.edit else data
                if edited is None:
                    break
                target.sendall(edited)
                if len(edited) < len(data):
                    break
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    monkeypatch.setenv("EDITR1_S3_ACCESS_KEY", s3_server.access_key)
    monkeypatch.setenv("EDITR1_S3_SECRET_KEY", s3_server.secret_key)
    found = Relay(s3_server.endpoint)
    yield found
    found.close()


@pytest.fixture
def config(s3_server: S3Server, relay: Relay) -> StoreConfig:
    bucket = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.client().make_bucket(bucket)
    url = f"s3://{bucket}/p"
    return StoreConfig(url=url, endpoint=relay.endpoint, region="us-east-1", secure=False, outage_seconds=60)


def once(matches: Callable[[bytes], bool], change: Edit) -> tuple[Edit, list[bytes]]:
    """Return an edit that changes only the first piece of an answer that ``matches``, and the list of changed pieces."""
    met: list[bytes] = []

    def edit(data: bytes) -> bytes | None:
        if met or not matches(data):
            return data
        met.append(data)
        return change(data)

    return edit, met


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize(
    ("marker", "change"),
    [
        (b"<ListBucketResult", lambda data: data[: len(data) // 2] + b"\0" * (len(data) - len(data) // 2)),
        (b"<ListBucketResult", lambda _: None),
        (b"content of the record", flip_last),
        (b"content of the record", lambda data: data[:-5]),
        (b"", lambda _: None),
        (b"", lambda _: b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        (b"", lambda _: b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
        (b"", lambda _: b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<br>"),
        (b"", lambda _: b"nonsense\r\n\r\n"),
    ],
    ids=["list", "list reset", "wrong byte", "truncated", "reset", "503", "429", "proxy", "no http"],
)
def test_one_wrong_answer_is_asked_for_again(config: StoreConfig, relay: Relay, marker: bytes, change: Edit) -> None:
    store = open_store(config)
    store.put_record("a/b", b"content of the record")
    relay.edit, met = once(lambda data: marker in data, change)
    assert store.list_records("a/") == ["a/b"]
    assert store.get_record("a/b") == b"content of the record"
    assert met


def test_conditional_write_with_a_lost_answer_succeeds(config: StoreConfig, relay: Relay) -> None:
    store = open_store(config)
    store.put_record("warm", b"")
    relay.edit, met = once(lambda _: True, lambda _: None)
    store.put_record("claim", b"mine", if_none_match=True)
    assert met and store.get_record("claim") == b"mine"


def test_operations_wait_for_the_end_of_an_outage(config: StoreConfig, relay: Relay) -> None:
    said: list[str] = []
    store = open_store(config, OutageWait(60, report=said.append))
    relay.closed = True
    threading.Timer(5, setattr, (relay, "closed", False)).start()
    began = time.monotonic()
    store.put_record("a", b"1")
    assert 5 <= time.monotonic() - began < 25
    assert len(said) == 1 and "waiting for the store for up to 1 min 00 s" in said[0]
    relay.closed = True
    with pytest.raises(StoreUnreachable):
        store.without_waiting().put_record("a", b"2")


def test_errors_that_do_not_pass_are_not_waited_for(config: StoreConfig) -> None:
    began = time.monotonic()
    missing = config.model_copy(update={"url": "s3://no-such-bucket/p", "region": None})
    with pytest.raises(StoreMisconfigured, match="does not exist"):
        open_store(missing, OutageWait(60)).put_record("a", b"1")
    unknown = config.model_copy(update={"endpoint": "no-such-host.invalid:1"})
    try:
        open_store(unknown, OutageWait(3)).put_record("a", b"1")
    except StoreError as error:
        assert "no-such-host.invalid" in str(error)
    assert time.monotonic() - began < 30


def test_checkpoint_of_an_outage_is_in_the_store_after_it(config: StoreConfig, relay: Relay, tmp_path: Path) -> None:
    job = StageJob(run="r", stage="sft", kind="sft", key="a" * 64, seed=0, store=config, workdir=tmp_path / "work")
    context = StageContext(job, lambda: False)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "weights").write_bytes(bytes(100_000))
    relay.closed = True
    context.hooks().on_checkpoint(tmp_path / "checkpoint", 7)
    assert not context.should_stop()
    relay.closed = False
    checkpoints = StageCheckpoints(context.store, "r", "sft", job.key)
    end = time.monotonic() + 30
    while checkpoints.newest() is None and time.monotonic() < end:
        time.sleep(0.1)
    assert checkpoints.newest() == f"{checkpoints.prefix}000000007.json"
