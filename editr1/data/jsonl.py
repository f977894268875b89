"""Read tables in JSON Lines format, which is meant for handwritten data.

Each line is an object with the fields of the data type. An image is a path relative to the file (``"source":
"in/a.png"``) or ``{"data": "<base64>"}``. Error messages give the line number of a row, counted from 1. Blank lines
are skipped.
"""

from __future__ import annotations

import base64
import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from editr1.data.errors import TableError
from editr1.data.given_json import parse_given_json
from editr1.data.images import MAX_BYTES


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | TableError]]:
    """Yield (line number, object) for each line that is not blank.

    If a line is not a JSON object, a TableError is yielded in place of the object.

    Raises:
        TableError: the file cannot be opened.
    """
    try:
        encoding = text_encoding(path)
        file = path.open("rb")
    except OSError as error:
        raise TableError(path, None, None, None, error.strerror or str(error)) from None
    with file:
        lines = file if encoding == "utf-8-sig" else _transcoded(file, path)
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = parse_given_json(line if number == 1 else line.decode())
            except UnicodeDecodeError as error:
                yield (
                    number,
                    TableError(
                        path,
                        number,
                        None,
                        line[:80],
                        f"the line is not UTF-8 at byte {error.start + 1}; save the file as UTF-8",
                    ),
                )
            except ValueError as error:
                yield (
                    number,
                    TableError(path, number, None, line.decode()[:80].rstrip(), f"the line is not JSON: {error}"),
                )
            else:
                if isinstance(row, dict):
                    yield number, row
                else:
                    yield number, TableError(path, number, None, row, "must be a JSON object")


def text_encoding(path: Path) -> str:
    """Return "utf-16" if a text file begins with the byte order mark of UTF-16, and otherwise "utf-8-sig".

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _transcoded(file: BinaryIO, path: Path) -> Iterator[bytes]:
    try:
        for line in io.TextIOWrapper(file, encoding="utf-16"):
            yield line.encode()
    except UnicodeError as error:
        raise TableError(path, None, None, None, f"the file is not UTF-16: {error}; save it as UTF-8") from None


def resolve_images(path: Path, number: int, row: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of ``row`` in which every image path and base64-encoded image is replaced with ``{"data": bytes}``.

    Raises:
        TableError: an image path does not exist or leads outside the folder of ``path``, a string is not base64, or the
            row is nested too deeply.
    """
    try:
        return {name: _resolved(path, number, name, value, name) for name, value in row.items()}
    except RecursionError:
        raise TableError(path, number, None, None, "the JSON object is nested too deeply") from None


def read_below(folder: Path, name: str) -> bytes:
    """Read the file ``name`` in ``folder``.

    If there is no such file, a file whose name differs only in Unicode normalisation (NFC, NFD) is read.

    Raises:
        ValueError: ``name`` leads outside the folder, or or the file does not exist, cannot be read or is too large.
    """
    try:
        target = folder / name
        if not name or Path(name).is_absolute() or not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"must be a relative path inside {folder}")
        if not target.is_file():
            target = _with_other_normalisation(folder, name)
        if not target.is_file():
            folders = "; separate folders with /" if "\\" in name else ""
            raise ValueError(f"there is no such file in {folder}{folders}")
        if target.stat().st_size > MAX_BYTES:
            raise ValueError(f"the file has {target.stat().st_size} bytes; at most {MAX_BYTES} are allowed")
        return target.read_bytes()
    except OSError as error:  # for example, the name is too long
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except RuntimeError:  # pathlib raises RuntimeError for a loop of symbolic links
        raise ValueError("cannot be read: it is a symbolic link that leads to itself") from None


def _with_other_normalisation(folder: Path, name: str) -> Path:
    """Return the path of the file whose name equals ``name`` after Unicode normalisation, or ``folder / name`` if there is no such file."""
    found = folder
    for part in Path(name).parts:
        spellings = [found / spelling for spelling in (part, *(unicodedata.normalize(f, part) for f in ("NFC", "NFD")))]
        found = next((path for path in spellings if path.exists()), spellings[0])
    return found if found.resolve().is_relative_to(folder.resolve()) else folder / name


def _resolved(path: Path, number: int, field: str, value: Any, name: str) -> Any:
    if name in ("source", "image", "edited") and isinstance(value, str):
        try:
            return {"data": read_below(path.parent, value)}
        except ValueError as error:
            raise TableError(path, number, field, value, str(error)) from None
    if not isinstance(value, dict):
        return value
    if name in ("source", "image", "edited") and isinstance(value.get("data"), str):
        try:
            return value | {"data": base64.b64decode(value["data"], validate=True)}
        except ValueError as error:  # binascii.Error, or a text that is not ASCII
            raise TableError(
                path, number, f"{field}.data", value["data"], f"the value is not base64: {error}"
            ) from None
    return {child: _resolved(path, number, f"{field}.{child}", item, child) for child, item in value.items()}
