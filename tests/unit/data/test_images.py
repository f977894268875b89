"""Photographs of every mode are decoded to RGB; invalid images are refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from editr1.data.images import ImageError, decode_image, encode_png, image_size, shrink


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def pixel(data: bytes, at: tuple[int, int] = (0, 0)) -> tuple[int, ...]:
    image = decode_image(data)
    assert image.mode == "RGB"
    value = image.getpixel(at)
    assert isinstance(value, tuple)
    return value


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_each_allowed_format_is_decoded(kind: str) -> None:
    decoded = decode_image(saved(Image.new("RGB", (16, 9), (200, 30, 60)), kind))
    assert decoded.size == (16, 9)
    assert np.abs(np.asarray(decoded, dtype=int) - (200, 30, 60)).max() <= 4


def test_transparent_colour_is_blended_with_white() -> None:
    assert pixel(saved(Image.new("RGBA", (2, 2), (255, 0, 0, 128)))) == (255, 127, 127)
    assert pixel(saved(Image.new("RGBA", (2, 2), (9, 9, 9, 0)))) == (255, 255, 255)


def test_transparent_grey_becomes_white() -> None:
    assert pixel(saved(Image.new("LA", (2, 2), (0, 0)))) == (255, 255, 255)
    assert pixel(saved(Image.new("LA", (2, 2), (40, 255)))) == (40, 40, 40)


def test_palette_colours_are_kept_and_transparent_entry_becomes_white() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    plain, keyed = saved(picture), saved(picture, transparency=1)
    assert (pixel(plain), pixel(plain, (1, 0))) == ((10, 20, 30), (40, 50, 60))
    assert (pixel(keyed), pixel(keyed, (1, 0))) == ((10, 20, 30), (255, 255, 255))


def test_colour_key_becomes_white() -> None:
    assert pixel(saved(Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))) == (255, 255, 255)
    assert pixel(saved(Image.new("L", (2, 2), 7), transparency=7)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "value", "grey"), [("1", 1, 255), ("L", 77, 77)])
def test_grey_and_bilevel_images_are_converted_to_rgb(mode: str, value: int, grey: int) -> None:
    assert pixel(saved(Image.new(mode, (3, 3), value))) == (grey,) * 3


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "grey"), [(0, 0), (257, 1), (32896, 128), (65535, 255)])
def test_sixteen_bit_grey_is_scaled(kind: str, value: int, grey: int) -> None:
    sixteen = Image.fromarray(np.full((3, 5), value, dtype=np.uint16))
    assert sixteen.mode == "I;16"
    assert pixel(saved(sixteen, kind)) == (grey,) * 3


def test_32_bit_grey_with_values_above_16_bits_is_refused() -> None:
    assert pixel(saved(Image.fromarray(np.full((2, 2), 65535, dtype=np.int32)), "TIFF")) == (255,) * 3
    with pytest.raises(ImageError, match=r"70000; use 16-bit"):
        decode_image(saved(Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)), "TIFF"))


def test_floating_point_grey_is_scaled_by_its_range() -> None:
    unit = np.array([[0.0, 1.0]], dtype=np.float32)
    assert pixel(saved(Image.fromarray(unit), "TIFF"), (1, 0)) == (255,) * 3
    assert pixel(saved(Image.fromarray(unit * 130), "TIFF"), (1, 0)) == (130,) * 3
    for wrong in (np.nan, -1.0, 256.0):
        with pytest.raises(ImageError, match="floating-point grey"):
            decode_image(saved(Image.fromarray(np.full((2, 2), wrong, dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_to_rgb(kind: str) -> None:
    cyan = pixel(saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), kind))
    assert np.abs(np.array(cyan) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(np.kron(np.array([[0, 90, 180], [220, 140, 40]], np.uint8), np.ones((16, 16), np.uint8)))
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_image(saved(stored, "JPEG", exif=exif, quality=95))
    assert decoded.size == upright.size
    assert np.abs(np.asarray(decoded)[..., 0].astype(int) - np.asarray(upright)).max() <= 6
    assert not decoded.getexif()


def test_first_frame_of_an_animation_is_used() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    assert pixel(saved(frames[0], "GIF", save_all=True, append_images=frames[1:])) == (255, 0, 0)


def test_decompression_bomb_is_refused_by_its_header() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="pixels"):
        decode_image(bomb)
    modest = saved(Image.new("RGB", (30, 20)))
    with pytest.raises(ImageError, match=r"30 x 20 pixels; between 1 and 599 pixels"):
        decode_image(modest, max_pixels=599)
    assert image_size(modest, max_pixels=600) == (30, 20)
    with pytest.raises(ImageError, match="at most 10 are allowed"):
        decode_image(modest, max_bytes=10)


@pytest.mark.parametrize("data", [b"", b"not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"P6 1 1 255 abc"])
def test_bytes_that_are_not_an_allowed_image_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
def test_truncated_file_raises_only_image_error(kind: str) -> None:
    whole = saved(Image.effect_noise((40, 30), 50).convert("RGB"), kind)
    for keep in range(1, len(whole), max(1, len(whole) // 60)):
        try:
            decode_image(whole[:keep])
        except ImageError:
            continue
        assert keep > len(whole) // 2


def test_damaged_exif_block_is_ignored() -> None:
    assert (
        pixel(saved(Image.new("RGB", (8, 8), "white"), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"))
        == (255,) * 3
    )


def test_png_round_trip_keeps_every_pixel_and_is_deterministic() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 17, 3), dtype=np.uint8))
    data = encode_png(noise)
    assert data == encode_png(noise.copy())
    assert np.array_equal(np.asarray(decode_image(data)), np.asarray(noise))


def test_shrink_bounds_the_longest_side_and_never_enlarges() -> None:
    assert shrink(Image.new("RGB", (400, 100)), 100).size == (100, 25)
    assert shrink(Image.new("RGB", (40, 10)), 100).size == (40, 10)
    assert shrink(Image.new("RGB", (4000, 1)), 100).size == (100, 1)
    with pytest.raises(ValueError, match="max_side"):
        shrink(Image.new("RGB", (4, 4)), 0)
