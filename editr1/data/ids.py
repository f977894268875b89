"""Generate unique identifiers that contain readable text in any script."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import PurePosixPath
from typing import Final

_LONGEST_NAME: Final = 60
_DIGEST_DIGITS: Final = 32
"""Number of hexadecimal digits (128 bits): among a billion generated ids, the probability of a collision is below 1e-20."""


def readable(text: str, longest: int = _LONGEST_NAME) -> str:
    """Convert ``text`` to a part of an id: its letters and digits of any script, with ``-`` between the words.

    The result has at most ``longest`` characters, and is empty if ``text`` has neither letters nor digits. The NFC
    and NFD forms of a text give the same result.
    """
    normal = unicodedata.normalize("NFC", text)
    kept = "".join(char if unicodedata.category(char)[0] in "LMN" else "-" for char in normal)
    words = re.sub(r"-+", "-", kept)[:longest].strip("-")
    # An id starts with a letter or a digit, so a leading combining mark is removed.
    while words and unicodedata.category(words[0])[0] == "M":
        words = words[1:].lstrip("-")
    return words


def generated_case_id(source: str, instruction: str, name: str) -> str:
    """Return the id of the case with the given source image and instruction.

    ``source`` identifies the image: its path, or ``sha256:`` and its digest. The id consists of ``name``, which is
    meant for people, and a 128-bit digest of the source and the instruction, so that different cases have different
    ids.
    """
    identity = [unicodedata.normalize("NFC", source).encode(), instruction.encode()]
    digest = hashlib.sha256(b"\0".join(identity)).hexdigest()[:_DIGEST_DIGITS]
    return f"{readable(name) or 'case'}-{digest}"


def path_stem(path: str) -> str:
    """Return the file name in a path, without its suffix."""
    return PurePosixPath(path).stem
