"""Read and validate the images of an import, which are in a folder or embedded in the import table."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from editr1.data.images import ImageError, decode_image, encode_png, shrink
from editr1.data.import_forms import EmbeddedImages
from editr1.data.jsonl import read_below
from editr1.data.rules import image_fault
from editr1.data.types import EncodedImage


class ImportImages:
    """The images of an import, identified by the names in the import table.

    Each image is decoded once for validation. An image larger than ``max_side`` pixels is scaled down, and the copy
    is stored in the folder ``scratch``.
    """

    def __init__(self, folder: Path, embedded: EmbeddedImages, max_side: int | None, scratch: Path) -> None:
        self._folder = folder
        self._embedded = embedded
        self._max_side = max_side
        self._scratch = scratch
        self._faults: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._scaled: dict[str, Path] = {}
        self.read = lru_cache(maxsize=32)(self._read)

    def fault(self, name: str) -> str:
        """Return the reason why the image cannot be used, or an empty string if it is valid."""
        if name not in self._faults:
            self._faults[name] = ""
            try:
                data = self._original(name)
                image = decode_image(data)
            except (ImageError, ValueError) as error:
                self._faults[name] = str(error)
                return str(error)
            if self._max_side is not None and max(image.size) > self._max_side:
                data = encode_png(shrink(image, self._max_side))
                self._scaled[name] = self._scratch / str(len(self._scaled))
                self._scaled[name].write_bytes(data)
            self._faults[name] = image_fault(data, decode=False) or ""
            self._digests[name] = hashlib.sha256(data).hexdigest()
        return self._faults[name]

    def digest(self, name: str) -> str:
        """Return the SHA-256 of the file that will be stored for a valid image.

        Call :meth:`fault` for the image first.
        """
        return self._digests[name]

    def _original(self, name: str) -> bytes:
        embedded = self._embedded.path(name)
        return embedded.read_bytes() if embedded else read_below(self._folder, name)

    def _read(self, name: str) -> EncodedImage:
        scaled = self._scaled.get(name)
        return EncodedImage(data=scaled.read_bytes() if scaled else self._original(name))
