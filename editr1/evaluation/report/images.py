"""Embed the images of the report in the page as data URIs."""

from __future__ import annotations

import base64
import io
from typing import NamedTuple

from editr1.data.images import decode_image, encode_png

MAX_PIXELATED_SIDE = 128
"""Maximum length in pixels of the longest side of an image that is drawn without interpolation."""

MAX_SIDE = 720
"""Longest side of an embedded image in pixels; larger images are downscaled."""


class EmbeddedImage(NamedTuple):
    """An image of the page: its data URI, its size in pixels, and whether it is drawn without interpolation."""

    uri: str
    width: int
    height: int
    pixelated: bool


def embedded_image(data: bytes) -> EmbeddedImage:
    """Re-encode an image for the page.

    The result is a PNG if the longest side has at most ``MAX_PIXELATED_SIDE`` pixels. Otherwise, it is a JPEG whose
    longest side has at most ``MAX_SIDE`` pixels.

    Raises:
        ImageError: ``data`` is not an image.
    """
    image = decode_image(data)
    longest = max(image.size)
    if longest <= MAX_PIXELATED_SIDE:
        return EmbeddedImage(_uri("image/png", encode_png(image)), image.width, image.height, True)
    if longest > MAX_SIDE:
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=85, optimize=True)
    return EmbeddedImage(_uri("image/jpeg", buffer.getvalue()), image.width, image.height, False)


def _uri(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
