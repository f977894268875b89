"""Base of every settings model, and the hooks into which a file, the environment and ``--set`` are merged."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A typed, immutable settings model. Unknown keys are refused; every field carries a description."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)
