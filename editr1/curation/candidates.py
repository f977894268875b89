"""Step 3 of curation: edit every case with several editors of different quality (paper section 3.1).

The edited images are called candidates. Curation reads them from a table of quadruples. This module creates this
table if there are no edited images yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from editr1.curation.errors import CurationError
from editr1.data.ids import readable
from editr1.data.tables import count_rows, read_table, write_table
from editr1.data.types import Candidate, EditCase, EncodedImage, Quadruple
from editr1.telemetry import Interrupted, TrainHooks

Editor = Callable[[Sequence[EditCase]], Sequence[EncodedImage]]
"""Function that edits a batch of cases and returns one image per case, in order."""


def make_candidates(
    cases: Path, editors: Mapping[str, Editor], out: Path, *, batch_size: int = 16, hooks: TrainHooks | None = None
) -> int:
    """Edit every case with every editor, write a table of Quadruple to ``out``, and return its number of rows.

    The cases need no principles. The keys of ``editors`` are the names of the editors, which are written to the
    column ``editor``. The results of each editor for each batch of cases are first stored in a file in the folder
    ``<out>.parts``, so that another call resumes an interrupted one.

    Raises:
        CurationError: Two names differ only in case or punctuation, a name has neither a letter nor a digit, or an editor
            does not return one image per case.
        Interrupted: ``hooks.should_stop`` returned True.
    """
    hooks = hooks or TrainHooks()
    names = {_file_name(name) for name in editors}
    if "" in names:
        raise CurationError(f"editors: {sorted(editors)}: every name needs a letter or a digit; rename the editor")
    if len(names) != len(editors):
        raise CurationError(
            f"editors: {sorted(editors)}: names must differ in letters or digits, ignoring case; rename one editor"
        )
    folder = out.with_name(out.name + ".parts")
    batches = -(-count_rows(cases) // batch_size)
    done = sum(_batch_file(folder, name, index).exists() for name in editors for index in range(batches))
    hooks.progress.phase("candidates", batches * len(editors), done)
    for name, editor in editors.items():
        for index in range(batches):
            file = _batch_file(folder, name, index)
            if file.exists():
                continue
            if hooks.should_stop():
                raise Interrupted
            batch = list(read_table(cases, EditCase, start=index * batch_size, stop=(index + 1) * batch_size))
            images = editor(batch)
            if len(images) != len(batch):
                raise CurationError(
                    f"editor {name}: returned {len(images)} images for {len(batch)} cases; it must return one image per case"
                )
            rows = (_quadruple(case, name, image) for case, image in zip(batch, images, strict=True))
            write_table(file, rows, Quadruple)
            hooks.progress.step()
    return write_table(out, _merged(folder, list(editors), batches), Quadruple)


def _merged(folder: Path, names: Sequence[str], batches: int) -> Iterator[Quadruple]:
    """Yield the quadruples of all editors, sorted so that all candidates of a case are consecutive."""
    for index in range(batches):
        columns = [read_table(_batch_file(folder, name, index), Quadruple) for name in names]
        for rows in zip(*columns, strict=True):
            yield from rows


def _quadruple(case: EditCase, editor: str, image: EncodedImage) -> Quadruple:
    candidate = Candidate(candidate_id=f"{case.case_id}:{_file_name(editor)}", editor=editor, image=image)
    return Quadruple(case=case, candidate=candidate)


def _batch_file(folder: Path, name: str, index: int) -> Path:
    return folder / f"{_file_name(name)}-{index:06d}.parquet"


def _file_name(name: str) -> str:
    return readable(name, len(name)).lower()
