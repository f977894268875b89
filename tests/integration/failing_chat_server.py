"""A chat server with scripted failures, for tests of its clients."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FailingChatServer(ThreadingHTTPServer):
    """Chat server that answers requests with the steps of ``script`` and then with status 200.

    A step is a status, "drop", "hang", "slow", "junk", or the bytes of a response body.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[int | str] = []
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[float, dict]] = []
        self.keys: list[str] = []
        self.in_flight = self.max_in_flight = 0
        self.lock = threading.Lock()
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FailingChatServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.seen.append((time.monotonic(), body))
            self.server.keys.append(self.headers["authorization"])
            self.server.in_flight += 1
            self.server.max_in_flight = max(self.server.max_in_flight, self.server.in_flight)
            step = self.server.script.pop(0) if self.server.script else 200
        try:
            if step == "drop":
                self.close_connection = True
                return
            if step in ("hang", "slow"):
                self.server.released.wait(20.0 if step == "hang" else 0.05)
            reply = {
                "choices": [
                    {"index": index, "message": {"role": "assistant", "content": f"{index}"}}
                    for index in range(body.get("n", 1))
                ],
                "usage": {"prompt_tokens": 1000, "completion_tokens": 10},
            }
            status = step if isinstance(step, int) else 200
            data = json.dumps(
                [] if step == "junk" else reply if status == 200 else {"error": {"message": "no!"}}
            ).encode()
            data = step if isinstance(step, bytes) else data
            self.send_response(status)
            for name, value in self.server.headers.items() if status != 200 else ():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        finally:
            with self.server.lock:
                self.server.in_flight -= 1

    def log_message(self, *args) -> None:
        pass


@contextmanager
def failing_chat_server() -> Iterator[FailingChatServer]:
    """Run a failing server in a thread."""
    server = FailingChatServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
