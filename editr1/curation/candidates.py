"""Step 3: edited pictures of every case, from several editors of different quality (paper section 3.1).

Curation reads candidates as a table of quadruples; whoever has editors instead of pictures makes the table here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from editr1.curation.errors import CurationError
from editr1.data.tables import count_rows, read_table, write_table
from editr1.data.types import Candidate, EditCase, EncodedImage, Quadruple
from editr1.telemetry import Interrupted, TrainHooks

Editor = Callable[[Sequence[EditCase]], Sequence[EncodedImage]]
"""Edits a batch of cases and returns one picture a case, in their order."""


def make_candidates(
    cases: Path, editors: Mapping[str, Editor], out: Path, *, batch_size: int = 16, hooks: TrainHooks | None = None
) -> int:
    """Let every editor edit every case and write a table of quadruples (without principles); returns the rows.

    ``editors`` maps a name (the ``editor`` column) to a callable. Each batch of each editor is a part of its own beside
    ``out``, so that an interrupted call goes on where it stopped. Raises :class:`CurationError` when an editor returns
    another number of pictures.
    """
    hooks = hooks or TrainHooks()
    names = {_file_name(name) for name in editors}
    if len(names) != len(editors):
        raise CurationError(f"editors: names must differ in letters and digits, got {sorted(editors)}")
    parts = out.with_name(out.name + ".parts")
    batches = -(-count_rows(cases) // batch_size)
    done = sum(_part(parts, name, index).exists() for name in editors for index in range(batches))
    hooks.progress.phase("candidates", batches * len(editors), done)
    for name, editor in editors.items():
        for index in range(batches):
            part = _part(parts, name, index)
            if part.exists():
                continue
            if hooks.should_stop():
                raise Interrupted
            batch = list(read_table(cases, EditCase, start=index * batch_size, stop=(index + 1) * batch_size))
            pictures = editor(batch)
            if len(pictures) != len(batch):
                raise CurationError(f"editor {name}: {len(pictures)} pictures for {len(batch)} cases")
            write_table(
                part,
                (_quadruple(case, name, picture) for case, picture in zip(batch, pictures, strict=True)),
                Quadruple,
            )
            hooks.progress.step()
    return write_table(out, _merged(parts, list(editors), batches), Quadruple)


def _merged(parts: Path, names: Sequence[str], batches: int) -> Iterator[Quadruple]:
    # All candidates of a case follow one another.
    for index in range(batches):
        columns = [read_table(_part(parts, name, index), Quadruple) for name in names]
        for rows in zip(*columns, strict=True):
            yield from rows


def _quadruple(case: EditCase, editor: str, picture: EncodedImage) -> Quadruple:
    candidate = Candidate(candidate_id=f"{case.case_id}:{_file_name(editor)}", editor=editor, image=picture)
    return Quadruple(case=case, candidate=candidate)


def _part(parts: Path, name: str, index: int) -> Path:
    return parts / f"{_file_name(name)}-{index:06d}.parquet"


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()
