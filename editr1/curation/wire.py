"""Chat messages with pictures as OpenAI-compatible servers take them."""

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


def messages(system: str, parts: Sequence[str | EncodedImage], max_side: int) -> list[Message]:
    """A system message (none when empty) and one user message of texts and pictures in the order of ``parts``."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_url(part.data, max_side)}}
        for part in parts
    ]
    user: Message = {"role": "user", "content": content}
    return [{"role": "system", "content": system}, user] if system else [user]


@lru_cache(maxsize=256)
def data_url(data: bytes, max_side: int) -> str:
    """A picture as a ``data:`` URL.

    The bytes go out as they are when every server reads them alike (PNG, JPEG or WebP; RGB or grey; upright; no side
    above ``max_side`` pixels); any other picture is decoded, reduced and sent as PNG. Raises
    :class:`editr1.data.images.ImageError` for what is not a picture.
    """
    mime = _as_it_is(data, max_side)
    if mime is None:
        image = decode_image(data)
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        data, mime = encode_png(image), "image/png"
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def _as_it_is(data: bytes, max_side: int) -> str | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            plain = image.mode in ("RGB", "L") and "transparency" not in image.info
            upright = image.getexif().get(_ORIENTATION, 1) == 1
            if plain and upright and max(image.size) <= max_side:
                return _MIME.get(image.format or "")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass
    return None
