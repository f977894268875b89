"""Exceptions of curation."""

from __future__ import annotations

from editr1.errors import Editr1Error, ExitCode


class CurationError(Editr1Error, RuntimeError):
    """Curation cannot continue; the message gives the reason."""

    exit_code = ExitCode.CONFIG
