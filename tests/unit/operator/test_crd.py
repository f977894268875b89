"""The schema of the custom resource agrees with the models of the run file."""

from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from editr1.launch.kubernetes.run_status import RunStatus
from editr1.runs.kinds import KINDS
from editr1.runs.spec import RunBody, StageSpec
from editr1_operator.crd import custom_resource_definition, resource_schema, structural

FORBIDDEN = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title", "prefixItems", "discriminator"}
SCHEMA = resource_schema()
SPEC = SCHEMA["properties"]["spec"]
STAGE = SPEC["properties"]["stages"]["items"]
CONFIG = STAGE["properties"]["config"]


def nodes(schema: dict[str, Any], where: str = "") -> Any:
    yield where, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{where}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from nodes(schema[key], f"{where}.{key}")


def names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_schema_has_exactly_the_fields_of_the_run_file() -> None:
    assert set(SPEC["properties"]) == names(RunBody)
    assert set(STAGE["properties"]) == names(StageSpec)
    assert set(SCHEMA["properties"]["status"]["properties"]) == names(RunStatus)
    assert set(STAGE["required"]) == {"name", "kind"} and SPEC["required"] == ["stages"]


def test_defaults_equal_those_of_the_run_file() -> None:
    for schema, model in ((SPEC, RunBody), (STAGE, StageSpec)):
        for name, field in model.model_fields.items():
            default = schema["properties"][name].get("default")
            if default is not None:
                assert default == field.get_default(call_default_factory=True), name


def test_config_has_the_settings_of_every_kind_and_restricts_each_to_its_kinds() -> None:
    known = {name for info in KINDS.values() for name in names(info.settings_model())}
    assert set(CONFIG["properties"]) == known
    rules = [rule["message"] for rule in STAGE["x-kubernetes-validations"]]
    for name in known:
        kinds = [str(kind) for kind, info in KINDS.items() if name in names(info.settings_model())]
        if len(kinds) < len(KINDS):
            assert f"config.{name}: only stages of kind {', '.join(kinds)} have this setting; remove it" in rules


def test_schema_is_structural_and_every_field_has_a_description() -> None:
    for where, node in nodes(SCHEMA):
        assert not FORBIDDEN & node.keys(), where
        assert "type" in node or node.get("x-kubernetes-preserve-unknown-fields"), where
        assert not ("properties" in node and "additionalProperties" in node), where
    for where, node in nodes(SPEC, "spec"):
        if not where.endswith((".items", ".additionalProperties")):
            assert node.get("description") or where == "spec" or ".config." in where, where


@pytest.mark.parametrize(
    ("kind", "value"), [("sft", {"max_steps": 1}), ("gcpo", {"beta": 0}), ("grpo", {"learning_rate": 1e-9})]
)
def test_merged_range_accepts_the_values_of_every_kind(kind: str, value: dict[str, float]) -> None:
    ((name, number),) = value.items()
    node = CONFIG["properties"][name]
    low = node.get("minimum")
    assert low is None or number > low or (number == low and not node.get("exclusiveMinimum")), (kind, name)


def test_null_becomes_nullable_and_exclusive_bounds_become_flags() -> None:
    schema = structural(
        {
            "type": "object",
            "properties": {
                "a": {"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "null"}], "default": None},
                "b": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "c": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "integer"}], "minItems": 2},
            },
        }
    )
    assert schema["properties"] == {
        "a": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "nullable": True},
        "b": {"x-kubernetes-preserve-unknown-fields": True},
        "c": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
    }


def test_crd_fits_into_the_last_applied_annotation() -> None:
    assert len(yaml.safe_dump(custom_resource_definition())) < 200_000
