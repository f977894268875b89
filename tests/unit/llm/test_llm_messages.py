"""Chat messages with images."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from editr1.data.types import EncodedImage
from editr1.llm.messages import build_messages, data_url, png_data_url


def png(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> EncodedImage:
    noise = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, "PNG")
    return EncodedImage(data=buffer.getvalue())


def decoded(url: str) -> Image.Image:
    header, _, data = url.partition(",")
    assert header.startswith("data:image/")
    return Image.open(io.BytesIO(base64.b64decode(data)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_portable_images_are_sent_unchanged(mode) -> None:
    image = png(mode)
    assert data_url(image.data, 64) == "data:image/png;base64," + base64.b64encode(image.data).decode()


@pytest.mark.parametrize("mode", ["RGBA", "P", "1"])
def test_images_in_other_modes_are_sent_as_rgb_png(mode) -> None:
    with decoded(data_url(png(mode).data, 64)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (24, 16))


def test_large_images_are_scaled_down() -> None:
    with decoded(data_url(png(size=(200, 100)).data, 64)) as image:
        assert image.size == (64, 32)


def test_rotated_images_are_sent_upright() -> None:
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (30, 10)).save(buffer, "JPEG", exif=exif)
    with decoded(data_url(buffer.getvalue(), 64)) as image:
        assert image.size == (10, 30)


def test_decoded_images_are_sent_as_png() -> None:
    with decoded(png_data_url(Image.new("RGB", (5, 4), "red"))) as image:
        assert (image.format, image.size, image.getpixel((0, 0))) == ("PNG", (5, 4), (255, 0, 0))


def test_messages_keep_the_order_of_texts_and_images() -> None:
    system, user = build_messages("rules", ["a", png(), "b"], 64)
    assert system == {"role": "system", "content": "rules"}
    assert [part["type"] for part in user["content"]] == ["text", "image_url", "text"]
    assert [message["role"] for message in build_messages("", ["a"], 64)] == ["user"]
