"""Wire models of ``POST /v1/score``.

A request carries pictures as base64 bytes or by digest, never by URL. The answer's ``results`` are index-aligned with
the request's ``items``; each is a score or a failure with a cause. One item's fault costs that item alone, a fault of
the request around the items refuses the whole request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from editr1.data.images import ImageError, image_size
from editr1.data.types import (
    MOST_PRINCIPLES,
    EncodedImage,
    FailureCause,
    Instruction,
    Principle,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
)

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
MOST_VALUES = 1000
"""Parts of one item, nested ones counted; 64 principles make about 200."""
Resolver = Callable[[str], bytes]
"""Digest ("sha256:<hex>") to the picture's bytes; raises LookupError when there is none."""


class Wire(BaseModel):
    """Base of what travels: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WirePicture(Wire):
    """A picture: ``data`` (base64 of a PNG, JPEG, WebP, TIFF, BMP or GIF file) or ``digest``, exactly one.

    ``digest`` is the SHA-256 of the file: of a picture whose ``data`` stands elsewhere in the same request (so that the
    source of a whole group travels once), or else of one that the server can look up.
    """

    data: Annotated[str, Field(min_length=1)] | None = None
    digest: Digest | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.data is None) == (self.digest is None):
            raise ValueError("exactly one of 'data' and 'digest' is needed")
        return self


class WireItem(Wire):
    """One edit to be scored."""

    source: WirePicture
    edited: WirePicture
    instruction: Instruction
    principles: Annotated[tuple[Principle, ...], Field(min_length=1, max_length=MOST_PRINCIPLES)]


class _Envelope(Wire):
    num_traces: Annotated[int, Field(ge=1)] = 1
    """Traces to sample and average per item."""

    temperature: Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False)] | None = None
    """Left out: 0 (greedy) for one trace, the server's own for several. Several greedy traces are refused."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Seed of sampled traces. Requests with different seeds are never batched together."""

    deadline_ms: Annotated[int, Field(ge=1)] | None = None
    """Time left for this request, in milliseconds from its arrival; items not scored by then fail with ``deadline``."""

    @model_validator(mode="after")
    def _sampled(self) -> Self:
        if self.num_traces > 1 and self.temperature == 0:
            raise ValueError("num_traces > 1 needs a temperature above 0: greedy traces would all be equal")
        return self


class ScoreRequest(_Envelope):
    """Body of ``POST /v1/score``."""

    items: Annotated[tuple[WireItem, ...], Field(min_length=1)]


class LooseRequest(_Envelope):
    """A request whose items are not looked at yet, so that one bad item does not cost the others."""

    items: Annotated[list[Any], Field(min_length=1)]


class ScoreResponse(Wire):
    """Answer of ``POST /v1/score``: ``results[i]`` belongs to ``items[i]``; ``model`` is the verifier's digest."""

    model: str
    results: tuple[ScoreOutcome, ...]


class ErrorResponse(Wire):
    """Body of every answer that is not 200."""

    cause: str
    detail: str


def encode_request(
    items: Sequence[ScoreItem],
    *,
    num_traces: int = 1,
    temperature: float | None = None,
    seed: int | None = None,
    deadline_ms: int | None = None,
) -> bytes:
    """JSON body for ``items``; a picture that occurs several times is sent once and named by digest afterwards."""
    sent: set[str] = set()

    def picture(image: EncodedImage) -> WirePicture:
        digest = image.sha256
        if digest in sent:
            return WirePicture(digest=f"sha256:{digest}")
        sent.add(digest)
        return WirePicture(data=base64.b64encode(image.data).decode("ascii"))

    wire = tuple(
        WireItem(source=picture(i.source), edited=picture(i.edited), instruction=i.instruction, principles=i.principles)
        for i in items
    )
    request = ScoreRequest(
        items=wire, num_traces=num_traces, temperature=temperature, seed=seed, deadline_ms=deadline_ms
    )
    return request.model_dump_json(exclude_none=True).encode()


def decode_items(
    raw: Sequence[object], *, max_pixels: int, max_bytes: int, resolver: Resolver | None = None
) -> list[ScoreItem | ScoreFailure]:
    """Each raw item as a ``ScoreItem``, or the failure that it alone suffers. Pictures' headers are read, no pixels.

    ``max_pixels`` and ``max_bytes`` bound one picture; ``resolver`` answers digests that the request does not carry.
    """
    wires: list[WireItem | ScoreFailure] = []
    carried: dict[str, bytes] = {}
    bodies: dict[int, bytes | str] = {}
    for value in raw:
        if not _small(value):
            wires.append(_invalid(f"an item holds at most {MOST_VALUES} values"))
            continue
        try:
            wire = WireItem.model_validate(value)
        except ValidationError as error:
            wires.append(_invalid(explain(error)))
            continue
        wires.append(wire)
        for picture in (wire.source, wire.edited):
            if picture.data is not None:
                body = bodies[id(picture)] = _from_base64(picture.data)
                if isinstance(body, bytes):
                    carried[f"sha256:{hashlib.sha256(body).hexdigest()}"] = body

    checked: dict[int | str, EncodedImage | str] = {}

    def look(picture: WirePicture) -> EncodedImage | str:
        key = picture.digest or id(picture)
        if key not in checked:
            body = bodies[id(picture)] if picture.digest is None else _looked_up(picture.digest, carried, resolver)
            checked[key] = body if isinstance(body, str) else _checked(body, max_pixels, max_bytes)
        return checked[key]

    result: list[ScoreItem | ScoreFailure] = []
    for item in wires:
        if isinstance(item, ScoreFailure):
            result.append(item)
            continue
        source, edited = look(item.source), look(item.edited)
        if isinstance(source, str):
            result.append(_invalid(f"source: {source}"))
        elif isinstance(edited, str):
            result.append(_invalid(f"edited: {edited}"))
        else:
            result.append(
                ScoreItem(source=source, edited=edited, instruction=item.instruction, principles=item.principles)
            )
    return result


def _small(value: object) -> bool:
    """Whether an item has few enough parts: a report on each unknown one would take a hundred times its bytes."""
    seen, waiting = 0, [value]
    while waiting and seen <= MOST_VALUES:
        item = waiting.pop()
        seen += 1
        if isinstance(item, dict | list):
            if len(item) > MOST_VALUES:
                return False
            waiting += item.values() if isinstance(item, dict) else item
    return seen <= MOST_VALUES


def explain(error: ValidationError) -> str:
    """A validation report as one line: ``field: message`` joined by semicolons, without the values' bulk."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(str(p) for p in f['loc']) or 'body'}: {f['msg']}"[:300] for f in faults[:5]]
    if len(faults) > 5:
        lines.append(f"and {len(faults) - 5} more")
    return "; ".join(lines).encode("utf-8", "replace").decode()


def _invalid(detail: str) -> ScoreFailure:
    return ScoreFailure(cause=FailureCause.INVALID, detail=detail)


def _from_base64(text: str) -> bytes | str:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return f"data is not base64: {error}"


def _looked_up(digest: str, carried: dict[str, bytes], resolver: Resolver | None) -> bytes | str:
    if digest in carried:
        return carried[digest]
    if resolver is None:
        return f"{digest} is not among the request's pictures, and this server looks none up"
    try:
        body = resolver(digest)
    except LookupError:
        return f"{digest} is not known to this server"
    except Exception as error:  # a store that is down must cost this item, not the request
        return f"{digest} could not be read: {type(error).__name__}: {error}"
    found = f"sha256:{hashlib.sha256(body).hexdigest()}"
    return body if found == digest else f"{digest} has content {found}"


def _checked(body: bytes, max_pixels: int, max_bytes: int) -> EncodedImage | str:
    try:
        image_size(body, max_pixels=max_pixels, max_bytes=max_bytes)
    except ImageError as error:
        return str(error)
    return EncodedImage(data=body)
