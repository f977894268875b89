"""References to the inputs of a stage, such as ``stage:curate/rows`` in a run file.

A reference names an artifact, the output of a stage, a checkpoint that is part of this package, a model on the Hugging Face
hub, or a folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from editr1.config.loader import ConfigError


class Scheme(StrEnum):
    """The scheme of a reference: the part before the colon."""

    STAGE = "stage"
    ARTIFACT = "sha256"
    RUN = "run"
    BUILTIN = "builtin"
    HUB = "hub"
    PATH = "path"


_FORMS = {
    Scheme.STAGE: (r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*", "stage:curate/rows"),
    Scheme.ARTIFACT: (r"[0-9a-f]{64}", "sha256:<64 hex digits>"),
    Scheme.RUN: (r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9-]*", "run:my-run/sft/model"),
    Scheme.BUILTIN: (
        r"shapes-verifier|shapes-verifier-small|shapes-editor",
        "builtin:shapes-verifier, builtin:shapes-verifier-small or builtin:shapes-editor",
    ),
    Scheme.HUB: (r"[\w.-]+/[\w.-]+(@[\w./-]+)?", "hub:Qwen/Qwen2.5-VL-7B-Instruct"),
    Scheme.PATH: (r".+", "path:./folder"),
}


@dataclass(frozen=True)
class Reference:
    """A parsed reference. ``target`` is the part after the colon."""

    scheme: Scheme
    target: str

    @property
    def stage(self) -> str:
        """Stage name of a ``stage:`` reference."""
        return self.target.split("/")[0]

    @property
    def output(self) -> str:
        """Output name of a ``stage:`` reference."""
        return self.target.split("/")[1]

    def __str__(self) -> str:
        return f"{self.scheme}:{self.target}"


def parse_reference(text: str, where: str = "") -> Reference:
    """Parse ``scheme:target``. An invalid reference raises ConfigError, whose message begins with ``where``."""
    scheme, _, target = text.partition(":")
    if scheme in set(Scheme):
        form, _example = _FORMS[Scheme(scheme)]
        if re.fullmatch(form, target):
            return Reference(Scheme(scheme), target)
    allowed = ", ".join(example for _, example in _FORMS.values())
    raise ConfigError(
        f"{where + ': ' if where else ''}reference {text!r} is not valid; use one of these forms: {allowed}"
    )
