"""The endpoints of the liveness and the readiness probe.

kopf has a liveness endpoint of its own. It is not used, because it responds only after the startup handlers have ended, and these wait
until the watched kinds are installed: the kubelet would restart an operator that only waits.
"""

from __future__ import annotations

import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ALIVE_PATH = "/healthz"
READY_PATH = "/readyz"
SILENT_SECONDS = 60.0
"""Time in seconds without a call of :meth:`Probes.beat` after which a started operator is not alive."""


class Probes:
    """State of the operator as the probes see it. All methods can be called from any thread."""

    def __init__(self) -> None:
        self._last_beat: float | None = None

    def beat(self) -> None:
        """Record that the operator handles events. The first call makes it ready."""
        self._last_beat = time.monotonic()

    def answer(self, path: str) -> tuple[HTTPStatus, str]:
        """Return the status and the text of the response to a probe."""
        beat = self._last_beat
        silent = beat is not None and time.monotonic() - beat > SILENT_SECONDS
        if path == ALIVE_PATH:
            if silent:
                return HTTPStatus.INTERNAL_SERVER_ERROR, "the operator does not handle events"
            return HTTPStatus.OK, "alive"
        if path == READY_PATH:
            if beat is None or silent:
                return HTTPStatus.SERVICE_UNAVAILABLE, "the operator does not handle events yet; see its log"
            return HTTPStatus.OK, "ready"
        return HTTPStatus.NOT_FOUND, f"the paths are {ALIVE_PATH} and {READY_PATH}"

    def serve(self, port: int) -> ThreadingHTTPServer:
        """Answer probes in a thread, on a port of all IPv4 and IPv6 addresses. Port 0 chooses a free one. Return the server."""
        server = _server(port, self)
        threading.Thread(target=server.serve_forever, name="probes", daemon=True).start()
        return server


def any_address() -> str:
    """Return the address that stands for all addresses: ``::`` for IPv6 and IPv4, or ``0.0.0.0`` on a host without IPv6."""
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"


def _server(port: int, probes: Probes) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = probes.answer(self.path.partition("?")[0])
            body = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Write no line per probe to the log."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if any_address() == "::" else socket.AF_INET

        def server_bind(self) -> None:
            if self.address_family is socket.AF_INET6:
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            super().server_bind()

    return Server((any_address(), port), Handler)
