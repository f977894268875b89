"""Read tables in JSON Lines format, which is meant for data written by hand.

Each line is an object with the fields of the data type. An image is a path relative to the file
(``"source": "in/a.png"``) or ``{"data": "<base64>"}``. Error messages give the line number of a row, counted from 1. Blank
lines are skipped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from editr1.data.errors import TableError
from editr1.data.images import MAX_BYTES


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | TableError]]:
    """Yield (line number, object) for each line. If the line is not a JSON object, a TableError replaces the object.

    Raises:
        TableError: the file cannot be opened.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise TableError(path, None, None, None, error.strerror or str(error)) from None
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
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
            except (ValueError, RecursionError) as error:
                yield (
                    number,
                    TableError(path, number, None, line.decode()[:80].rstrip(), f"the line is not JSON: {error}"),
                )
            else:
                if isinstance(row, dict):
                    yield number, row
                else:
                    yield number, TableError(path, number, None, row, "must be a JSON object")


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

    Raises:
        ValueError: ``name`` leads outside the folder, or the file does not exist, cannot be read or is too large.
    """
    try:
        target = folder / name
        if not name or Path(name).is_absolute() or not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"must be a relative path inside {folder}")
        if not target.is_file():
            raise ValueError(f"there is no such file in {folder}")
        if target.stat().st_size > MAX_BYTES:
            raise ValueError(f"the file has {target.stat().st_size} bytes; at most {MAX_BYTES} are allowed")
        return target.read_bytes()
    except OSError as error:  # for example, a name that is too long
        raise ValueError(f"cannot be read: {error.strerror}") from None


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
