"""One rule for the names of runs, stages and releases, in the run file, the job file and the EditRun resource."""

import re
from typing import Any

import pytest
import yaml

from editr1.config.chart_training import SftValues
from editr1.config.loader import ConfigError, validate
from editr1.config.names import MAX_NAME_LENGTH, NAME_PATTERN, OPTIONAL_PATTERN, name_fault
from editr1.runs.job import StageJob
from editr1.runs.spec import Metadata, RunSpec, StageSpec, load_run
from editr1_operator.crd import resource_schema
from editr1_operator.settings import read_run
from tests.unit.runs.test_spec import sample, write

INVALID = {
    "": "the name is empty",
    "2-run": "the name begins with '2'",
    "a.b": "the name contains '.'",
    "Run": "the name contains 'R'",
    "a_b": "the name contains '_'",
    "-a": "the name begins with '-'",
    "a-": "the name ends with '-'",
    "a\n": "the name contains '\\n'",
    "a" * 46: "the name has 46 characters",
}
VALID = ["a", "a1", "my-run-2", "a" * 45]
METADATA = resource_schema()["properties"]["metadata"]["properties"]
STAGE = resource_schema()["properties"]["spec"]["properties"]["stages"]["items"]["properties"]


@pytest.mark.parametrize(("name", "fault"), INVALID.items())
def test_invalid_name_is_refused_with_the_value_and_what_is_allowed(name: str, fault: str) -> None:
    for model, field, values in (
        (Metadata, "name", {}),
        (StageSpec, "name", {"kind": "sft"}),
        (StageJob, "run", {}),
        (StageJob, "stage", {}),
        *([(SftValues, "run", {}), (SftValues, "stage", {})] if name else []),
    ):
        with pytest.raises(ConfigError) as refused:
            validate(model, {**values, field: name})
        line = next(line for line in str(refused.value).splitlines() if line.startswith(f"{field}: the name"))
        assert line.startswith(f"{field}: {fault}; use at most 45 lower-case letters, digits and hyphens")
        assert "(got '" in line


@pytest.mark.parametrize("name", VALID)
def test_valid_name_is_accepted(name: str) -> None:
    assert name_fault(name) is None
    assert Metadata(name=name).name == SftValues(run=name).run == name


@pytest.mark.parametrize("name", [*INVALID, *VALID])
def test_schemas_accept_the_same_names_as_the_rule(name: str) -> None:
    fits = bool(re.fullmatch(NAME_PATTERN[1:-1], name)) and len(name) <= MAX_NAME_LENGTH
    assert fits is (name_fault(name) is None)
    assert bool(re.fullmatch(OPTIONAL_PATTERN[1:-1], name)) is (
        not name or bool(re.fullmatch(NAME_PATTERN[1:-1], name))
    )


def test_resource_and_chart_schemas_contain_the_rule() -> None:
    rule: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": NAME_PATTERN}
    for name in (METADATA["name"], STAGE["name"]):
        assert {key: name[key] for key in rule} == rule
    values = SftValues.model_json_schema(by_alias=True)["properties"]
    for field in ("run", "stage"):
        assert values[field]["pattern"] == OPTIONAL_PATTERN and values[field]["maxLength"] == MAX_NAME_LENGTH
        assert values[field]["description"]


def test_resource_limits_the_length_of_both_names_together(tmp_path: Any) -> None:
    (rule,) = resource_schema()["x-kubernetes-validations"]
    assert rule["rule"] == "self.spec.stages.all(s, size(self.metadata.name) + size(s.name) < 45)"
    data = sample()
    data["metadata"]["name"] = "r" * 40
    assert load_run(write(tmp_path, data)).metadata.name == "r" * 40  # a local run has no release names
    with pytest.raises(ConfigError, match=r"stage 'evaluate': the release name .* has 49 characters"):
        read_run(data)
    data["metadata"]["name"] = "r" * 36
    assert len(f"{data['metadata']['name']}-evaluate") == MAX_NAME_LENGTH and isinstance(read_run(data), RunSpec)
    assert yaml.safe_load(write(tmp_path, data).read_text()) == data
