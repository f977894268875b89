"""Create a demo folder with edited photographs and a table of preferences.

The photographs are part of scikit-image and scikit-learn. The instruction of each case requests one photographic
operation. The candidates are the correct result and results with deliberate faults, so the preferences are known by
construction. The source images cover the colour modes found in real folders: RGB, RGBA, palette, 16-bit grey and
CMYK. One has an EXIF rotation. The extra ``editr1[photos]`` must be installed; nothing is downloaded.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from editr1.data.errors import DataError
from editr1.data.images import decode_image
from editr1.data.types import Category, Principle

Edit = Callable[[Image.Image], Image.Image]
CENTRE: Final = 0.6
"""Fraction of the width and of the height that the operation ``crop`` keeps."""
COLUMNS: Final = ("case_id", "source", "instruction", "edited", "editor", "rank", "principles")


@dataclass(frozen=True)
class Operation:
    """A photographic operation with its instruction and the question that verifies it."""

    name: str
    instruction: str
    question: str
    edit: Edit


@dataclass(frozen=True)
class Photo:
    """A photograph included in an installed package.

    ``save`` writes it to the demo folder in a given file format and colour mode.
    """

    name: str
    package: str
    path: str
    save: Callable[[Image.Image, Path], Path]


def make_photos(out: Path, *, cases_per_photo: int = 3, principles: bool = True) -> Path:
    """Write the images and ``table.csv`` (with the columns of ``editr1.data.importer``) to ``out``; return the table's path.

    The seven photographs have 451 x 300 to 741 x 500 pixels. Each photograph is the source image of
    ``cases_per_photo`` (1 to 5) cases. A case has five ranked candidates: the requested edit (rank 1), the same edit
    with a white border and the same edit with false colours (both rank 2), the unchanged source image and the result
    of another operation (both rank 3). If ``principles`` is true, each row also has three principles. The output is
    deterministic.

    Raises:
        DataError: scikit-image or scikit-learn is not installed, or does not include these photographs.
    """
    if not 1 <= cases_per_photo <= 5:
        raise ValueError(f"cases_per_photo: {cases_per_photo}: must be a number from 1 to 5")
    (out / "sources").mkdir(parents=True, exist_ok=True)
    (out / "edited").mkdir(exist_ok=True)
    table = out / "table.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number, (photo, shipped) in enumerate(_shipped()):
            source = photo.save(decode_image(shipped.read_bytes()), out / "sources" / photo.name)
            seen = decode_image(source.read_bytes())
            rotated = [*OPERATIONS[number % len(OPERATIONS) :], *OPERATIONS[: number % len(OPERATIONS)]]
            for operation in [operation for operation in rotated if _shows(operation, seen)][:cases_per_photo]:
                for row in _case(photo, operation, seen, out / "edited", principles):
                    writer.writerow(row | {"source": f"sources/{source.name}"})
    return table


def principles_of(operation: Operation) -> list[Principle]:
    """Return the yes/no questions for an ``operation``, one per category."""
    return [
        Principle(question=operation.question, category=Category.FOLLOW),
        Principle(question="Is everything that was not asked about unchanged?", category=Category.KEEP),
        Principle(question="Is the picture free of an added border and of damage?", category=Category.QUALITY),
    ]


def _case(
    photo: Photo, operation: Operation, seen: Image.Image, folder: Path, principles: bool
) -> Iterator[dict[str, str]]:
    case_id = f"{photo.name}-{operation.name}"
    other = OPERATIONS[(OPERATIONS.index(operation) + 3) % len(OPERATIONS)]
    done = operation.edit(seen)
    candidates = [
        ("as-asked", 1, done),
        ("bordered", 2, _bordered(done)),
        (
            "false-colours",
            2,
            _tinted(done) if _is_grey(done) or _is_grey(seen) else operation.edit(_over_saturated(seen)),
        ),
        ("nothing-done", 3, seen),
        ("other-edit", 3, other.edit(seen)),
    ]
    questions = json.dumps([principle.model_dump(mode="json") for principle in principles_of(operation)])
    for editor, rank, image in candidates:
        path = folder / f"{case_id}-{editor}.jpg"
        image.save(path, quality=92)
        yield {
            "case_id": case_id,
            "instruction": operation.instruction,
            "edited": f"{folder.name}/{path.name}",
            "editor": editor,
            "rank": str(rank),
            "principles": questions if principles else "",
        }


def _shipped() -> Iterator[tuple[Photo, Path]]:
    found = False
    for photo in PHOTOS:
        spec = importlib.util.find_spec(photo.package)
        if spec is None or not spec.submodule_search_locations:
            raise DataError(
                f"package {photo.package!r} is not installed; in a clone of the repository, install the extra: "
                "pip install -e '.[photos]'"
            )
        path = Path(spec.submodule_search_locations[0]) / photo.path
        # Some releases download some of the photographs on demand instead of including them.
        if path.is_file():
            found = True
            yield photo, path
    if not found:
        raise DataError(
            "the installed releases of scikit-image and scikit-learn do not include the demo photographs; install other "
            "releases of these packages"
        )


def _shows(operation: Operation, image: Image.Image) -> bool:
    return operation.name != "grey" or not _is_grey(image)


def _is_grey(image: Image.Image) -> bool:
    pixels = np.asarray(image)
    return bool((pixels == pixels[..., :1]).all())


def _central(image: Image.Image) -> Image.Image:
    width, height = image.size
    left, top = round(width * (1 - CENTRE) / 2), round(height * (1 - CENTRE) / 2)
    return image.crop((left, top, width - left, height - top))


def _warm(image: Image.Image) -> Image.Image:
    return _scaled(image, (1.25, 1.0, 0.65))


def _tinted(image: Image.Image) -> Image.Image:
    return _scaled(image, (1.0, 0.7, 1.2))


def _scaled(image: Image.Image, factors: tuple[float, float, float]) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * np.array(factors), 0, 255).astype(np.uint8))


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(max(image.size) / 100))


def _over_saturated(image: Image.Image) -> Image.Image:
    return ImageEnhance.Color(image).enhance(3.5)


def _bordered(image: Image.Image) -> Image.Image:
    side = max(image.size) // 20
    width, height = image.size
    return ImageOps.expand(image.crop((side, side, width - side, height - side)), side, "white")


def _as_png(image: Image.Image, path: Path) -> Path:
    image.save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def _as_jpeg(image: Image.Image, path: Path) -> Path:
    image.save(path.with_suffix(".jpg"), quality=95)
    return path.with_suffix(".jpg")


def _as_rounded_rgba(image: Image.Image, path: Path) -> Path:
    alpha = Image.new("L", image.size, 0)
    ImageDraw.Draw(alpha).rounded_rectangle((0, 0, image.width - 1, image.height - 1), min(image.size) // 8, fill=255)
    image.putalpha(alpha)
    return _as_png(image, path)


def _as_palette(image: Image.Image, path: Path) -> Path:
    return _as_png(image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG), path)


def _as_16_bit_grey(image: Image.Image, path: Path) -> Path:
    return _as_png(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), path)


def _as_cmyk(image: Image.Image, path: Path) -> Path:
    return _as_jpeg(image.convert("CMYK"), path)


def _as_rotated_jpeg(image: Image.Image, path: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6  # Orientation: rotate by 90 degrees clockwise for display
    image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), quality=95, exif=exif)
    return path.with_suffix(".jpg")


OPERATIONS: Final = (
    Operation("grey", "Make the photo black and white.", "Is the photo black and white?",
              lambda image: ImageOps.grayscale(image).convert("RGB")),
    Operation("brighter", "Make the photo clearly brighter.", "Is the photo clearly brighter than before?",
              lambda image: ImageEnhance.Brightness(image).enhance(1.6)),
    Operation("mirror", "Mirror the photo from left to right.", "Is the photo mirrored from left to right?",
              ImageOps.mirror),
    Operation("crop", "Crop the photo to its centre.", "Does the photo show only the centre of the original?",
              _central),
    Operation("warm", "Give the photo a warm, orange colour cast.", "Does the photo have a warm, orange cast?", _warm),
    Operation("blur", "Blur the whole photo.", "Is the whole photo blurred?", _blurred),
)  # fmt: skip

PHOTOS: Final = (
    Photo("astronaut", "skimage", "data/astronaut.png", _as_png),
    Photo("chelsea", "skimage", "data/chelsea.png", _as_rounded_rgba),
    Photo("coffee", "skimage", "data/coffee.png", _as_palette),
    Photo("rocket", "skimage", "data/rocket.jpg", _as_jpeg),
    Photo("motorcycle", "skimage", "data/motorcycle_left.png", _as_16_bit_grey),
    Photo("china", "sklearn", "datasets/images/china.jpg", _as_cmyk),
    Photo("flower", "sklearn", "datasets/images/flower.jpg", _as_rotated_jpeg),
)
