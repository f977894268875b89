"""Render a JSON schema as a Markdown table of its fields."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]
_BOUNDS = (
    ("minimum", ">= {}"),
    ("exclusiveMinimum", "> {}"),
    ("maximum", "<= {}"),
    ("exclusiveMaximum", "< {}"),
    ("multipleOf", "a multiple of {}"),
    ("minLength", "at least {} characters"),
    ("maxLength", "at most {} characters"),
    ("minItems", "at least {} entries"),
    ("maxItems", "at most {} entries"),
    ("pattern", "matches `{}`"),
)
_CODE = re.compile(r"(`+[^`]*`+)")
_UNSET = object()
_LONGEST_DEFAULT = 80
"""Number of characters above which the default of a list or mapping is shown as its length."""


def schema_table(
    schema: Schema, defaults: Mapping[str, Any] | None = None, *, prefix: str = "", skip: Collection[str] = ()
) -> str:
    """Return a table with one row per field, including nested fields: name, type, default, allowed values, description.

    ``defaults`` overrides the defaults in the schema, ``prefix`` is prepended to each name, and the top-level fields in
    ``skip`` are omitted.
    """
    lines = ["| name | type | default | allowed | description |", "|---|---|---|---|---|"]
    definitions = schema.get("$defs", {})
    for name, node, default, required in _fields(schema, definitions, defaults, "", skip):
        shown = "required" if required else _value(default)
        cells = (_anchor(prefix + name), _type(node), shown, _bounds(node), text(node.get("description", "")))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def text(description: str) -> str:
    """Return a description as a table cell on one line. Escape ``|`` everywhere, and ``<`` and ``*`` outside code."""
    parts = _CODE.split(" ".join(description.split()))
    plain = ((part if part.startswith("`") else part.replace("<", "&lt;").replace("*", r"\*")) for part in parts)
    return "".join(plain).replace("|", r"\|").replace("``", "`")


def _fields(
    schema: Schema, definitions: Schema, defaults: Any, prefix: str, skip: Collection[str] = ()
) -> Iterator[tuple[str, Schema, Any, bool]]:
    required = schema.get("required", ())
    for name, raw in schema.get("properties", {}).items():
        if name in skip:
            continue
        node = _resolved(raw, definitions)
        default = defaults.get(name, _UNSET) if isinstance(defaults, Mapping) else node.get("default", _UNSET)
        yield (
            prefix + name,
            node,
            default if not node.get("properties") else _UNSET,
            name in required and default is _UNSET,
        )
        yield from _fields(node, definitions, default if isinstance(default, Mapping) else None, f"{prefix}{name}.")
        for suffix, inner in (("[]", node.get("items")), (".<name>", node.get("additionalProperties"))):
            if isinstance(inner, Mapping):
                yield from _fields(_resolved(inner, definitions), definitions, None, f"{prefix}{name}{suffix}.")


def _resolved(node: Schema, definitions: Schema) -> dict[str, Any]:
    """Return ``node`` merged with the schema that it references or with its only choice other than null."""
    found = dict(node)
    if reference := found.pop("$ref", None):
        found = {**_resolved(definitions[reference.rpartition("/")[2]], definitions), **found}
    choices = [choice for choice in found.get("anyOf", ()) if choice.get("type") != "null"]
    if len(choices) == 1:
        found = {**_resolved(choices[0], definitions), **{key: value for key, value in found.items() if key != "anyOf"}}
        found["nullable"] = True
    return found


def _type(node: Schema) -> str:
    if "enum" in node or "const" in node:
        return "choice"
    if choices := node.get("anyOf", node.get("oneOf")):
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices))
    kind = node.get("type", "any")
    if kind == "array":
        items = node.get("items")
        kind = f"list of {_type(items)}" if isinstance(items, Mapping) and items.get("type") else "list"
    elif kind == "object":
        kind = "section" if node.get("properties") else "mapping"
    elif isinstance(kind, list):
        kind = " or ".join(kind)
    return f"{kind} or null" if node.get("nullable") else kind


def _bounds(node: Schema) -> str:
    if "enum" in node:
        return ", ".join(f"`{_plain(choice)}`" for choice in node["enum"])
    if "const" in node:
        return f"`{_plain(node['const'])}`"
    shown = []
    for key, words in _BOUNDS:
        bound = node.get(key)
        if bound is not None and not isinstance(bound, bool):
            exclusive = node.get(f"exclusive{key.capitalize()}") is True
            shown.append(words.format(_plain(bound)).replace("=", "" if exclusive else "=").replace("|", r"\|"))
    return ", ".join(shown).replace(">", "&gt;").replace("<", "&lt;") if "pattern" not in node else ", ".join(shown)


def _value(default: Any) -> str:
    if default is _UNSET:
        return ""
    shown = json.dumps(default, ensure_ascii=False)
    if len(shown) > _LONGEST_DEFAULT and isinstance(default, list | dict):
        return f"{len(default)} entries"
    return f"`{shown}`".replace("|", r"\|")


def _plain(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value)


def _anchor(name: str) -> str:
    return f'<a id="{name.replace("<", "").replace(">", "")}"></a>`{name}`'
