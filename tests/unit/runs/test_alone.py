"""A stage that is run alone has a run's name that the record, the store and a cluster can hold."""

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from editr1.runs.alone import run_name
from editr1.runs.kinds import Kind
from editr1.runs.spec import Name


@pytest.mark.parametrize(
    ("folder", "name"),
    [("runs/My sft_2", "sft-my-sft-2"), ("runs/sft", "sft-alone"), ("/", "sft-alone"), ("runs/ü", "sft-alone")],
)
def test_the_folder_names_the_run(folder: str, name: str) -> None:
    assert run_name("sft", Path(folder)) == name


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("folder", ["a" * 200, "-" * 50, "A b-" * 20])
def test_every_name_is_one_of_a_run(kind: Kind, folder: str) -> None:
    name = run_name(kind, Path(folder))
    assert TypeAdapter(Name).validate_python(name) == name
