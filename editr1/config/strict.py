"""Make numbers and booleans strict in the schema of a settings model."""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import PydanticCustomError, core_schema

_NO_SCHEMAS: Final = ("cls", "config", "default", "expected", "metadata", "ref", "schema_ref", "serialization")


def strict(node: Any) -> Any:
    """Return a core schema in which booleans and strings are not accepted as numbers, and numbers are not accepted as booleans.

    A number without a fraction, such as 1e3, is accepted as an integer. Dictionaries in ``node`` are modified.
    """
    if isinstance(node, list | tuple):
        return type(node)(map(strict, node))
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    for key, item in node.items():
        if not (isinstance(kind, str) and key in _NO_SCHEMAS):
            node[key] = strict(item)
    if kind in ("float", "bool"):
        node.setdefault("strict", True)
    if kind == "int" and "strict" not in node:
        return core_schema.no_info_before_validator_function(
            _whole, core_schema.int_schema(**_options(node), strict=True)
        )
    return node


def _options(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "type"}


def _whole(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer, not true or false")
    return int(value) if isinstance(value, float) and value.is_integer() else value
