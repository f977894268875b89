"""HTTP routes of the reward server: ``POST /v1/score``, ``/v1/info``, ``/healthz``, ``/readyz``, ``/metrics``."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from opentelemetry import trace
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from editr1 import __version__
from editr1.config.serve import ServeConfig
from editr1.data.types import ScoreItem
from editr1.serving.api import ErrorResponse, Resolver, ScoreRequest, ScoreResponse, explain
from editr1.serving.batcher import QueueFull, Stopped
from editr1.serving.engines.base import Engine
from editr1.serving.identity import INFO_PATH, ServiceInfo, reward_identity
from editr1.serving.service import BadRequest, ClientDisconnected, RewardService
from editr1.serving.tracing import record_batch_spans
from editr1.telemetry import Span, extracted, span

_INLINE_BYTES = 32 << 10
"""Maximum size in bytes of a request body that is parsed in the event loop. Larger bodies are parsed in a thread."""
_CLIENT_CLOSED_REQUEST = 499
_ERRORS: dict[int | str, dict[str, object]] = {
    status: {"model": ErrorResponse, "description": text}
    for status, text in {
        408: "The body did not arrive in time.",
        413: "The body is too large.",
        422: "A field of the request other than its items is invalid.",
        429: "The queue is full. The header Retry-After contains the seconds to wait.",
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
    """Create the HTTP application of the server.

    The server is ready when a sample in ``golden`` has been scored. ``resolver`` looks up images that a request
    contains only as digests. The service is stored in ``app.state.service``.
    """
    service = RewardService(engine, config, [golden] if isinstance(golden, ScoreItem) else golden, resolver)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=service.warm_up, name="editr1-warm-up", daemon=True).start()
        yield
        await asyncio.to_thread(service.stop)

    probes = _probe_routes(service)
    untraced = {route.path for route in probes.routes if isinstance(route, APIRoute)}
    app = FastAPI(
        title="Edit-R1 reward server",
        version=__version__,
        lifespan=lifespan,
        # FastAPI traces every request. Kubernetes sends a probe every few seconds, which would fill the timeline of a run.
        telemetry={"exclude": lambda scope: scope.get("path") in untraced},
    )
    app.state.service = service
    app.include_router(_score_route(service))
    app.include_router(probes)
    return app


def _score_route(service: RewardService) -> APIRouter:
    router = APIRouter()
    schema = ScoreRequest.model_json_schema() | {"$id": "urn:editr1:score-request"}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}

    @router.post("/v1/score", response_model=ScoreResponse, responses=_ERRORS, openapi_extra={"requestBody": body})
    async def score(request: Request) -> Response:
        """Score edits. ``results[i]`` belongs to ``items[i]``. An invalid item does not affect the other items."""
        with extracted(dict(request.headers)), span(Span.REWARD_SERVE) as current:
            response = await _score(request, service, current)
            current.set_attribute("http.status", response.status_code)
            service.metrics.record_response(response.status_code)
            return response

    return router


def _probe_routes(service: RewardService) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", responses={500: {"description": "The batch worker has stopped; restart the process."}})
    def healthz() -> Response:
        """Report whether the batch worker is running. A server that is draining is healthy as well."""
        healthy = service.alive or service.draining
        text = "ok\n" if healthy else "the batch worker has stopped\n"
        return Response(text, 200 if healthy else 500, media_type="text/plain")

    @router.get("/readyz", responses={503: {"description": "The server is not ready; the body contains the reason."}})
    def readyz() -> Response:
        """Report whether the server is ready for score requests, that is, whether a golden sample has been scored."""
        reason = service.not_ready_reason()
        return Response(f"{reason or 'ready'}\n", 503 if reason else 200, media_type="text/plain")

    @router.get(INFO_PATH)
    def info() -> ServiceInfo:
        """Return the digest of the model, the server settings that affect the scores, and whether scores have verdicts."""
        return ServiceInfo(**reward_identity(service.engine.model_digest, service.config).model_dump())

    @router.get("/metrics")
    def metrics() -> Response:
        """Return Prometheus metrics. ``editr1_reward_in_flight`` is the number of items queued or being scored."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def _score(request: Request, service: RewardService, current: trace.Span) -> Response:
    arrived = time.monotonic()
    config = service.config
    timeout = config.body_timeout_seconds
    try:
        body = await asyncio.wait_for(_read_body(request, config.max_body_bytes), timeout)
    except TimeoutError:
        return _error(408, "timeout", f"the body did not arrive within {timeout:g} s; send fewer items", close=True)
    except ClientDisconnect:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    if body is None:
        return _error(413, "invalid", f"the body exceeds {config.max_body_bytes} bytes; send fewer items", close=True)
    if service.full:
        return _queue_full(service.retry_after_s)
    try:
        if len(body) > _INLINE_BYTES:
            parsed, items = await asyncio.to_thread(service.read, body)
        else:
            parsed, items = service.read(body)
        del body
        response, ticket = await service.score(parsed, items, arrived, lambda: _disconnected(request))
    except ValidationError as error:
        return _error(422, "invalid", explain(error))
    except BadRequest as error:
        return _error(422, "invalid", str(error))
    except QueueFull as error:
        return _queue_full(error.retry_after_s)
    except Stopped:
        return _error(503, "overloaded", "the server is draining; use another replica", close=True)
    except ClientDisconnected:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    record_batch_spans(current, ticket.timings)
    return _json(200, response)


async def _read_body(request: Request, limit: int) -> bytes | None:
    """Return the body, or None if it is longer than ``limit``.

    A longer body is read completely and discarded if it has up to four times the limit, because most clients read the
    response only after they have sent the whole body.
    """
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


async def _disconnected(request: Request) -> None:
    """Wait until the client disconnects."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _queue_full(retry_after_s: float) -> Response:
    seconds = math.ceil(retry_after_s)
    response = _error(429, "overloaded", f"the queue is full; retry in {seconds} s")
    response.headers["Retry-After"] = str(seconds)
    return response


def _error(status: int, cause: str, detail: str, *, close: bool = False) -> Response:
    response = _json(status, ErrorResponse(cause=cause, detail=detail))
    if close:
        response.headers["Connection"] = "close"
    return response


def _json(status: int, model: BaseModel) -> Response:
    return Response(model.model_dump_json(), status, media_type="application/json")
