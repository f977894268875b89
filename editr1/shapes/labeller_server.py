"""Serve simulated labelling models through OpenAI's chat completions API, which real VLM servers also provide.

::

    python -m editr1.shapes.labeller_server --port 8100

The text and the images of a request are passed to a :class:`Labeller`. ``GET /v1/models`` lists the models, and
``GET /healthz`` responds as soon as the server listens. The application is plain ASGI, because a request takes about a
millisecond and a web framework would double this time.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from threading import Thread
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

import orjson

from editr1.config.shapes import LabellerSettings
from editr1.curation.prompts import Task, read_sections, read_task
from editr1.data.images import ImageError
from editr1.data.types import EncodedImage
from editr1.shapes.labeller import ShapesLabeller

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
App = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

Kind = Literal["shapes", "photos"]

VLM_MODEL: Final = "shapes-oracle"
"""Name of the model that returns principles, difficulties and gold verdicts. All other models write traces."""
MAX_BODY: Final = 32 << 20
MAX_N: Final = 128
_NUM_IMAGES: Final = {Task.DECOMPOSE: 1, Task.DIFFICULTY: 1, Task.THINK: 2, Task.VERIFY: 2, Task.HOLISTIC: 2}
_JSON_HEADERS: Final = [(b"content-type", b"application/json")]


class _BadRequest(ValueError):
    """A request that cannot be answered. ``status`` is the HTTP status code of the response."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class _Chat(NamedTuple):
    system: str
    text: str
    images: list[Any]


class Labeller(Protocol):
    """Interface of the labelling models that the server provides."""

    @property
    def models(self) -> Mapping[str, object]:
        """Mapping whose keys are the names of the models that write traces. The server does not use the values."""

    def decode(self, image: EncodedImage) -> Any:
        """Decode an image for ``think``, ``verify`` and ``holistic``."""

    @property
    def decompose(self) -> Callable[[str], str]:
        """Function that returns the principles of an instruction as a JSON array."""

    @property
    def difficulty(self) -> Callable[[str], str]:
        """Function that returns, as JSON, whether an instruction is hard."""

    @property
    def think(self) -> Callable[..., str]:
        """Function (source image, edited image, instruction, questions) that returns a trace.

        Its keyword arguments are ``model``, ``system``, ``temperature`` and ``seed``.
        """

    @property
    def verify(self) -> Callable[..., str]:
        """Function that returns gold verdicts as JSON.

        It has the same arguments as ``think``, except ``temperature``.
        """

    @property
    def holistic(self) -> Callable[..., str]:
        """Function that returns two scores as JSON. It has the same arguments as ``think``, except the questions."""


def create_app(labeller: Labeller) -> App:
    """Create the ASGI application. The response to an invalid request contains the invalid field and its value."""

    async def app(scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            body = _route(labeller, scope["method"], scope["path"], await _body(receive))
            status = 200
        except _BadRequest as error:
            status = error.status
            kind = "invalid_request_error"
            body = orjson.dumps({"error": {"message": str(error), "type": kind, "param": None, "code": None}})
        await send({"type": "http.response.start", "status": status, "headers": _JSON_HEADERS})
        await send({"type": "http.response.body", "body": body})

    return app


def serve(host: str = "127.0.0.1", port: int = 8100, *, remote: bool = False, labeller: Labeller | None = None) -> None:
    """Run the server until it receives SIGINT or SIGTERM. The first line on standard output is the base URL.

    Args:
        host: address to listen on. ``*`` stands for all IPv4 and IPv6 addresses.
        port: port to listen on; 0 selects a free port.
        remote: allow a ``host`` that other machines can reach. The server does not authenticate its clients.
        labeller: the models to serve; by default those of the shapes dataset.

    Raises:
        ValueError: other machines can reach ``host``, and ``remote`` is not set.
    """
    import uvicorn

    if not remote and not _loopback(host):
        raise ValueError(
            f"host: {host!r} can be reached from other machines, and this server does not authenticate clients;"
            " use a loopback address, or pass --remote to allow this"
        )
    everywhere = host in ("*", "::")
    both = everywhere and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    address = ("" if everywhere else host, port)
    with socket.create_server(address, family=family, dualstack_ipv6=both, backlog=1024) as listener:
        shown = "127.0.0.1" if host == "*" else f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{listener.getsockname()[1]}/v1", flush=True)
        config = uvicorn.Config(
            create_app(labeller or ShapesLabeller()), log_level="warning", access_log=False, lifespan="off"
        )
        uvicorn.Server(config).run(sockets=[listener])


@contextmanager
def labeller_server(kind: Kind = "shapes", settings: LabellerSettings | None = None) -> Iterator[str]:
    """Run the server in a subprocess on a free loopback port while the ``with`` block runs. Yield its base URL.

    The server also ends if this process is killed.
    """
    command = [sys.executable, "-m", "editr1.shapes.labeller_server", "--port", "0", "--labeller", kind]
    command.append("--end-with-stdin")  # The pipe is closed even if this process is killed.
    if settings is not None:
        command += ["--settings", settings.model_dump_json()]
    # Without PYTHONSAFEPATH, a folder named like a package in the working directory would be imported.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError(
                f"the labeller server exited with code {process.wait()} during startup; see its error message above"
            )
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_stdin() -> None:
    """Wait until standard input is closed, and end this process."""
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os._exit(0)


def main() -> None:
    """Parse the command line and run the server."""
    parser = argparse.ArgumentParser(prog="python -m editr1.shapes.labeller_server", description=__doc__)
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; * for all IPv4 and IPv6 addresses (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=int, default=8100, help="port to listen on; 0 selects a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--remote",
        action="store_true",
        help="allow a host that other machines can reach (the server does not authenticate clients)",
    )
    parser.add_argument(
        "--labeller", choices=get_args(Kind), default="shapes", help="kind of images to label (default: %(default)s)"
    )
    parser.add_argument(
        "--settings", help="settings of the labelling models (LabellerSettings) as JSON, or the path of a JSON file"
    )
    parser.add_argument("--end-with-stdin", action="store_true", help="end as soon as standard input is closed")
    options = parser.parse_args()
    if options.end_with_stdin:
        Thread(target=_end_with_stdin, daemon=True).start()
    settings = None
    try:
        if options.settings:
            text = (
                options.settings
                if options.settings.lstrip().startswith("{")
                else Path(options.settings).read_text("utf-8")
            )
            settings = LabellerSettings.model_validate_json(text)
        serve(options.host, options.port, remote=options.remote, labeller=_labeller(options.labeller, settings))
    except (ValueError, OSError) as error:
        parser.error(str(error))


def _labeller(kind: str, settings: LabellerSettings | None) -> Labeller:
    if kind == "photos":
        from editr1.shapes.photo_labeller import PhotoLabeller

        return PhotoLabeller()
    return ShapesLabeller(settings)


def _route(labeller: Labeller, method: str, path: str, body: bytes) -> bytes:
    if (method, path) == ("POST", "/v1/chat/completions"):
        return _complete(labeller, body)
    if (method, path) == ("GET", "/v1/models"):
        names = [VLM_MODEL, *labeller.models]
        return orjson.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
    if (method, path) == ("GET", "/healthz"):
        return b"{}"
    raise _BadRequest(
        f"{method} {path} is not supported; use POST /v1/chat/completions, GET /v1/models or GET /healthz", 404
    )


def _complete(labeller: Labeller, body: bytes) -> bytes:
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _BadRequest(f"the request body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise _BadRequest("the request body must be a JSON object")
    model = str(request.get("model"))
    if model != VLM_MODEL and model not in labeller.models:
        raise _BadRequest(
            f"model: {model!r} does not exist; use one of {', '.join((VLM_MODEL, *labeller.models))}", 404
        )
    if request.get("stream"):
        raise _BadRequest("stream: streaming is not supported; remove this field")
    count = _number(request, "n", 1, 1, MAX_N, int)
    seed = _number(request, "seed", 0, -(1 << 63), (1 << 63) - 1, int)
    temperature = _number(request, "temperature", 1.0, 0.0, 2.0, (int, float))
    chat = _parse_messages(request.get("messages"), labeller.decode)
    try:
        texts = _answers(labeller, chat, model, count, seed, temperature)
    except ValueError as error:
        raise _BadRequest(str(error)) from error
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


def _answers(labeller: Labeller, chat: _Chat, model: str, count: int, seed: int, temperature: float) -> list[str]:
    task = read_task(chat.text)
    sections = read_sections(chat.text)
    if "instruction" not in sections:
        raise _BadRequest("messages: the user message must contain an <instruction> section")
    if len(chat.images) != _NUM_IMAGES[task]:
        raise _BadRequest(
            f"messages: task {task} requires {_NUM_IMAGES[task]} images, but the messages contain {len(chat.images)}"
        )
    instruction = sections["instruction"]
    if task is Task.DECOMPOSE:
        return [labeller.decompose(instruction)] * count
    if task is Task.DIFFICULTY:
        return [labeller.difficulty(instruction)] * count
    before, after = chat.images
    common: dict[str, Any] = {"model": model, "system": chat.system}
    # Choice k is identical to the only choice of a request with seed + k and n = 1, so clients can split requests.
    seeds = range(seed, seed + count)
    if task is Task.HOLISTIC:
        common["temperature"] = temperature
        return [labeller.holistic(before, after, instruction, seed=choice_seed, **common) for choice_seed in seeds]
    questions = _questions(sections.get("principles", ""))
    if task is Task.VERIFY:
        return [
            labeller.verify(before, after, instruction, questions, seed=choice_seed, **common) for choice_seed in seeds
        ]
    common["temperature"] = temperature
    return [labeller.think(before, after, instruction, questions, seed=choice_seed, **common) for choice_seed in seeds]


def _parse_messages(messages: object, decode: Callable[[EncodedImage], Any]) -> _Chat:
    if not isinstance(messages, list) or not messages:
        raise _BadRequest("messages: must be a non-empty list")
    system: list[str] = []
    texts: list[str] = []
    images: list[Any] = []
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user"):
            raise _BadRequest(f"messages.{number}.role: {role!r} is not allowed; use system, developer or user")
        content = message.get("content")
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            if kind == "text" and isinstance(part.get("text"), str):
                (texts if role == "user" else system).append(part["text"])
            elif kind == "image_url" and isinstance(part.get("image_url"), dict) and role == "user":
                images.append(_decode_url(part["image_url"].get("url"), decode))
            else:
                raise _BadRequest(
                    f"messages.{number}.content: a part of type {kind!r} is not valid here; "
                    "use {type: text, text: ...} or, in a user message, {type: image_url, image_url: {url: ...}}"
                )
    return _Chat("\n".join(system), "\n".join(texts), images)


def _decode_url(url: object, decode: Callable[[EncodedImage], Any]) -> Any:
    if not isinstance(url, str) or not url.startswith("data:image/"):
        raise _BadRequest(
            f"image_url.url: {str(url)[:40]!r} is not a data: URL of an image; other URLs are not fetched"
        )
    try:
        return _decode_data_url(url, decode)
    except (ImageError, binascii.Error, ValueError) as error:
        raise _BadRequest(f"image_url.url: the image cannot be decoded: {error}") from None


@lru_cache(maxsize=1024)
def _decode_data_url(url: str, decode: Callable[[EncodedImage], Any]) -> Any:
    head, _, data = url.partition(",")
    if not head.endswith(";base64") or not data:
        raise ValueError("the data: URL must contain base64 data")
    return decode(EncodedImage(data=base64.b64decode(data, validate=True)))


def _questions(principles: str) -> list[str]:
    try:
        questions = [str(item["question"]) for item in orjson.loads(principles)]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise _BadRequest(f"<principles> must be a JSON array of {{question, category}}: {error}") from None
    if not questions:
        raise _BadRequest("<principles> must contain at least one question")
    return questions


def _number(
    request: dict[str, Any], name: str, default: float, low: float, high: float, kind: type | tuple[type, ...]
) -> Any:
    value: Any = request.get(name)
    if value is None:
        return default
    valid = isinstance(value, kind) and not isinstance(value, bool)
    if not valid or not low <= value <= high:
        raise _BadRequest(f"{name}: {value!r} must be a number from {low} to {high}")
    return value


def _tokens(text: str) -> int:
    # Four characters per token is a common estimate for English text.
    return -(-len(text) // 4)


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        event = await receive()
        chunk = event.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY:
            raise _BadRequest(f"the request body must have at most {MAX_BODY} bytes", 413)
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
