"""Request and response models, and the effect of an invalid item."""

from __future__ import annotations

import base64
import json
import struct
import zlib

import pytest
from pydantic import ValidationError

from editr1.data.rules import Limits
from editr1.data.types import EncodedImage, FailureCause, ScoreFailure, ScoreItem
from editr1.serving.api import ScoreRequest, UnvalidatedRequest, decode_items, encode_request


def _decode(raw: list[object], **more: object) -> list[ScoreItem | ScoreFailure]:
    return decode_items(raw, **{"limits": Limits(max_pixels=10_000, max_bytes=1 << 20), **more})  # type: ignore[arg-type]


def _failure(value: ScoreItem | ScoreFailure) -> str:
    assert isinstance(value, ScoreFailure)
    assert value.cause is FailureCause.INVALID
    return value.detail


def _bomb(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_encoded_items_decode_to_the_same_items(make_items) -> None:
    items = make_items(3)
    body = encode_request(items, num_traces=4, deadline_ms=500)
    request = UnvalidatedRequest.model_validate_json(body)
    assert (request.num_traces, request.deadline_ms, request.temperature) == (4, 500, None)
    assert _decode(request.items) == items


def test_shared_source_image_is_sent_once(make_items) -> None:
    first, second, third = make_items(3)
    group = [first, *(item.model_copy(update={"source": first.source}) for item in (second, third))]
    body = encode_request(group)
    assert body.count(base64.b64encode(first.source.data)) == 1
    assert body.count(f"sha256:{first.source.sha256}".encode()) == 2
    assert _decode(UnvalidatedRequest.model_validate_json(body).items) == group


def test_invalid_item_does_not_affect_other_items(make_items) -> None:
    raw = json.loads(encode_request(make_items(7)))["items"]
    raw[1] = "nonsense"
    raw[2]["source"] = {"data": "???"}
    raw[3]["edited"] = {"data": base64.b64encode(b"not an image").decode()}
    raw[4]["edited"] = {"data": base64.b64encode(_bomb(5_000, 5_000)).decode()}
    raw[5]["source"] = {"url": "http://example.org/a.png"}
    raw[6]["principles"] = []
    got = _decode(raw)
    assert isinstance(got[0], ScoreItem)
    assert "valid dictionary" in _failure(got[1])
    assert "source: data is not base64" in _failure(got[2])
    assert "edited: the file is not an image" in _failure(got[3])
    assert "5000 x 5000" in _failure(got[4])
    assert "source.url" in _failure(got[5])
    assert "principles" in _failure(got[6])


def test_digest_is_looked_up_and_its_content_is_verified(make_items) -> None:
    (item,) = make_items(1)
    (other,) = make_items(1, seed=1)
    known = {f"sha256:{item.source.sha256}": item.source.data, f"sha256:{other.source.sha256}": item.source.data}
    raw = json.loads(encode_request([item]))["items"]

    def with_source(digest: str) -> list[object]:
        return [raw[0] | {"source": {"digest": digest}}]

    assert _decode(with_source(f"sha256:{item.source.sha256}"), resolver=known.__getitem__) == [item]
    assert "has a different digest" in _failure(
        _decode(with_source(f"sha256:{other.source.sha256}"), resolver=known.__getitem__)[0]
    )
    assert "nor available on this server" in _failure(
        _decode(with_source("sha256:" + "a" * 64), resolver=known.__getitem__)[0]
    )
    assert "does not look up digests" in _failure(_decode(with_source("sha256:" + "a" * 64))[0])

    def unreachable(digest: str) -> bytes:
        raise ConnectionError("store is down")

    assert "store is down" in _failure(_decode(with_source("sha256:" + "a" * 64), resolver=unreachable)[0])


def test_data_and_digest_are_mutually_exclusive(make_items) -> None:
    (raw,) = json.loads(encode_request(make_items(1)))["items"]
    for image in ({}, raw["source"] | {"digest": "sha256:" + "a" * 64}, {"digest": "sha256:xyz"}):
        assert "source" in _failure(_decode([raw | {"source": image}])[0])


@pytest.mark.parametrize(
    "change",
    [
        {"items": []},
        {"num_traces": 0},
        {"num_traces": "many"},
        {"num_traces": 2, "temperature": 0},
        {"temperature": -1},
        {"temperature": 3},
        {"deadline_ms": 0},
        {"seed": -1},
        {"urls": []},
    ],
)
def test_malformed_request_is_rejected_as_a_whole(make_items, change: dict[str, object]) -> None:
    raw = json.loads(encode_request(make_items(1))) | change
    with pytest.raises(ValidationError):
        UnvalidatedRequest.model_validate(raw)
    with pytest.raises(ValidationError):
        ScoreRequest.model_validate(raw)


def test_non_finite_temperatures_are_rejected() -> None:
    for value in (b"NaN", b"Infinity", b"1e999"):
        with pytest.raises(ValidationError):
            UnvalidatedRequest.model_validate_json(b'{"items": [1], "temperature": ' + value + b"}")


def test_images_with_equal_bytes_have_the_same_digest() -> None:
    assert EncodedImage(data=b"a").sha256 == EncodedImage(data=b"a").sha256 != EncodedImage(data=b"b").sha256


def test_item_with_too_many_values_is_rejected_without_listing_them(make_items) -> None:
    raw = json.loads(encode_request(make_items(3)))["items"]
    raw[1] |= {f"k{i}": i for i in range(2000)}
    raw[2]["source"] = [[0] * 600, [0] * 600]
    got = _decode(raw)
    assert isinstance(got[0], ScoreItem)
    assert all(
        _failure(item) == "the item has more than 1000 JSON values; send only the documented fields of an item"
        for item in got[1:]
    )
