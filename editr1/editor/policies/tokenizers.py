"""Keep what tokenizers write to ``tokenizer.json`` independent of how they were used.

A call of a fast tokenizer sets its padding and truncation, and ``save_pretrained`` writes both. Without a reset, an editor
that is saved by a process that has encoded prompts would have another digest than one that is saved by a process that
was restarted after the last prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _State:
    backend: Any
    truncation: dict[str, Any] | None
    padding: dict[str, Any] | None


class TokenizerStates:
    """Padding and truncation of the fast tokenizers among the components of a pipeline, as they are when this object is made."""

    def __init__(self, components: Mapping[str, Any]) -> None:
        tokenizers = [getattr(part, "tokenizer", part) for part in components.values()]  # a processor has a tokenizer
        backends = [getattr(tokenizer, "backend_tokenizer", None) for tokenizer in tokenizers]
        self._states = [_State(it, it.truncation, it.padding) for it in backends if it is not None]

    def restore(self) -> None:
        """Undo the changes that calls of the tokenizers have made since."""
        for state in self._states:
            if state.truncation is None:
                state.backend.no_truncation()
            else:
                state.backend.enable_truncation(**state.truncation)
            if state.padding is None:
                state.backend.no_padding()
            else:
                state.backend.enable_padding(**state.padding)
