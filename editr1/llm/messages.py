"""Build chat messages with images in the format of the OpenAI chat completions API."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from PIL import Image

from editr1.data.images import decode_image, encode_png
from editr1.data.types import EncodedImage

Message = dict[str, Any]

_MIME: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_ORIENTATION: Final = 274
"""Number of the EXIF orientation tag. The value 1 means that the image is upright."""


def build_messages(system: str, parts: Sequence[str | EncodedImage], max_side: int) -> list[Message]:
    """Return the messages of a chat request.

    The first is the system message, which is omitted if ``system`` is empty. The second is the user message, which
    contains ``parts`` (texts and images) in order. Images with a side longer than ``max_side`` pixels are scaled
    down.
    """
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else image_part(data_url(part.data, max_side))
        for part in parts
    ]
    user: Message = {"role": "user", "content": content}
    return [{"role": "system", "content": system}, user] if system else [user]


def image_part(url: str) -> dict[str, Any]:
    """Return the part of a user message that contains an image. ``url`` is the ``data:`` URL of the image."""
    return {"type": "image_url", "image_url": {"url": url}}


def png_data_url(image: Image.Image) -> str:
    """Encode a PIL image as a ``data:`` URL that contains a PNG file."""
    return _data_url("image/png", encode_png(image))


@lru_cache(maxsize=256)
def data_url(data: bytes, max_side: int) -> str:
    """Encode an image file as a ``data:`` URL.

    The bytes are sent unchanged if all servers decode the image in the same way and no side is longer than
    ``max_side`` pixels. This holds for upright PNG, JPEG or WebP images in RGB or greyscale. Any other image is
    decoded, scaled down if a side is too long, and sent as PNG.

    Raises:
        editr1.data.images.ImageError: ``data`` is not an image.
    """
    mime = _portable_mime(data, max_side)
    if mime is not None:
        return _data_url(mime, data)
    image = decode_image(data)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return png_data_url(image)


def _portable_mime(data: bytes, max_side: int) -> str | None:
    """Return the media type of an image file that can be sent unchanged, and None for any other image."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            plain = image.mode in ("RGB", "L") and "transparency" not in image.info
            upright = image.getexif().get(_ORIENTATION, 1) == 1
            if plain and upright and max(image.size) <= max_side:
                return _MIME.get(image.format or "")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass
    return None


def _data_url(mime: str, data: bytes) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
