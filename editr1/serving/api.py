"""Request and response models of ``POST /v1/score``.

A request gives each image as base64 data or by its digest; URLs are not accepted. ``results[i]`` in the response
belongs to ``items[i]`` in the request and is either a score or a failure with a cause. It has the digest of the edited
image, and the response repeats the name of the request, so that a client can check that the response belongs to its
request. An invalid item does not affect the other items. If any other field is invalid, the whole request is rejected.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from editr1.config.base import Temperature
from editr1.data.rules import DEFAULT, Limits, image_fault, row_violations
from editr1.data.types import (
    MAX_PRINCIPLES,
    Digest,
    EncodedImage,
    FailureCause,
    Instruction,
    Principle,
    ScoreFailure,
    ScoreItem,
    ScoreOutcome,
)

RequestId = Annotated[str, Field(min_length=1, max_length=100)]
MAX_ITEM_VALUES = 1000
"""Maximum number of JSON values in one item of a request, counting nested values. An item with 64 principles has about 200 values."""
Resolver = Callable[[str], bytes]
"""Function that returns the image file with the given digest ("sha256:<hex>"). Raises LookupError if there is none."""


class Wire(BaseModel):
    """Base class of the request and response models. They are immutable and reject unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class WireImage(Wire):
    """An image, given by exactly one of ``data`` (base64 of a PNG, JPEG, WebP, TIFF, BMP or GIF file) and ``digest``.

    An image that several items share is sent once as ``data`` and then referred to by ``digest``. The file with this
    digest must be in the same request or available on the server.
    """

    data: Annotated[str, Field(min_length=1)] | None = None
    """The image file in base64."""
    digest: Digest | None = None
    """Digest of the image file: ``sha256:`` and the SHA-256 in hexadecimal."""

    @model_validator(mode="after")
    def _check_one_given(self) -> Self:
        if (self.data is None) == (self.digest is None):
            given = "neither is" if self.data is None else "both are"
            raise ValueError(f"an image must have exactly one of 'data' and 'digest', but {given} given")
        return self


class WireItem(Wire):
    """One edit to score."""

    source: WireImage
    """The image before the edit."""
    edited: WireImage
    """The image after the edit."""
    instruction: Instruction
    """The editing instruction."""
    principles: Annotated[tuple[Principle, ...], Field(min_length=1, max_length=MAX_PRINCIPLES)]
    """The yes/no questions that the verifier answers."""


class _ScoreOptions(Wire):
    """The fields of a score request other than its items."""

    request_id: RequestId | None = None
    """Name of the request, chosen by the client. The response repeats it."""

    num_traces: Annotated[int, Field(ge=1)] = 1
    """Number of traces to sample per item. The score is the mean over the traces that can be parsed."""

    temperature: Temperature | None = None
    """Sampling temperature: 0 (greedy decoding) or from 0.01 to 2. By default, one trace is decoded greedily, and several
    traces are sampled at the server's temperature. Temperature 0 with several traces is rejected."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Seed for sampling the traces. Requests with different seeds do not share a batch."""

    deadline_ms: Annotated[int, Field(ge=1)] | None = None
    """Deadline in milliseconds after the request arrives. Items not scored by then fail with cause ``deadline``."""

    @model_validator(mode="after")
    def _check_temperature(self) -> Self:
        if self.num_traces > 1 and self.temperature == 0:
            raise ValueError("num_traces > 1 requires a temperature above 0, because greedy traces would be identical")
        return self


class ScoreRequest(_ScoreOptions):
    """Body of ``POST /v1/score``."""

    items: Annotated[tuple[WireItem, ...], Field(min_length=1)]
    """The edits to score."""


class UnvalidatedRequest(_ScoreOptions):
    """A request whose items have not been validated yet, so that an invalid item does not cause the whole request to fail."""

    items: Annotated[list[Any], Field(min_length=1)]


class ScoreResponse(Wire):
    """Response of ``POST /v1/score``. It names the request, the model, and the edited image of every result."""

    request_id: RequestId | None = None
    """The ``request_id`` of the request; null if the request has none."""
    model: str
    """Digest of the verifier that computed the scores."""
    results: tuple[ScoreOutcome, ...]
    """One score or failure per item, in the order of the request. ``edited`` is the digest of the item's edited image. It can be
    null in a failure, but not in a score."""


class ErrorResponse(Wire):
    """Body of an error response of ``POST /v1/score``."""

    cause: str
    """Machine-readable cause of the error, such as ``invalid``."""
    detail: str
    """Human-readable description of the error and, where possible, how to resolve it."""


def encode_request(
    items: Sequence[ScoreItem],
    *,
    request_id: str | None = None,
    num_traces: int = 1,
    temperature: float | None = None,
    seed: int | None = None,
    deadline_ms: int | None = None,
) -> bytes:
    """Encode ``items`` as the JSON body of a score request. An image that occurs several times is sent once."""
    sent: set[str] = set()

    def encode(image: EncodedImage) -> WireImage:
        digest = image.sha256
        if digest in sent:
            return WireImage(digest=f"sha256:{digest}")
        sent.add(digest)
        return WireImage(data=base64.b64encode(image.data).decode("ascii"))

    wire = tuple(
        WireItem(source=encode(i.source), edited=encode(i.edited), instruction=i.instruction, principles=i.principles)
        for i in items
    )
    request = ScoreRequest(
        request_id=request_id,
        items=wire,
        num_traces=num_traces,
        temperature=temperature,
        seed=seed,
        deadline_ms=deadline_ms,
    )
    return request.model_dump_json(exclude_none=True).encode()


def decode_items(
    raw: Sequence[object], *, limits: Limits = DEFAULT, resolver: Resolver | None = None
) -> list[ScoreItem | ScoreFailure]:
    """Convert each item of a parsed JSON body to a ``ScoreItem``, or to a ``ScoreFailure`` if it is invalid.

    An item is invalid if it violates a rule of :mod:`editr1.data.rules`. Only the headers of image files are read here,
    not their pixels. ``resolver`` looks up the digests of images that the request does not include.
    """
    wires = [_validated(value) for value in raw]
    images = _RequestImages([wire for wire in wires if isinstance(wire, WireItem)], limits, resolver)
    return [images.score_item(wire) if isinstance(wire, WireItem) else wire for wire in wires]


class _RequestImages:
    """The images of one request. Each distinct image is decoded from base64 and checked once."""

    def __init__(self, items: Sequence[WireItem], limits: Limits, resolver: Resolver | None) -> None:
        self._limits = limits
        self._resolver = resolver
        self._checked: dict[int | str, EncodedImage | str] = {}
        # Keep references to the images, so that their ids stay unique.
        self._sent = [image for item in items for image in (item.source, item.edited) if image.data is not None]
        self._data = {id(image): _from_base64(image.data or "") for image in self._sent}
        self._digests = {key: _digest(data) for key, data in self._data.items() if isinstance(data, bytes)}
        self._by_digest = {digest: self._data[key] for key, digest in self._digests.items()}

    def score_item(self, item: WireItem) -> ScoreItem | ScoreFailure:
        source, edited = self._check(item.source), self._check(item.edited)
        digest = item.edited.digest or self._digests.get(id(item.edited))
        if isinstance(source, str):
            return _invalid(f"source: {source}", digest)
        if isinstance(edited, str):
            return _invalid(f"edited: {edited}", digest)
        valid = ScoreItem(source=source, edited=edited, instruction=item.instruction, principles=item.principles)
        violation = next(row_violations(valid), None)
        return valid if violation is None else _invalid(f"{violation.field}: {violation.rule}", digest)

    def _check(self, image: WireImage) -> EncodedImage | str:
        """Return the image, or a string with the reason why it is invalid."""
        key = image.digest or id(image)
        if key not in self._checked:
            data = self._data[id(image)] if image.digest is None else self._look_up(image.digest)
            self._checked[key] = data if isinstance(data, str) else self._check_header(data)
        return self._checked[key]

    def _look_up(self, digest: str) -> bytes | str:
        if digest in self._by_digest:
            return self._by_digest[digest]
        if self._resolver is None:
            return f"image {digest} is not in this request, and this server does not look up digests; send the image as data"
        try:
            data = self._resolver(digest)
        except LookupError:
            return f"image {digest} is neither in this request nor available on this server; send the image as data"
        except Exception as error:  # An unreachable image store must not cause other items to fail.
            return f"image {digest} could not be read: {type(error).__name__}: {error}; send the image as data"
        found = _digest(data)
        if found != digest:
            return f"this server's file for image {digest} has a different digest, {found}; send the image as data"
        return data

    def _check_header(self, data: bytes) -> EncodedImage | str:
        return image_fault(data, self._limits, decode=False) or EncodedImage(data=data)


def _validated(value: object) -> WireItem | ScoreFailure:
    if not _is_small(value):
        return _invalid(
            f"the item has more than {MAX_ITEM_VALUES} JSON values; send only the documented fields of an item"
        )
    try:
        return WireItem.model_validate(value)
    except ValidationError as error:
        return _invalid(explain(error))


def _is_small(value: object) -> bool:
    """Return True if an item has at most ``MAX_ITEM_VALUES`` JSON values.

    Larger items are not validated, because the list of their validation errors could be a hundred times as large as the item.
    """
    seen, waiting = 0, [value]
    while waiting and seen <= MAX_ITEM_VALUES:
        item = waiting.pop()
        seen += 1
        if isinstance(item, dict | list):
            if len(item) > MAX_ITEM_VALUES:
                return False
            waiting += item.values() if isinstance(item, dict) else item
    return seen <= MAX_ITEM_VALUES


def explain(error: ValidationError) -> str:
    """Format a validation error as ``field: message`` entries on one line. Input values are omitted."""
    errors = error.errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(str(p) for p in e['loc']) or 'body'}: {e['msg']}"[:300] for e in errors[:5]]
    if len(errors) > 5:
        lines.append(f"number of further errors: {len(errors) - 5}")
    return "; ".join(lines).encode("utf-8", "replace").decode()


def _invalid(detail: str, edited: str | None = None) -> ScoreFailure:
    return ScoreFailure(edited=edited, cause=FailureCause.INVALID, detail=detail)


def _from_base64(text: str) -> bytes | str:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return f"data is not base64: {error}; encode the image file as base64"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
