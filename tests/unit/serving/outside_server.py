"""A reward service that is not the project's own, as an outside author would write it, and that can return wrong answers."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "sha256:" + "ab" * 32
Json = dict[str, Any]
Forge = Callable[[Json, Json], Any]
"""Function that gets the request and the right response, and returns what is sent: JSON, bytes, or a status and JSON."""


def honest(_request: Json, response: Json) -> Json:
    return response


class OutsideServer:
    """A reward service on 127.0.0.1 whose scores depend on the edited image. ``forge`` changes each of its responses."""

    def __init__(self, forge: Forge, *, verdicts: bool, info: Json | None) -> None:
        self.forge = forge
        self.requests: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self._verdicts = verdicts
        self._info = {"model": MODEL, "verdicts": verdicts} if info is None else info
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                return None

            def reply(self, status: int, body: object) -> None:
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self.reply(200, outer._info if self.path.endswith("/v1/info") else b"ready\n")

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.headers.append(dict(self.headers) | {"path": self.path})
                answer = outer.forge(request, outer.answer(request))
                status, body = answer if isinstance(answer, tuple) else (200, answer)
                self.reply(status, body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, request: Json) -> Json:
        results = [self._result(item, request["num_traces"]) for item in request["items"]]
        return {"request_id": request["request_id"], "model": MODEL, "results": results}

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _result(self, item: Json, num_traces: int) -> Json:
        edited = digest(item["edited"])
        result = {"ok": True, "edited": edited, "score": score_of(edited), "model_digest": MODEL}
        if self._verdicts:
            verdict = {
                "scores": [1] * len(item["principles"]),
                "average": 1.0,
                "score": score_of(edited),
                "reasoning": "seen",
            }
            result["verdicts"] = [verdict] * num_traces
        else:
            result["verdicts"] = []
        return result


def digest(image: Json) -> str:
    data = image.get("data")
    return image["digest"] if data is None else f"sha256:{hashlib.sha256(base64.b64decode(data)).hexdigest()}"


def score_of(edited: str) -> float:
    """The score of an edited image, in [0, 10], from its digest."""
    return int(edited[-4:], 16) % 1001 / 100


@contextmanager
def outside_server(
    forge: Forge = honest, *, verdicts: bool = True, info: Json | None = None
) -> Iterator[OutsideServer]:
    server = OutsideServer(forge, verdicts=verdicts, info=info)
    try:
        yield server
    finally:
        server.close()
