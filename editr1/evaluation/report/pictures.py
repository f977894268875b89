"""Pictures inside the page, as data URIs."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from editr1.data.images import decode_image, encode_png

SMALL = 128
"""Longest side, in pixels, up to which a picture is drawn with hard pixels."""

LARGEST = 720
"""Longest side, in pixels, of a picture inside the page; larger ones are reduced."""


class Shown(NamedTuple):
    """A picture ready for an ``img``: its data URI, size in pixels, and whether to draw hard pixels."""

    uri: str
    width: int
    height: int
    pixelated: bool


def shown(data: bytes) -> Shown:
    """Decode and encode again: PNG when small, else JPEG of at most 720 px. Raises ImageError on what is no picture."""
    image = decode_image(data)
    longest = max(image.size)
    if longest <= SMALL:
        return Shown(_uri("image/png", encode_png(image)), image.width, image.height, True)
    if longest > LARGEST:
        image.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85, optimize=True)
    return Shown(_uri("image/jpeg", buffer.getvalue()), image.width, image.height, False)


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
