"""Generate the CustomResourceDefinition of EditRun from the pydantic models of the run file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from editr1.config.names import MAX_NAME_LENGTH
from editr1.launch.kubernetes.resources import EDITRUN, EDITRUNS
from editr1.launch.kubernetes.run_status import RunStatus
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.spec import API_VERSION, Metadata, RunBody

GROUP, VERSION = API_VERSION.split("/")
KIND, PLURAL, SINGULAR, SHORT = EDITRUN, EDITRUNS, "editrun", "er"
Schema = dict[str, Any]

_KEYWORDS = (
    *("type", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("required", "default", "multipleOf"),
)
_COLUMNS = (
    ("Stage", ".status.stage", "Active stages."),
    ("State", ".status.state", "State of the run."),
    ("Progress", ".status.progress", "Progress of the active stages."),
    ("Reason", ".status.reason", "Reason for the state."),
)
MAX_TEXT_LENGTH = 4096
MAX_INPUTS = 16


def custom_resource_definition() -> Schema:
    """Return the manifest of the CustomResourceDefinition."""
    columns = [{"name": name, "type": "string", "jsonPath": path, "description": what} for name, path, what in _COLUMNS]
    columns.append({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": resource_schema()},
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": SINGULAR,
        "shortNames": [SHORT],
        "categories": ["editr1"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Without this annotation, uninstalling the chart would delete every run.
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def resource_schema() -> Schema:
    """Return the schema of an EditRun in Kubernetes' structural form, with validation rules."""
    spec = structural(RunBody.model_json_schema(by_alias=True))
    stage = spec["properties"]["stages"]["items"]
    inputs = stage["properties"]["inputs"]
    inputs["maxProperties"] = MAX_INPUTS
    inputs["additionalProperties"]["maxLength"] = MAX_TEXT_LENGTH
    stage["properties"]["reward"]["maxLength"] = MAX_TEXT_LENGTH
    stage["properties"]["config"] = config_schema()
    stage["x-kubernetes-validations"] = _stage_rules()
    spec["properties"]["stages"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    spec["x-kubernetes-validations"] = _run_rules()
    status = structural(RunStatus.model_json_schema(by_alias=True))
    for name in ("conditions", "stages"):
        key = "type" if name == "conditions" else "name"
        status["properties"][name] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    name = structural(Metadata.model_json_schema())["properties"]["name"]
    return {
        "type": "object",
        "description": "An Edit-R1 run: a list of stages that can use the outputs of other stages.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": [_name_rule()],
    }


def config_schema() -> Schema:
    """Return one schema that accepts the settings of stages of every kind.

    A structural schema cannot depend on the stage's ``kind``. Validation rules therefore reject fields that the kind
    does not have, and the operator checks fields whose allowed range differs between kinds. The schema contains no
    defaults, because Kubernetes would write them into the EditRun, and they could then differ from the defaults of
    the installed package.
    """
    merged: Schema = {"type": "object", "properties": {}}
    for kind in KINDS.values():
        schema = structural(kind.settings_model().model_json_schema(by_alias=True))
        merged = _widest(merged, _without(schema, ("default", "required", "description")))
    return {**merged, "description": "Settings of the stage. The command editr1 config schema <kind> lists them."}


def structural(schema: Mapping[str, Any]) -> Schema:
    """Convert a JSON schema of pydantic to the structural form that Kubernetes requires.

    References are inlined, a union with ``null`` becomes ``nullable``, and any other union becomes a schema that accepts every value.
    """
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        return _structural({**target, **{key: value for key, value in node.items() if key != "$ref"}}, defs)
    if "anyOf" in node or "oneOf" in node:
        return _structural_union(node, defs)
    found = _pick(node)
    if "const" in node:
        found |= {"type": "string", "enum": [node["const"]]}
    for key, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if key in node:
            found |= {bound: node[key], key: True}
    if found.get("type") == "array":
        parts = node.get("prefixItems") or [node.get("items", {})]
        found["items"] = _structural(parts[0], defs)
    if found.get("type") == "object":
        found |= _structural_object(node, defs)
    if "type" not in found:
        found["x-kubernetes-preserve-unknown-fields"] = True
    return found


def _structural_union(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    parts = [part for part in node.get("anyOf", node.get("oneOf", ())) if part.get("type") != "null"]
    rest = {key: value for key, value in node.items() if key not in ("anyOf", "oneOf", "discriminator")}
    if len(parts) > 1:
        return {"x-kubernetes-preserve-unknown-fields": True} | _pick(rest)
    return {**_structural({**parts[0], **rest}, defs), "nullable": True}


def _structural_object(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    if "properties" in node:
        return {"properties": {key: _structural(value, defs) for key, value in node["properties"].items()}}
    if isinstance(node.get("additionalProperties"), Mapping):
        return {"additionalProperties": _structural(node["additionalProperties"], defs)}
    return {"x-kubernetes-preserve-unknown-fields": True}


def _pick(node: Mapping[str, Any]) -> Schema:
    return {key: node[key] for key in _KEYWORDS if key in node and not (key == "default" and node[key] is None)}


def _without(node: Schema, names: Iterable[str]) -> Schema:
    """Return a copy of a schema without the given JSON Schema keywords.

    Settings with the name of such a keyword are not removed.
    """
    result: Schema = {}
    for key, value in node.items():
        if key == "properties":
            result[key] = {name: _without(item, names) for name, item in value.items()}
        elif key in ("items", "additionalProperties"):
            result[key] = _without(value, names) if isinstance(value, dict) else value
        elif key not in names or (key == "description" and "properties" not in node):
            result[key] = value
    return result


def _widest(one: Schema, other: Schema) -> Schema:
    """Return a schema that accepts every value that at least one of the two given schemas accepts."""
    if one.get("type") != other.get("type"):
        return {"x-kubernetes-preserve-unknown-fields": True}
    merged = {key: value for key, value in one.items() if key in other or key == "description"}
    if "properties" in one and "properties" in other:
        merged["properties"] = _widest_properties(one["properties"], other["properties"])
    _widen_bound(merged, one, other, "minimum", "exclusiveMinimum", min)
    _widen_bound(merged, one, other, "maximum", "exclusiveMaximum", max)
    if "enum" in merged:
        merged["enum"] = list(dict.fromkeys([*one["enum"], *other["enum"]]))
    for keyword in ("pattern", "items"):
        if one.get(keyword) != other.get(keyword):
            merged.pop(keyword, None)
    if one.get("nullable") or other.get("nullable"):
        merged["nullable"] = True
    if merged.get("type") == "array" and "items" not in merged:
        merged["items"] = {"x-kubernetes-preserve-unknown-fields": True}
    return merged


def _widest_properties(one: Mapping[str, Schema], other: Mapping[str, Schema]) -> dict[str, Schema]:
    return {
        name: _widest(one[name], other[name]) if name in one and name in other else {**one, **other}[name]
        for name in dict.fromkeys([*one, *other])
    }


def _widen_bound(
    merged: Schema, one: Schema, other: Schema, bound: str, exclusive: str, pick: Callable[[Any, Any], Any]
) -> None:
    """Set the minimum or maximum of the schema ``merged`` to the less strict bound of two schemas.

    If the two bounds are equal, the result is exclusive only if both bounds are.
    """
    merged.pop(exclusive, None)
    if bound not in merged:
        return
    merged[bound] = pick(one[bound], other[bound])
    if all(side.get(exclusive) for side in (one, other) if side[bound] == merged[bound]):
        merged[exclusive] = True


def _rule(rule: str, message: str) -> dict[str, str]:
    return {"rule": rule, "message": message}


def _stage_rules() -> list[dict[str, str]]:
    rules = []
    for kind, info in KINDS.items():
        known = ", ".join(f"'{item.name}'" for item in info.inputs)
        rules.append(
            _rule(
                f"self.kind != '{kind}' || !has(self.inputs) || self.inputs.all(k, k in [{known}])",
                f"inputs: a {kind} stage accepts only the inputs {known.replace(chr(39), '')}",
            )
        )
        for item in info.inputs:
            if item.required:
                rules.append(
                    _rule(
                        f"self.kind != '{kind}' || (has(self.inputs) && '{item.name}' in self.inputs)",
                        f"inputs.{item.name}: required by a {kind} stage ({item.what})",
                    )
                )
    scored = [str(kind) for kind, info in KINDS.items() if info.needs_service]
    rules.append(
        _rule(
            f"(self.kind in {scored}) == has(self.reward)",
            f"reward: required for a stage of kind {' or '.join(scored)}, and not allowed for any other",
        )
    )
    return rules + [_field_rule(name, kinds) for name, kinds in sorted(_fields().items()) if len(kinds) < len(KINDS)]


def _fields() -> dict[str, list[Kind]]:
    """Return a mapping from the name of a settings field to the kinds of stages that have this field."""
    found: dict[str, list[Kind]] = {}
    for kind, info in KINDS.items():
        model: type[BaseModel] = info.settings_model()
        for name, field in model.model_fields.items():
            found.setdefault(field.alias or name, []).append(kind)
    return found


def _field_rule(name: str, kinds: list[Kind]) -> dict[str, str]:
    names = [str(kind) for kind in kinds]
    return _rule(
        f"self.kind in {names} || !has(self.config) || !has(self.config.{name})",
        f"config.{name}: only stages of kind {', '.join(names)} have this setting; remove it",
    )


def _name_rule() -> dict[str, str]:
    """Return the rule for the length of release names, which consist of the name of the run, a hyphen and the name of a stage."""
    return _rule(
        f"self.spec.stages.all(s, size(self.metadata.name) + size(s.name) < {MAX_NAME_LENGTH})",
        f"metadata.name and the name of each stage may have at most {MAX_NAME_LENGTH - 1} characters together, "
        "because pods are named after both; shorten the name of the run or of the stage",
    )


def _run_rules() -> list[dict[str, str]]:
    texts = "self.stages.all(s, !has(s.inputs) || s.inputs.all(k, {}))"
    return [
        _rule(
            texts.format("!s.inputs[k].startsWith('path:')"),
            "inputs: pods cannot read a folder on your machine; upload it to the artifact store and use its sha256: reference",
        ),
        _rule(
            "self.stages.all(s, !has(s.reward) || s.reward.startsWith('http') || "
            "self.stages.exists(o, o.name == s.reward && o.kind == 'serve'))",
            "reward: must be the name of a serve stage of the run, or http(s) addresses separated by commas",
        ),
        _rule(
            "!has(self.store) || self.store.startsWith('s3://')",
            "store: must have the form s3://bucket/prefix, because pods cannot reach other stores",
        ),
        _rule(
            "self.stages == oldSelf.stages && self.seed == oldSelf.seed && has(self.store) == has(oldSelf.store) && "
            "(!has(self.store) || self.store == oldSelf.store)",
            "only suspend can be changed after creation; to change another field, delete the run and apply it again",
        ),
    ]
