"""The Parquet schema of the data types, version 1.

Columns have the names and the order of the fields of the data type; nested types are structs.

=================  =============================================================================================
kind               columns
=================  =============================================================================================
EditCase           case_id, source: image, instruction, principles: list of {question, category}
Quadruple          case: EditCase, candidate: {candidate_id, editor, image: image}
SftRow             quadruple: Quadruple, trace, agreement (null without gold verdicts), member
PreferencePair     pair_id, case: EditCase, winner: candidate, loser: candidate, label ("winner" or "same")
=================  =============================================================================================

An image is ``{data: binary, sha256: string}``. With ``editr1.images = inline``, ``data`` holds the bytes. With
``digest``, ``data`` is null and the bytes are in a second Parquet file next to the table, ``<stem>.images``, which has one
row ``{sha256, data}`` per distinct image in order of first appearance.

File metadata: ``editr1.schema`` (``editr1.dev/table/v1``), ``editr1.kind``, ``editr1.images``. A file without this
metadata, which another program may have written, is read as version 1 with inline images, and may omit ``sha256``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, TypeVar

import pyarrow as pa

from editr1.data.types import DataModel, EditCase, PreferencePair, Quadruple, SftRow

N = TypeVar("N", bound=DataModel)
Images = Literal["inline", "digest"]

VERSION: Final = "editr1.dev/table/v1"
SCHEMA_KEY: Final = b"editr1.schema"
KIND_KEY: Final = b"editr1.kind"
IMAGES_KEY: Final = b"editr1.images"

_TEXT = pa.string()
_IMAGE = pa.struct([pa.field("data", pa.binary()), pa.field("sha256", _TEXT, nullable=False)])
_PRINCIPLE = pa.struct([pa.field("question", _TEXT, nullable=False), pa.field("category", _TEXT, nullable=False)])
_CASE_FIELDS = [
    pa.field("case_id", _TEXT, nullable=False),
    pa.field("source", _IMAGE, nullable=False),
    pa.field("instruction", _TEXT, nullable=False),
    pa.field("principles", pa.list_(_PRINCIPLE), nullable=False),
]
_CASE = pa.struct(_CASE_FIELDS)
_CANDIDATE = pa.struct(
    [
        pa.field("candidate_id", _TEXT, nullable=False),
        pa.field("editor", _TEXT, nullable=False),
        pa.field("image", _IMAGE, nullable=False),
    ]
)
_QUADRUPLE_FIELDS = [pa.field("case", _CASE, nullable=False), pa.field("candidate", _CANDIDATE, nullable=False)]

IMAGES_SCHEMA: Final = pa.schema(
    [pa.field("sha256", _TEXT, nullable=False), pa.field("data", pa.binary(), nullable=False)],
    metadata={SCHEMA_KEY: VERSION, KIND_KEY: "images"},
)

_SCHEMAS: Final[dict[type[DataModel], pa.Schema]] = {
    EditCase: pa.schema(_CASE_FIELDS),
    Quadruple: pa.schema(_QUADRUPLE_FIELDS),
    SftRow: pa.schema(
        [
            pa.field("quadruple", pa.struct(_QUADRUPLE_FIELDS), nullable=False),
            pa.field("trace", _TEXT, nullable=False),
            pa.field("agreement", pa.float64()),
            pa.field("member", _TEXT, nullable=False),
        ]
    ),
    PreferencePair: pa.schema(
        [
            pa.field("pair_id", _TEXT, nullable=False),
            pa.field("case", _CASE, nullable=False),
            pa.field("winner", _CANDIDATE, nullable=False),
            pa.field("loser", _CANDIDATE, nullable=False),
            pa.field("label", _TEXT, nullable=False),
        ]
    ),
}

KINDS: Final[dict[str, type[DataModel]]] = {kind.__name__: kind for kind in _SCHEMAS}
"""Data types that can be stored as a table. The keys are the values of ``editr1.kind`` in the file metadata."""


def schema_of(kind: type[DataModel], images: Images = "inline") -> pa.Schema:
    """Return the Arrow schema, with metadata, of a table with rows of type ``kind``.

    Raises:
        TypeError: rows of this type cannot be stored as a table.
    """
    if kind not in _SCHEMAS:
        raise TypeError(f"{kind.__name__} cannot be stored as a table; allowed: {', '.join(KINDS)}")
    return _SCHEMAS[kind].with_metadata({SCHEMA_KEY: VERSION, KIND_KEY: kind.__name__, IMAGES_KEY: images})


def images_path(table: Path) -> Path:
    """Return the path of the image file that belongs to a table in ``digest`` form."""
    return table.with_suffix(".images")


def leaf_columns(schema: pa.Schema) -> tuple[list[str], list[str]]:
    """Return two lists with the Parquet paths of the leaf columns: columns with image bytes, and all other columns."""
    leaves = [path for field in schema for path in _leaves(field.name, field.type)]
    images = [path for path in leaves if path == "data" or path.endswith(".data")]
    return images, [path for path in leaves if path not in images]


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_struct(kind):
        return [leaf for child in kind for leaf in _leaves(f"{path}.{child.name}", child.type)]
    if pa.types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    return [path]
