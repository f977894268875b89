"""The base class of every settings model."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema

from editr1.config.strict import strict

MIN_TEMPERATURE: Final = 0.01
"""Lowest sampling temperature above 0. At lower temperatures, logits divided by the temperature can overflow.
Temperature 0 selects greedy decoding."""


class Settings(BaseModel):
    """Base class of immutable settings that reject unknown keys.

    Numbers must be finite. Booleans and strings are not accepted as numbers, and numbers and strings are not accepted
    as booleans. A number without a fraction, such as 1e3, is accepted for an integer, because Helm writes large
    integers in this form.

    The docstring below a field is its description in JSON schemas, chart values and the reference documentation.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Return the schema of the model, in which numbers and booleans are strict."""
        schema: CoreSchema = strict(handler(source))
        return schema


def _check_temperature(value: float) -> float:
    if 0.0 < value < MIN_TEMPERATURE:
        raise ValueError(f"must be 0 (greedy decoding) or from {MIN_TEMPERATURE:g} to 2")
    return value


Temperature = Annotated[float, Field(ge=0.0, le=2.0, allow_inf_nan=False), AfterValidator(_check_temperature)]
"""A sampling temperature: 0 for greedy decoding, or from 0.01 to 2."""


def _zero_is_null(value: int | None) -> int | None:
    return value or None


PositiveOrNone = Annotated[Annotated[int, Field(ge=0)] | None, AfterValidator(_zero_is_null)]
"""Type of a setting that is a positive number or null. The value 0 also means null. Settings whose default is a
number need this alternative, because ``kubectl apply`` without ``--server-side`` removes every null from an EditRun,
so that the default would silently be used."""
