"""The base class of every settings model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base class of immutable settings that reject unknown keys.

    The docstring below a field is its description in JSON schemas, chart values and the reference documentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)
