"""The base class of every settings model."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

MIN_TEMPERATURE: Final = 0.01
"""Lowest sampling temperature. At lower ones, logits divided by the temperature can overflow; 0 selects greedy decoding."""


class Settings(BaseModel):
    """Base class of immutable settings that reject unknown keys.

    The docstring below a field is its description in JSON schemas, chart values and the reference documentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)


def _check_temperature(value: float) -> float:
    if 0.0 < value < MIN_TEMPERATURE:
        raise ValueError(f"must be 0 (greedy decoding) or from {MIN_TEMPERATURE:g} to 2")
    return value


Temperature = Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False), AfterValidator(_check_temperature)]
"""A sampling temperature: 0 for greedy decoding, or from 0.01 to 2."""
