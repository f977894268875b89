"""Settings with a number as the default accept 0 for null, because ``kubectl apply`` removes every null."""

from __future__ import annotations

import typing

import pytest
from pydantic import BaseModel

from editr1.config.loader import ConfigError, validate
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.resolve import full_config


def settings_with_default_and_null() -> list[tuple[Kind, str]]:
    found = []
    for kind, entry in KINDS.items():
        model: type[BaseModel] = entry.settings_model()
        for name, field in model.model_fields.items():
            has_null = type(None) in typing.get_args(field.annotation)
            if has_null and not field.is_required() and field.default is not None:
                found.append((kind, name))
    return found


@pytest.mark.parametrize(("kind", "name"), settings_with_default_and_null())
def test_zero_means_null(kind: Kind, name: str) -> None:
    others = {"epochs": 1.0} if name == "max_steps" else {}
    null, zero = ({**others, name: value} for value in (None, 0))
    assert full_config(kind, null, 0)[name] is None
    assert full_config(kind, zero, 0) == full_config(kind, null, 0)


def test_there_are_such_settings() -> None:
    assert (Kind.GRPO, "resolution") in settings_with_default_and_null()


def test_negative_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="resolution"):
        validate(KINDS[Kind.GRPO].settings_model(), {"resolution": -1})
