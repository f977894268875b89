"""Numbers and booleans in settings: no conversions, no infinity."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from editr1.config.base import Settings
from editr1.runs.kinds import KINDS, Kind


class Inner(Settings):
    number: int = 1


class Model(Settings):
    number: Annotated[int, Field(ge=1)] = 1
    ratio: float | None = 1.0
    pair: tuple[float, int] = (0, 1)
    weights: dict[str, float] = Field(default_factory=dict)
    steps: list[int] = Field(default_factory=list)
    flag: bool = False
    inner: Inner = Inner()


@pytest.mark.parametrize(
    "values",
    [
        {"number": True},
        {"number": "3"},
        {"number": 3.5},
        {"number": 0},
        {"ratio": True},
        {"ratio": "1e-4"},
        {"ratio": float("inf")},
        {"ratio": float("nan")},
        {"pair": [1, True]},
        {"pair": [float("-inf"), 1]},
        {"weights": {"a": float("inf")}},
        {"weights": {"a": True}},
        {"steps": [True]},
        {"steps": ["1"]},
        {"flag": 1},
        {"flag": "yes"},
        {"inner": {"number": True}},
        {"inner": {"number": "2"}},
    ],
    ids=str,
)
def test_value_of_another_type_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Model.model_validate(values)


@pytest.mark.parametrize(
    ("values", "field", "expected"),
    [
        ({"number": 3.0}, "number", 3),
        ({"number": 1e3}, "number", 1000),
        ({"ratio": 1}, "ratio", 1.0),
        ({"ratio": None}, "ratio", None),
        ({"pair": [1, 2.0]}, "pair", (1.0, 2)),
        ({"steps": [2.0]}, "steps", [2]),
        ({"inner": {"number": 2.0}}, "inner", Inner(number=2)),
        ({"flag": True}, "flag", True),
    ],
    ids=str,
)
def test_number_without_a_fraction_is_accepted(values: dict[str, Any], field: str, expected: object) -> None:
    value = getattr(Model.model_validate(values), field)
    assert value == expected and type(value) is type(expected)


def test_json_schema_states_the_plain_types() -> None:
    properties = Model.model_json_schema()["properties"]
    assert properties["number"] == {"default": 1, "minimum": 1, "title": "Number", "type": "integer"}


@pytest.mark.parametrize("kind", list(Kind))
def test_no_number_of_a_stage_accepts_infinity_or_a_boolean(kind: Kind) -> None:
    model = KINDS[kind].settings_model()
    accepted = []
    for name, field in model.model_json_schema()["properties"].items():
        types = [field.get("type"), *(option.get("type") for option in field.get("anyOf", ()))]
        if "number" not in types and "integer" not in types:
            continue
        for value in (float("inf"), float("nan"), "1", *(() if "boolean" in types else (True,))):
            try:
                model.model_validate({name: value})
            except ValidationError as error:
                assert any(fault["loc"][0] == name for fault in error.errors())
            else:
                accepted.append((name, value))
    assert not [item for item in accepted if not (item[1] == "1" and _takes_text(model, item[0]))]


def _takes_text(model: Any, name: str) -> bool:
    field = model.model_json_schema()["properties"][name]
    return any(option.get("type") == "string" for option in [field, *field.get("anyOf", ())])
