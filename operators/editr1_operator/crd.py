"""The EditRun resource as a CustomResourceDefinition, made from the models of the run file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from editr1.launch.kubernetes.resources import EDITRUN, EDITRUNS
from editr1.launch.kubernetes.run_status import RunStatus
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.spec import API_VERSION, RunBody

GROUP, VERSION = API_VERSION.split("/")
KIND, PLURAL, SINGULAR, SHORT = EDITRUN, EDITRUNS, "editrun", "er"
Schema = dict[str, Any]

_KEPT = (
    *("type", "description", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"),
    *("required", "default", "multipleOf"),
)
_COLUMNS = (
    ("Stage", ".status.stage", "What runs now."),
    ("State", ".status.state", "Where the run stands."),
    ("Progress", ".status.progress", "How far its stage is."),
    ("Reason", ".status.reason", "Why it stands there."),
)
LONGEST_TEXT = 4096
MOST_INPUTS = 16


def custom_resource_definition() -> Schema:
    """The whole object, ready for ``kubectl apply``."""
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
        # Helm would remove every run with it.
        "metadata": {"name": f"{PLURAL}.{GROUP}", "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def resource_schema() -> Schema:
    """The structural schema of an EditRun."""
    spec = structural(RunBody.model_json_schema(by_alias=True))
    stage = spec["properties"]["stages"]["items"]
    inputs = stage["properties"]["inputs"]
    inputs["maxProperties"] = MOST_INPUTS
    inputs["additionalProperties"]["maxLength"] = LONGEST_TEXT
    stage["properties"]["reward"]["maxLength"] = LONGEST_TEXT
    stage["properties"]["config"] = config_schema()
    stage["x-kubernetes-validations"] = _stage_rules()
    spec["properties"]["stages"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    spec["x-kubernetes-validations"] = _run_rules()
    status = structural(RunStatus.model_json_schema(by_alias=True))
    for name in ("conditions", "stages"):
        key = "type" if name == "conditions" else "name"
        status["properties"][name] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
    return {
        "type": "object",
        "description": "A run of Edit-R1: stages that exchange nothing but artifacts.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 45}}},
            "spec": spec,
            "status": status,
        },
    }


def config_schema() -> Schema:
    """The settings of all kinds in one: a structural schema cannot depend on ``kind``, so each field is as wide as its widest.

    Which fields a kind has is a rule of the stage; exact ranges are checked by the operator. Defaults stay in the package.
    """
    merged: Schema = {"type": "object", "properties": {}}
    for kind in KINDS.values():
        schema = structural(kind.settings_model().model_json_schema(by_alias=True))
        merged = _widest(merged, _without(schema, ("default", "required", "description")))
    return {**merged, "description": "Settings of the kind; editr1 config schema <kind> lists them."}


def structural(schema: Mapping[str, Any]) -> Schema:
    """A pydantic JSON schema as Kubernetes takes it: references inlined, null as ``nullable``, unions left open."""
    return _structural(schema, schema.get("$defs", {}))


def _structural(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Schema:
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        return _structural({**target, **{key: value for key, value in node.items() if key != "$ref"}}, defs)
    if "anyOf" in node or "oneOf" in node:
        parts = [part for part in node.get("anyOf", node.get("oneOf", ())) if part.get("type") != "null"]
        rest = {key: value for key, value in node.items() if key not in ("anyOf", "oneOf", "discriminator")}
        if len(parts) > 1:
            return {"x-kubernetes-preserve-unknown-fields": True} | _pick(rest)
        return {**_structural({**parts[0], **rest}, defs), "nullable": True}
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
        if "properties" in node:
            found["properties"] = {key: _structural(value, defs) for key, value in node["properties"].items()}
        elif isinstance(node.get("additionalProperties"), Mapping):
            found["additionalProperties"] = _structural(node["additionalProperties"], defs)
        else:
            found["x-kubernetes-preserve-unknown-fields"] = True
    if "type" not in found:
        found["x-kubernetes-preserve-unknown-fields"] = True
    return found


def _pick(node: Mapping[str, Any]) -> Schema:
    return {key: node[key] for key in _KEPT if key in node and not (key == "default" and node[key] is None)}


def _without(node: Schema, names: Iterable[str]) -> Schema:
    """``node`` and all below it without those keywords (properties of such names stay)."""
    kept: Schema = {}
    for key, value in node.items():
        if key == "properties":
            kept[key] = {name: _without(item, names) for name, item in value.items()}
        elif key in ("items", "additionalProperties"):
            kept[key] = _without(value, names) if isinstance(value, dict) else value
        elif key not in names or (key == "description" and "properties" not in node):
            kept[key] = value
    return kept


def _widest(one: Schema, other: Schema) -> Schema:
    """A schema that accepts what either accepts."""
    if one.get("type") != other.get("type"):
        return {"x-kubernetes-preserve-unknown-fields": True}
    merged = {key: value for key, value in one.items() if key in other or key == "description"}
    if "properties" in one and "properties" in other:
        names = dict.fromkeys([*one["properties"], *other["properties"]])
        merged["properties"] = {
            name: _widest(one["properties"][name], other["properties"][name])
            if name in one["properties"] and name in other["properties"]
            else one["properties"].get(name, other["properties"].get(name))
            for name in names
        }
    for bound, pick, exclusive in (
        ("minimum", min, "exclusiveMinimum"),
        ("maximum", max, "exclusiveMaximum"),
    ):
        if bound in merged:
            merged[bound] = pick(one[bound], other[bound])
            merged.pop(exclusive, None)
            if all(side.get(exclusive) for side in (one, other) if side[bound] == merged[bound]):
                merged[exclusive] = True
        else:
            merged.pop(exclusive, None)
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


def _rule(rule: str, message: str) -> dict[str, str]:
    return {"rule": rule, "message": message}


def _stage_rules() -> list[dict[str, str]]:
    rules = []
    for kind, info in KINDS.items():
        known = ", ".join(f"'{item.name}'" for item in info.inputs)
        rules.append(
            _rule(
                f"self.kind != '{kind}' || !has(self.inputs) || self.inputs.all(k, k in [{known}])",
                f"inputs: a {kind} stage reads {known.replace(chr(39), '')}",
            )
        )
        for item in info.inputs:
            if item.required:
                rules.append(
                    _rule(
                        f"self.kind != '{kind}' || (has(self.inputs) && '{item.name}' in self.inputs)",
                        f"inputs.{item.name}: a {kind} stage needs it ({item.what})",
                    )
                )
    scored = [str(kind) for kind, info in KINDS.items() if info.needs_service]
    rules.append(
        _rule(
            f"(self.kind in {scored}) == has(self.reward)",
            f"reward: a stage of kind {' or '.join(scored)} names what scores it, and no other does",
        )
    )
    return rules + [_field_rule(name, kinds) for name, kinds in sorted(_fields().items()) if len(kinds) < len(KINDS)]


def _fields() -> dict[str, list[Kind]]:
    """Field of a config to the kinds that have it."""
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
        f"config.{name}: only a stage of kind {', '.join(names)} has it",
    )


def _run_rules() -> list[dict[str, str]]:
    texts = "self.stages.all(s, !has(s.inputs) || s.inputs.all(k, {}))"
    return [
        _rule(
            texts.format("!s.inputs[k].startsWith('path:')"),
            "inputs: pods cannot read a folder of your machine; put it into the store and name it by sha256:",
        ),
        _rule(
            "self.stages.all(s, !has(s.reward) || s.reward.startsWith('http') || "
            "self.stages.exists(o, o.name == s.reward && o.kind == 'serve'))",
            "reward: must name a serve stage of the run, or http(s) addresses joined by commas",
        ),
        _rule("!has(self.store) || self.store.startsWith('s3://')", "store: pods can only reach s3://bucket/prefix"),
        _rule(
            "self.stages == oldSelf.stages && self.seed == oldSelf.seed && has(self.store) == has(oldSelf.store) && "
            "(!has(self.store) || self.store == oldSelf.store)",
            "a run never changes but for suspend: delete it and apply another; stages that stand are not run again",
        ),
    ]
