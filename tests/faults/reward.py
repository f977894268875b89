"""A real reward server whose scores are hashes of the images, and a proxy that falsifies its answers."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import http.client
import json
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIGEST = "sha256:" + "ab" * 32


def serve_hashes(port: int) -> None:
    """Serve scores until SIGTERM: a score from 0 to 10 that depends on the two images and the instruction alone."""
    from editr1.config.serve import ServeConfig
    from editr1.data.types import Category, Principle
    from editr1.serving.engines.base import Generation, Sampling
    from editr1.serving.golden import default_golden
    from editr1.serving.run import serve
    from editr1.verifier.chat import Chat
    from editr1.verifier.prompt import PromptTemplate
    from editr1.verifier.trace import format_trace

    class HashEngine:
        model_digest = DIGEST
        template = PromptTemplate(principle="@{number}|{category}|{question}")

        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[list[Generation]]:
            return [[self._one(chat, number) for number in range(sampling.num_traces)] for chat in chats]

        def _one(self, chat: Chat, number: int) -> Generation:
            text = "\n".join(part.get("text", "") for m in chat.messages for part in m["content"])
            found = re.findall(r"^@\d+\|([^|]*)\|(.*)$", text, re.MULTILINE)
            principles = [Principle(question=question, category=Category(category)) for category, question in found]
            digest = hashlib.sha256(text.encode() + bytes([number]))
            for image in chat.images:
                digest.update(image.convert("RGB").tobytes())
            value = int.from_bytes(digest.digest()[:4], "big")
            bits = [value >> place & 1 for place in range(len(principles))]
            trace = format_trace("seen", principles, bits, value % 1001 / 100)
            return Generation(text=trace, prompt_tokens=40, completion_tokens=10)

        def close(self) -> None:
            pass

    serve(HashEngine(), ServeConfig(port=port, batch_wait_ms=0), default_golden())  # type: ignore[arg-type]


Falsify = Callable[[dict[str, Any], dict[str, Any] | None, random.Random], Any]


def _reordered(answer: dict[str, Any], _: dict[str, Any] | None, rng: random.Random) -> Any:
    results = answer["results"]
    return {**answer, "results": results[1:] + results[:1]} if len(results) > 1 else answer


def _repeated(answer: dict[str, Any], _: dict[str, Any] | None, rng: random.Random) -> Any:
    return {**answer, "results": [answer["results"][0]] * len(answer["results"])}


def _stale(answer: dict[str, Any], earlier: dict[str, Any] | None, rng: random.Random) -> Any:
    return earlier if earlier is not None else answer


def _stale_results(answer: dict[str, Any], earlier: dict[str, Any] | None, rng: random.Random) -> Any:
    return {**answer, "results": earlier["results"]} if earlier is not None else answer


def _item(change: Callable[[dict[str, Any], random.Random], None]) -> Falsify:
    def falsify(answer: dict[str, Any], _: dict[str, Any] | None, rng: random.Random) -> Any:
        changed = copy.deepcopy(answer)
        change(rng.choice([item for item in changed["results"] if item.get("ok")] or [{}]), rng)
        return changed

    return falsify


def _set(name: str, value: Callable[[Any], Any]) -> Falsify:
    def change(item: dict[str, Any], rng: random.Random) -> None:
        if name in item:
            item[name] = value(item[name])

    return _item(change)


def _verdict(change: Callable[[dict[str, Any]], None]) -> Falsify:
    def changed(item: dict[str, Any], rng: random.Random) -> None:
        if item.get("verdicts"):
            change(item["verdicts"][0])

    return _item(changed)


FALSIFICATIONS: dict[str, Falsify] = {
    "reordered": _reordered,
    "repeated": _repeated,
    "stale": _stale,
    "stale-results": _stale_results,
    "one-less": lambda answer, _, rng: {**answer, "results": answer["results"][:-1]},
    "one-more": lambda answer, _, rng: {**answer, "results": [*answer["results"], answer["results"][0]]},
    "no-results": lambda answer, _, rng: {key: value for key, value in answer.items() if key != "results"},
    "null": lambda answer, _, rng: None,
    "list": lambda answer, _, rng: answer["results"],
    "other-score": _set("score", lambda score: round((score + 3.3) % 10, 2)),
    "score-as-text": _set("score", str),
    "score-true": _set("score", lambda score: True),
    "score-null": _set("score", lambda score: None),
    "score-list": _set("score", lambda score: [score]),
    "score-too-high": _set("score", lambda score: score + 10.5),
    "score-nan": _set("score", lambda score: float("nan")),
    "score-integer": _set("score", lambda score: int(score) - 1 if score >= 1 else 9),
    "no-verdicts": _set("verdicts", lambda verdicts: []),
    "verdicts-twice": _set("verdicts", lambda verdicts: [*verdicts, *verdicts]),
    "other-text": _set("texts", lambda texts: ["nothing"]),
    "fewer-answers": _verdict(lambda verdict: verdict.update(scores=verdict["scores"][:-1])),
    "more-answers": _verdict(lambda verdict: verdict.update(scores=[*verdict["scores"], 1])),
    "flipped-answers": _verdict(lambda verdict: verdict.update(scores=[1 - bit for bit in verdict["scores"]])),
    "answers-as-text": _verdict(lambda verdict: verdict.update(scores=[str(bit) for bit in verdict["scores"]])),
    "other-verdict-score": _verdict(lambda verdict: verdict.update(score=round((verdict["score"] + 2.2) % 10, 2))),
    "other-model": _set("model_digest", lambda digest: "sha256:" + "cd" * 32),
    "not-ok-with-score": _set("ok", lambda ok: False),
    "ok-as-text": _set("ok", lambda ok: "true"),
}
"""Changes of an answer by name. Each gets the answer, an earlier answer of another request (or None), and a generator."""

STATUSES = (400, 401, 404, 408, 413, 422, 429, 500, 502, 503, 504)
TRANSPORT = ("truncated", "short-length", "reset", "empty", "html", "slow", "not-json", "flipped-byte")


class RewardProxy:
    """An HTTP proxy in front of a reward server. It falsifies the answers to the score requests that :meth:`arm` selects."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.removeprefix("http://").partition(":")
        self._port = int(port)
        self._lock = threading.Lock()
        self.disarm()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                proxy._forward(self, b"")

            def do_POST(self) -> None:
                proxy._forward(self, self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def arm(self, kind: str, *, first: int, repeat: int, seed: int) -> None:
        """Falsify the score requests ``first`` to ``first + repeat - 1`` from now on (counted from 0)."""
        with self._lock:
            self._kind, self._first, self._repeat = kind, first, repeat
            self._rng, self._count, self._earlier, self.met = random.Random(seed), 0, None, 0

    def disarm(self) -> None:
        """Pass every answer on unchanged."""
        self.arm("", first=0, repeat=0, seed=0)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self._host, self._port, timeout=120)
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in ("host", "connection")}
        upstream.request(handler.command, handler.path, body=body or None, headers=headers)
        response = upstream.getresponse()
        data, status, reason = response.read(), response.status, "from the server"
        upstream.close()
        kind = ""
        if handler.path == "/v1/score" and status == 200:
            kind, changed = self._falsified(data)
            if kind.startswith("status-"):
                status, data = int(kind.removeprefix("status-")), b'{"cause": "injected", "detail": "injected"}'
            else:
                data = changed
        self._send(handler, kind, status, reason, data)

    def _falsified(self, data: bytes) -> tuple[str, bytes]:
        with self._lock:
            number, self._count = self._count, self._count + 1
            active = self._kind and self._first <= number < self._first + self._repeat
            answer = json.loads(data)
            earlier, self._earlier = self._earlier, answer
            if not active:
                return "", data
            if self._kind in FALSIFICATIONS:
                changed = json.dumps(FALSIFICATIONS[self._kind](answer, earlier, self._rng)).encode()
                self.met += json.loads(changed) != answer
                return self._kind, changed
            self.met += 1
            if self._kind == "flipped-byte":
                place = self._rng.randrange(len(data))
                data = data[:place] + bytes([data[place] ^ (1 << self._rng.randrange(7))]) + data[place + 1 :]
            return self._kind, data

    def _send(self, handler: BaseHTTPRequestHandler, kind: str, status: int, reason: str, data: bytes) -> None:
        if kind == "slow":
            time.sleep(6)
        data = {"empty": b"", "html": b"<html>busy</html>", "not-json": b'{"results": ['}.get(kind, data)
        length = len(data)
        if kind == "reset":
            handler.close_connection = True
            return
        if kind == "truncated":
            data = data[: length // 2]
        if kind == "short-length":
            length //= 2
            data = data[:length]
        handler.send_response(status, reason)
        handler.send_header("Content-Type", "text/html" if kind == "html" else "application/json")
        handler.send_header("Content-Length", str(length))
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(data)
        handler.close_connection = handler.close_connection or kind in ("truncated", "short-length")
