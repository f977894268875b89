"""HTTP routes of the reward server: ``POST /v1/score``, ``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from opentelemetry import trace
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from editr1 import __version__
from editr1.config.serve import ServeConfig
from editr1.data.types import ScoreItem
from editr1.serving.api import ErrorResponse, Resolver, ScoreRequest, ScoreResponse, explain
from editr1.serving.batcher import QueueFull, Stopped
from editr1.serving.engines.base import Engine
from editr1.serving.service import BadRequest, ClientGone, RewardService
from editr1.serving.tracing import record_parts
from editr1.telemetry import Span, extracted, span

_INLINE_BYTES = 32 << 10
_REFUSALS: dict[int | str, dict[str, object]] = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        422: "The request around the items is malformed.",
        429: "The queue is full; see Retry-After.",
        503: "The server is draining.",
    }.items()
}


def create_app(
    engine: Engine,
    config: ServeConfig,
    golden: ScoreItem | Sequence[ScoreItem],
    *,
    resolver: Resolver | None = None,
) -> FastAPI:
    """The application. ``golden`` is scored at start-up; the server is ready after that (see :class:`RewardService`).

    ``resolver`` answers pictures that a request names by digest alone. The service is at ``app.state.service``.
    """
    service = RewardService(engine, config, [golden] if isinstance(golden, ScoreItem) else golden, resolver)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=service.warm_up, name="editr1-warm-up", daemon=True).start()
        yield
        await asyncio.to_thread(service.stop)

    app = FastAPI(title="Edit-R1 reward server", version=__version__, lifespan=lifespan)
    app.state.service = service

    schema = ScoreRequest.model_json_schema() | {"$id": "urn:editr1:score-request"}

    @app.post(
        "/v1/score",
        response_model=ScoreResponse,
        responses=_REFUSALS,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": schema}},
            }
        },
    )
    async def score(request: Request) -> Response:
        """Score edits. ``results[i]`` belongs to ``items[i]``; a bad item fails alone, with its cause."""
        with extracted(dict(request.headers)), span(Span.REWARD_SERVE) as serve:
            response = await _score(request, service, serve)
            serve.set_attribute("http.status", response.status_code)
            service.metrics.request(response.status_code)
            return response

    @app.get("/healthz", responses={500: {"description": "The worker is gone; restart the process."}})
    def healthz() -> Response:
        """Whether the process works at all."""
        return Response(
            "ok\n" if service.alive or service.draining else "the batch worker is gone\n",
            200 if service.alive or service.draining else 500,
            media_type="text/plain",
        )

    @app.get("/readyz", responses={503: {"description": "Not ready; the body says why."}})
    def readyz() -> Response:
        """Whether scores can be asked for: weights loaded and a golden sample scored."""
        reason = service.not_ready_because()
        return Response(f"{reason or 'ready'}\n", 503 if reason else 200, media_type="text/plain")

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus metrics; ``editr1_reward_in_flight`` counts items queued and running."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


async def _score(request: Request, service: RewardService, serve: trace.Span) -> Response:
    arrived = time.monotonic()
    config = service.config
    try:
        body = await asyncio.wait_for(_body(request, config.max_body_bytes), config.body_timeout_seconds)
    except TimeoutError:
        return _refusal(408, "timeout", f"the body did not arrive within {config.body_timeout_seconds:g} s", close=True)
    except ClientDisconnect:
        return Response(status_code=499)
    if body is None:
        return _refusal(413, "invalid", f"body: more than {config.max_body_bytes} bytes", close=True)
    if service.full:
        return _busy(service.retry_after_s)
    try:
        if len(body) > _INLINE_BYTES:
            parsed, items = await asyncio.to_thread(service.read, body)
        else:
            parsed, items = service.read(body)
        del body
        response, ticket = await service.score(parsed, items, arrived, lambda: _gone(request))
    except ValidationError as error:
        return _refusal(422, "invalid", explain(error))
    except BadRequest as error:
        return _refusal(422, "invalid", str(error))
    except QueueFull as error:
        return _busy(error.retry_after_s)
    except Stopped:
        return _refusal(503, "overloaded", "the server is draining", close=True)
    except ClientGone:
        return Response(status_code=499)
    record_parts(serve, ticket.parts)
    return _json(200, response)


async def _body(request: Request, limit: int) -> bytes | None:
    """The body, or None when it is longer than ``limit``; a little more is read away, so that the client listens."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > 4 * limit:
        return None
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > 4 * limit:
            return None
        if size <= limit:
            chunks.append(chunk)
        else:
            chunks.clear()
    return b"".join(chunks) if size <= limit else None


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _busy(retry_after_s: float) -> Response:
    response = _refusal(429, "overloaded", f"the queue is full; retry in {math.ceil(retry_after_s)} s")
    response.headers["Retry-After"] = str(math.ceil(retry_after_s))
    return response


def _refusal(status: int, cause: str, detail: str, *, close: bool = False) -> Response:
    response = _json(status, ErrorResponse(cause=cause, detail=detail))
    if close:
        response.headers["Connection"] = "close"
    return response


def _json(status: int, model: BaseModel) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")
