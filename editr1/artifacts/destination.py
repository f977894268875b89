"""Keep folders with the files of an artifact free of other files, which a later reader would take for part of the artifact.

Next to each folder ``NAME``, the file ``.NAME.manifest.json`` contains the manifest of the artifact that was fetched
into it. The files in this manifest may be replaced by those of another artifact; all other files are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from editr1.artifacts.errors import StoreError, UnusableFolder
from editr1.artifacts.manifest import Manifest, parse_manifest

_MAX_SHOWN = 5


def check_no_foreign_files(folder: Path, known: Collection[str]) -> None:
    """Raise UnusableFolder if ``folder`` contains files other than ``known``, which are paths relative to it.

    A folder that does not exist is accepted. Empty subfolders are ignored.
    """
    foreign = [path for path in _files(folder) if path not in known]
    if foreign:
        shown = ", ".join(foreign[:_MAX_SHOWN]) + (
            f" and {len(foreign) - _MAX_SHOWN} more" if len(foreign) > _MAX_SHOWN else ""
        )
        raise UnusableFolder(
            f"{folder}: the folder contains files that editr1 did not write there: {shown}; "
            "move or delete them, or choose another folder"
        )


def check_destination(folder: Path, recorded: Manifest | None = None) -> None:
    """Raise UnusableFolder if no artifact can be fetched into ``folder``, because it contains foreign files.

    Files of the artifact that was fetched into the folder before are not foreign. If this artifact is unknown, it is
    assumed to be ``recorded``.
    """
    previous = _fetched(folder)
    if not previous and recorded is not None:
        previous = [recorded]
    check_no_foreign_files(folder, _paths(*previous))
    if previous and folder.is_dir():
        _write_note(folder, previous[0])


def prepare_destination(folder: Path, manifest: Manifest) -> None:
    """Remove the files of the previous artifact from ``folder``, and record that ``manifest`` is fetched into it.

    Files that both artifacts contain are kept. The caller holds the lock of the folder.

    Raises:
        UnusableFolder: the folder contains files of neither artifact. Nothing is changed.
        OSError: the folder cannot be written.
    """
    previous = _fetched(folder)
    wanted = _paths(manifest)
    check_no_foreign_files(folder, wanted | _paths(*previous))
    for path in set(_files(folder)) - wanted:
        (folder / path).unlink()
        with suppress(OSError):  # The subfolder contains other files, or is the folder itself.
            (folder / path).parent.rmdir()
    folder.mkdir(parents=True, exist_ok=True)
    if [item.digest for item in previous] != [manifest.digest]:
        _write_note(folder, manifest)


def _note(folder: Path) -> Path:
    return folder.parent / f".{folder.resolve().name}.manifest.json"


def _write_note(folder: Path, manifest: Manifest) -> None:
    note = _note(folder)
    scratch = note.with_suffix(".new")
    scratch.write_bytes(manifest.canonical())
    os.replace(scratch, note)


def _fetched(folder: Path) -> list[Manifest]:
    """Return the manifest of the artifact that was fetched into ``folder``; empty if it is unknown."""
    note = _note(folder)
    try:
        return [parse_manifest(note.read_bytes(), str(note))]
    except (OSError, StoreError):
        return []


def _paths(*manifests: Manifest) -> set[str]:
    return {file.path for manifest in manifests for file in manifest.files}


def _files(folder: Path) -> list[str]:
    """Return the paths of all files below ``folder``, relative to it and sorted.

    Links to folders are not followed: no artifact can contain one, and a fetch through one is refused.
    """
    return sorted(
        (Path(current) / name).relative_to(folder).as_posix() for current, _, names in os.walk(folder) for name in names
    )
