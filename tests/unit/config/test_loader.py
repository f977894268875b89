"""Loading and validation of settings from a file, the environment and overrides."""

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from editr1.config.base import Settings
from editr1.config.loader import ConfigError, load_settings


class Inner(Settings):
    rate: Annotated[float, Field(gt=0)] = 0.1
    """Rate."""


class Outer(Settings):
    steps: Annotated[int, Field(ge=1)] = 5
    """Steps."""
    inner: Inner = Inner()
    """Nested."""
    name: str = "a"
    """Name."""


def test_overrides_take_precedence_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("steps: 2\ninner: {rate: 0.2}\nname: file\n")
    loaded = load_settings(
        Outer, file=file, env={"X__INNER__RATE": "0.3", "X__STEPS": "3"}, env_prefix="X__", overrides=["steps=4"]
    )
    assert (loaded.steps, loaded.inner.rate, loaded.name) == (4, 0.3, "file")


def test_scientific_notation_is_parsed_as_a_number() -> None:
    assert load_settings(Outer, overrides=["inner.rate=1e-4"]).inner.rate == 1e-4


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stepz=3"], ["stepz", "unknown key", "did you mean 'steps'"]),
        (["inner.rat=3"], ["inner.rat", "did you mean 'rate'"]),
        (["steps=0"], ["steps", "greater than or equal to 1", "got 0"]),
        (["steps"], ["expected a.b=value"]),
        (["name=b", "name.x=1"], ["--set name.x", "name is a value ('b'), not a section", "set name itself"]),
    ],
)
def test_error_contains_field_value_and_allowed_range(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(Outer, overrides=overrides)
    for word in words:
        assert word in str(caught.value)


def test_unknown_environment_variable_is_rejected() -> None:
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        load_settings(Outer, env={"X__STEP": "3"}, env_prefix="X__")


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(Outer, overrides=["steps=0", "inner.rate=-1", "nme=x"])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "\x00"])
def test_file_without_a_mapping_is_rejected(tmp_path: Path, text: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_settings(Outer, file=file)
