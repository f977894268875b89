"""The world's labelling models behind the chat API that real ones have (OpenAI's chat completions, with pictures).

It reads what comes over the wire, text and pictures, and hands it to :class:`editr1.shapes.oracle.Oracle`::

    python -m editr1.shapes.oracle_server --port 8100

``GET /v1/models`` lists the pool's members, ``GET /healthz`` answers when it listens. Plain ASGI: an answer takes about
a millisecond, so a web framework would double it.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import ipaddress
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol

import orjson

from editr1.config.shapes import OracleSettings
from editr1.curation.prompts import Task, read_sections, read_task
from editr1.data.images import ImageError
from editr1.data.types import EncodedImage
from editr1.shapes.oracle import Oracle

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
App = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

VLM_MODEL: Final = "shapes-oracle"
"""Model that decomposes, judges and verifies; the pool's members write traces."""
MAX_BODY: Final = 32 << 20
MAX_N: Final = 128
_PICTURES: Final = {Task.DECOMPOSE: 1, Task.DIFFICULTY: 1, Task.THINK: 2, Task.VERIFY: 2, Task.HOLISTIC: 2}
_JSON_HEADERS: Final = [(b"content-type", b"application/json")]


class _Refused(ValueError):
    """A request that is answered 400 (or ``status``)."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class _Chat(NamedTuple):
    system: str
    text: str
    images: list[Any]


class Judge(Protocol):
    """Who answers behind the API: the shapes world's oracle, or the measuring judge of photographs."""

    @property
    def models(self) -> Mapping[str, object]:
        """Model names that write traces."""

    def see(self, picture: EncodedImage) -> Any:
        """A picture in the form that the other methods take."""

    @property
    def decompose(self) -> Callable[[str], str]:
        """Instruction to principles, a JSON array."""

    @property
    def difficulty(self) -> Callable[[str], str]:
        """Instruction to whether the case is hard, as JSON."""

    @property
    def think(self) -> Callable[..., str]:
        """A trace: source, edited, instruction, questions; keywords model, system, temperature, seed."""

    @property
    def verify(self) -> Callable[..., str]:
        """Gold verdicts as JSON: as ``think``, without a temperature."""

    @property
    def holistic(self) -> Callable[..., str]:
        """Two marks as JSON: as ``think``, without questions."""


def create_app(oracle: Judge) -> App:
    """The ASGI application. A request that is not understood is answered 400 with the field, value and rule."""

    async def app(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            body = _route(oracle, scope["method"], scope["path"], await _body(receive))
            status = 200
        except _Refused as error:
            status = error.status
            kind = "invalid_request_error"
            body = orjson.dumps({"error": {"message": str(error), "type": kind, "param": None, "code": None}})
        await send({"type": "http.response.start", "status": status, "headers": _JSON_HEADERS})
        await send({"type": "http.response.body", "body": body})

    return app


def serve(host: str = "127.0.0.1", port: int = 8100, *, remote: bool = False, judge: Judge | None = None) -> None:
    """Serve until SIGINT or SIGTERM; port 0 takes a free one. The first line on standard output is the base URL.

    Raises ``ValueError`` for an address other machines can reach, unless ``remote``: there is no key to guard it.
    """
    import uvicorn

    if not remote and not _loopback(host):
        raise ValueError(
            f"host: {host!r} can be reached from other machines, and this server has no keys; allow it by --remote"
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=1024) as listener:
        shown = f"[{host}]" if family == socket.AF_INET6 else host
        print(f"http://{shown}:{listener.getsockname()[1]}/v1", flush=True)
        config = uvicorn.Config(create_app(judge or Oracle()), log_level="warning", access_log=False, lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def started(world: Literal["shapes", "photos"] = "shapes", settings: OracleSettings | None = None) -> Iterator[str]:
    """A server in a process of its own on a free loopback port; gives its base URL and ends it afterwards."""
    command = [sys.executable, "-m", "editr1.shapes.oracle_server", "--port", "0", "--world", world]
    if settings is not None:
        command += ["--settings", settings.model_dump_json()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(f"the oracle server did not start: exit code {process.wait()}")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m editr1.shapes.oracle_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8100, help="0 takes a free port")
    parser.add_argument("--remote", action="store_true", help="allow an address other than loopback")
    parser.add_argument("--world", choices=("shapes", "photos"), default="shapes", help="what the pictures are of")
    parser.add_argument("--settings", help="OracleSettings as JSON, or the path of a JSON file")
    given = parser.parse_args()
    settings = None
    try:
        if given.settings:
            text = (
                given.settings if given.settings.lstrip().startswith("{") else Path(given.settings).read_text("utf-8")
            )
            settings = OracleSettings.model_validate_json(text)
        serve(given.host, given.port, remote=given.remote, judge=_judge(given.world, settings))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _judge(world: str, settings: OracleSettings | None) -> Judge:
    if world == "photos":
        from editr1.shapes.photo_judge import PhotoJudge

        return PhotoJudge()
    return Oracle(settings)


def _route(oracle: Judge, method: str, path: str, body: bytes) -> bytes:
    if (method, path) == ("POST", "/v1/chat/completions"):
        return _complete(oracle, body)
    if (method, path) == ("GET", "/v1/models"):
        names = [VLM_MODEL, *oracle.models]
        return orjson.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
    if (method, path) == ("GET", "/healthz"):
        return b"{}"
    raise _Refused(f"{method} {path}: there is POST /v1/chat/completions, GET /v1/models, GET /healthz", 404)


def _complete(oracle: Judge, body: bytes) -> bytes:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _Refused(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise _Refused("the body is not a JSON object")
    model = str(request.get("model"))
    if model != VLM_MODEL and model not in oracle.models:
        raise _Refused(f"model: {model!r} is not one of {', '.join((VLM_MODEL, *oracle.models))}", 404)
    if request.get("stream"):
        raise _Refused("stream: answers are not streamed")
    count = _number(request, "n", 1, 1, MAX_N, int)
    seed = _number(request, "seed", 0, -(1 << 63), (1 << 63) - 1, int)
    temperature = _number(request, "temperature", 1.0, 0.0, 2.0, (int, float))
    chat = _chat(request.get("messages"), oracle.see)
    try:
        texts = _answers(oracle, chat, model, count, seed, temperature)
    except ValueError as error:
        raise _Refused(str(error)) from error
    prompt_tokens = _tokens(chat.system) + _tokens(chat.text) + len(chat.images)
    completion_tokens = sum(map(_tokens, texts))
    return orjson.dumps(
        {
            "id": "chatcmpl-shapes",
            "object": "chat.completion",
            "created": 0,
            "model": model,
            "choices": [
                {"index": index, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
                for index, text in enumerate(texts)
            ],
            "usage": {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
        }
    )


def _answers(oracle: Judge, chat: _Chat, model: str, count: int, seed: int, temperature: float) -> list[str]:
    task = read_task(chat.text)
    sections = read_sections(chat.text)
    if "instruction" not in sections:
        raise _Refused("messages: the user message has no <instruction> section")
    if len(chat.images) != _PICTURES[task]:
        raise _Refused(f"messages: {len(chat.images)} pictures; task {task} takes {_PICTURES[task]}")
    instruction = sections["instruction"]
    if task is Task.DECOMPOSE:
        return [oracle.decompose(instruction)] * count
    if task is Task.DIFFICULTY:
        return [oracle.difficulty(instruction)] * count
    before, after = chat.images
    common: dict[str, Any] = {"model": model, "system": chat.system}
    # Choice k of a request is the only choice of one with seed + k: a client may ask either way.
    seeds = range(seed, seed + count)
    if task is Task.HOLISTIC:
        common["temperature"] = temperature
        return [oracle.holistic(before, after, instruction, seed=own, **common) for own in seeds]
    questions = _questions(sections.get("principles", ""))
    if task is Task.VERIFY:
        return [oracle.verify(before, after, instruction, questions, seed=own, **common) for own in seeds]
    common["temperature"] = temperature
    return [oracle.think(before, after, instruction, questions, seed=own, **common) for own in seeds]


def _chat(messages: object, see: Callable[[EncodedImage], Any]) -> _Chat:
    if not isinstance(messages, list) or not messages:
        raise _Refused("messages: needs a list of messages")
    system: list[str] = []
    texts: list[str] = []
    images: list[Any] = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user"):
            raise _Refused(f"messages.{number}.role: {role!r} is not one of system, developer, user")
        content = message.get("content")
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                (texts if role == "user" else system).append(part["text"])
            elif kind == "image_url" and isinstance(part.get("image_url"), dict) and role == "user":
                images.append(_seen(part["image_url"].get("url"), see))
            else:
                raise _Refused(f"messages.{number}.content: {kind!r} is neither a text nor an image_url part")
    return _Chat("\n".join(system), "\n".join(texts), images)


def _seen(url: object, see: Callable[[EncodedImage], Any]) -> Any:
    if not isinstance(url, str) or not url.startswith("data:image/"):
        raise _Refused(f"image_url.url: {str(url)[:40]!r} is not a data: URL of a picture; addresses are not fetched")
    try:
        return _decoded(url, see)
    except (ImageError, binascii.Error, ValueError) as error:
        raise _Refused(f"image_url.url: not a picture: {error}") from None


@lru_cache(maxsize=1024)
def _decoded(url: str, see: Callable[[EncodedImage], Any]) -> Any:
    head, _, data = url.partition(",")
    if not head.endswith(";base64") or not data:
        raise ValueError("the data: URL is not base64")
    return see(EncodedImage(data=base64.b64decode(data, validate=True)))


def _questions(principles: str) -> list[str]:
    try:
        questions = [str(item["question"]) for item in orjson.loads(principles)]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise _Refused(f"<principles> is not a JSON array of {{question, category}}: {error}") from None
    if not questions:
        raise _Refused("<principles> is empty")
    return questions


def _number(
    request: dict[str, Any], name: str, default: float, least: float, most: float, kind: type | tuple[type, ...]
) -> Any:
    value: Any = request.get(name)
    if value is None:
        return default
    right = isinstance(value, kind) and not isinstance(value, bool)
    if not right or not least <= value <= most:
        raise _Refused(f"{name}: {value!r} is not a number from {least} to {most}")
    return value


def _tokens(text: str) -> int:
    # Four characters a token is the usual rule of thumb for English.
    return -(-len(text) // 4)


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        chunk = event.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise _Refused(f"the body is larger than {MAX_BODY} bytes", 413)
        chunks.append(chunk)
        if not event.get("more_body", False):
            return b"".join(chunks)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
