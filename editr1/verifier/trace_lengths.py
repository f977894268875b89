"""Record the lengths of the traces that a verifier was trained on, and compare token limits with them.

SFT records the lengths in the folder of the verifier, and GCPO copies the record. If a token limit cuts a trace off,
the score at the end of the trace is lost. :func:`check_token_limit` is the only place that compares a limit with the
record.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editr1.config.loader import ConfigError

TRACE_LENGTHS_FILE: Final = "editr1_trace_lengths.json"

log = logging.getLogger("editr1.verifier")


class TraceLengths(BaseModel):
    """Lengths, in tokens, of the traces in the training rows of SFT. The token that ends a trace is included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int = Field(ge=1)
    """Number of rows."""
    median: int = Field(ge=1)
    """Median length of the traces."""
    p95: int = Field(ge=1)
    """95th percentile of the lengths of the traces."""
    max: int = Field(ge=1)
    """Length of the longest trace."""

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Self:
        """Summarise the lengths of the traces. ``lengths`` must not be empty."""
        median, p95 = (int(np.quantile(lengths, share, method="higher")) for share in (0.5, 0.95))
        return cls(rows=len(lengths), median=median, p95=p95, max=max(lengths))

    def save(self, folder: Path) -> Path:
        """Write the record to the folder of a verifier, and return the path of the file."""
        path = folder / TRACE_LENGTHS_FILE
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return path


def load_trace_lengths(model: str | Path) -> TraceLengths | None:
    """Return the record in the folder of a verifier; None if there is none, or if ``model`` is a name on the hub.

    Raises ConfigError if the file is not a valid record.
    """
    path = Path(model) / TRACE_LENGTHS_FILE
    if not path.is_file():
        return None
    try:
        return TraceLengths.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "file"
        raise ConfigError(
            f"{path}: not a valid record of trace lengths: {where}: {fault['msg']}; train the verifier with "
            "SFT again, or delete the file"
        ) from error


def check_token_limit(model: str | Path, limit: int, setting: str, *, must_parse: bool = True) -> None:
    """Compare the length limit of a trace with the traces that the verifier ``model`` was trained on.

    Does nothing if there is no record of the lengths. Logs a warning if the longest traces do not fit.

    Args:
        model: folder or Hugging Face Hub name of the verifier.
        limit: maximum number of tokens per trace.
        setting: name of the setting with the limit, for error messages.
        must_parse: whether traces that cannot be parsed are an error. If it is false, a limit that is too small only
            causes a warning.

    Raises:
        ConfigError: ``must_parse`` is true and more than 5 % of the traces would be cut off before their score, or the record
            is not valid.
    """
    lengths = load_trace_lengths(model)
    if lengths is None or limit >= lengths.max:
        return
    known = f"the {lengths.rows} traces on which {model} was trained have up to {lengths.max} tokens (median {lengths.median}"
    if limit < lengths.p95 and must_parse:
        raise ConfigError(
            f"{setting}: {limit} tokens cut off more than 5 % of traces before their score: {known}, 95 % at most"
            f" {lengths.p95}); set {setting} to at least {lengths.max}"
        )
    log.warning("%s: %d tokens cut off the longest traces: %s)", setting, limit, known)
