"""The run file, chart values, EditRun resource and command line have the same schema for each stage."""

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.config.loader import ConfigError, validate
from editr1.launch.kubernetes.values import MODELS, chart_of
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.spec import RunBody, RunSpec, StageSpec, check_run

CHARTS = Path(__file__).parents[3] / "charts"
CRD = yaml.safe_load((CHARTS / "operator/files/editruns.yaml").read_text())
SPEC = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
STAGE = SPEC["properties"]["stages"]["items"]
OPEN = "x-kubernetes-preserve-unknown-fields"


def plain(node: Any, defs: dict[str, Any]) -> Any:
    """Return a JSON schema without references and titles, for comparison with schemas from other sources."""
    if isinstance(node, list):
        return [plain(item, defs) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        return plain({**target, **{key: value for key, value in node.items() if key != "$ref"}}, defs)
    return {
        key: plain(value, defs)
        for key, value in node.items()
        if key != "$defs" and not (key == "title" and isinstance(value, str))
    }


def fields_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True)
    return plain(schema, schema.get("$defs", {}))["properties"]


FIELDS = [(kind, name) for kind, info in KINDS.items() for name in fields_of(info.settings_model())]
IDS = [f"{kind}.{name}" for kind, name in FIELDS]


@pytest.fixture(scope="module")
def schemas() -> dict[Kind, dict[str, Any]]:
    """Return the schema of each kind's settings, generated from its pydantic model."""
    return {kind: fields_of(info.settings_model()) for kind, info in KINDS.items()}


@pytest.fixture(scope="module")
def chart_schemas() -> dict[Kind, dict[str, Any]]:
    """Return the ``config`` section of each chart's committed values.schema.json."""
    found = {}
    for kind in Kind:
        schema = json.loads((CHARTS / chart_of(kind) / "values.schema.json").read_text())
        found[kind] = plain(schema, schema["$defs"])["properties"]["config"]["properties"]
    return found


@pytest.fixture(scope="module")
def printed_schemas() -> dict[Kind, dict[str, Any]]:
    """Return the schemas that ``editr1 config schema KIND`` prints."""
    found = {}
    for kind in Kind:
        schema = json.loads(CliRunner().invoke(app, ["config", "schema", str(kind)]).stdout)
        found[kind] = plain(schema, schema.get("$defs", {}))["properties"]
    return found


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=IDS)
def test_field_is_the_same_in_chart_values_and_command_line(
    kind: Kind,
    name: str,
    schemas: dict[Kind, dict[str, Any]],
    chart_schemas: dict[Kind, dict[str, Any]],
    printed_schemas: dict[Kind, dict[str, Any]],
) -> None:
    assert chart_schemas[kind][name] == schemas[kind][name]
    assert printed_schemas[kind][name] == schemas[kind][name]


@pytest.mark.parametrize("kind", list(Kind))
def test_chart_and_command_line_have_no_additional_fields(
    kind: Kind,
    schemas: dict[Kind, dict[str, Any]],
    chart_schemas: dict[Kind, dict[str, Any]],
    printed_schemas: dict[Kind, dict[str, Any]],
) -> None:
    assert list(chart_schemas[kind]) == list(printed_schemas[kind]) == list(schemas[kind])


def bounds(node: dict[str, Any]) -> tuple[float, float]:
    """Return the smallest and largest accepted number; an exclusive bound is moved inwards by a small amount."""
    low, high = node.get("minimum", float("-inf")), node.get("maximum", float("inf"))
    for key, sign in (("exclusiveMinimum", 1), ("exclusiveMaximum", -1)):
        edge = node.get(key)
        if edge is None or edge is False:
            continue
        # In OpenAPI 3.0, which Kubernetes uses, the key is a flag and the bound is in minimum or maximum.
        if edge is True:
            edge = low if sign > 0 else high
        if sign > 0:
            low = edge + 1e-12
        else:
            high = edge - 1e-12
    return low, high


def without_null(field: dict[str, Any]) -> dict[str, Any]:
    parts = [part for part in field.get("anyOf", [field]) if part.get("type") != "null"]
    return parts[0] if len(parts) == 1 else field


def accepts(resource: dict[str, Any], field: dict[str, Any], where: str) -> None:
    """Assert that the resource's schema accepts every value that the field's schema accepts, with equal types and names."""
    if "anyOf" in field:
        parts = [part for part in field["anyOf"] if part.get("type") != "null"]
        if len(parts) < len(field["anyOf"]):
            assert resource.get("nullable") or resource.get(OPEN), f"{where}: null"
        if len(parts) > 1:
            assert resource.get(OPEN), where
            return
        field = parts[0]
    if resource.get(OPEN):
        return
    assert resource["type"] == field["type"], where
    if field["type"] in ("integer", "number"):
        (low, high), (least, most) = bounds(resource), bounds(field)
        assert low <= least and high >= most, where
    allowed = field.get("enum", [field["const"]] if "const" in field else None)
    if "enum" in resource:
        assert allowed is not None and set(allowed) <= set(resource["enum"]), where
    assert resource.get("pattern") in (None, field.get("pattern")), where
    for key, wider in (
        ("minLength", int.__le__),
        ("maxLength", int.__ge__),
        ("minItems", int.__le__),
        ("maxItems", int.__ge__),
    ):
        if key in resource:
            assert key in field and wider(resource[key], field[key]), f"{where}: {key}"
    if field["type"] == "object" and "properties" in field:
        for name, child in field["properties"].items():
            accepts(resource["properties"][name], child, f"{where}.{name}")
    if field["type"] == "object" and isinstance(field.get("additionalProperties"), dict):
        accepts(resource["additionalProperties"], field["additionalProperties"], f"{where}.*")
    if field["type"] == "array":
        for child in field.get("prefixItems", [field.get("items", {})]):
            accepts(resource["items"], child, f"{where}[]")


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=IDS)
def test_resource_accepts_every_value_of_the_field(kind: Kind, name: str, schemas: dict[Kind, dict[str, Any]]) -> None:
    accepts(STAGE["properties"]["config"]["properties"][name], schemas[kind][name], f"{kind}.{name}")


def test_resource_accepts_only_values_that_some_kind_accepts(schemas: dict[Kind, dict[str, Any]]) -> None:
    for name, resource in STAGE["properties"]["config"]["properties"].items():
        holders = [without_null(fields[name]) for fields in schemas.values() if name in fields]
        assert holders, f"{name}: no kind has this field"
        if "minimum" in resource:
            assert bounds(resource)[0] == min(bounds(field)[0] for field in holders), name
        if "maximum" in resource:
            assert bounds(resource)[1] == max(bounds(field)[1] for field in holders), name
        if "enum" in resource:
            assert set(resource["enum"]) == {value for field in holders for value in field["enum"]}, name
        if len(holders) == 1 and holders[0].get("type") in ("integer", "number"):
            assert bounds(resource) == bounds(holders[0]), name


@pytest.mark.parametrize(("schema", "model"), [(SPEC, RunBody), (STAGE, StageSpec)], ids=["spec", "stage"])
def test_resource_has_the_fields_of_the_run_file(schema: dict[str, Any], model: type[BaseModel]) -> None:
    fields = fields_of(model)
    assert set(schema["properties"]) == set(fields)
    for name, field in fields.items():
        resource = schema["properties"][name]
        assert resource.get("description") in (field.get("description"), None) or name == "config", name
        if field.get("default") is not None:
            assert resource["default"] == field["default"], name
        if name not in ("stages", "config", "inputs", "reward"):
            accepts(resource, field, name)


def run_file(kind: Kind, config: dict[str, Any]) -> RunSpec:
    info = KINDS[kind]
    inputs = {item.name: "sha256:" + "a" * 64 for item in info.inputs if item.required}
    if kind is Kind.SFT:
        inputs["rows"] = "sha256:" + "b" * 64
    if kind is Kind.EVALUATE:
        inputs |= {"pairs": "sha256:" + "b" * 64, "rl": "sha256:" + "c" * 64}
    reward = {"reward": "http://127.0.0.1:8000"} if info.needs_service else {}
    stage = {"name": "one", "kind": str(kind), "inputs": inputs, "config": config, **reward}
    head = {"apiVersion": "editr1.dev/v1alpha1", "kind": "EditRun", "metadata": {"name": "x"}}
    return validate(RunSpec, {**head, "spec": {"stages": [stage]}})


@pytest.mark.parametrize("kind", list(Kind))
def test_run_file_accepts_every_field_with_its_default(kind: Kind) -> None:
    model = KINDS[kind].settings_model()
    check_run(run_file(kind, model().model_dump(mode="json", by_alias=True)), "run.yaml")


@pytest.mark.parametrize(("kind", "name"), FIELDS, ids=IDS)
def test_run_file_checks_the_type_of_the_field(kind: Kind, name: str) -> None:
    with pytest.raises(ConfigError, match=rf"run\.yaml: spec\.stages\.one\.config: {name}\b"):
        check_run(run_file(kind, {name: object()}), "run.yaml")


@pytest.mark.parametrize("kind", list(Kind))
def test_printed_values_schema_equals_the_schema_of_the_chart(kind: Kind) -> None:
    printed = json.loads(CliRunner().invoke(app, ["config", "schema", chart_of(kind), "--values"]).stdout)
    fields = plain(printed, printed["$defs"])["properties"]
    schema = json.loads((CHARTS / chart_of(kind) / "values.schema.json").read_text())
    committed = plain(schema, schema["$defs"])["properties"]
    assert set(committed) - set(fields) == {"global", "editr1-lib"}
    assert set(committed["inputs"]["properties"]) == {item.name for item in KINDS[kind].inputs}
    for name, field in fields.items():
        if name != "inputs":
            assert committed[name] == field, name
    assert set(fields) == {field.alias or name for name, field in MODELS[kind].model_fields.items()}


@pytest.mark.parametrize("kind", list(Kind))
def test_command_of_a_kind_has_an_option_per_input(kind: Kind) -> None:
    command = typer.main.get_command(app).commands[str(kind)]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {f"--{item.name}" for item in KINDS[kind].inputs} <= options
    assert ("--reward" in options) == KINDS[kind].needs_service
