"""Parse YAML text from users: run files, settings, cluster settings and chart values.

Only the data types of JSON are supported. The parser is stricter than PyYAML: duplicate keys in a mapping are
rejected, and the nesting depth and the size after alias expansion are limited, so that a small text cannot require
much time or memory.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any, Final

import yaml

from editr1.config.errors import ConfigError, short

MAX_BYTES: Final = 4 << 20
"""Maximum size of a YAML text."""
MAX_DEPTH: Final = 50
"""Maximum number of nested lists and mappings."""
MAX_VALUES: Final = 100_000
"""Maximum number of values, with aliases expanded."""
_MAX_INTEGER: Final = 2**64


class InvalidYaml(ConfigError):
    """The text violates the syntax of YAML."""


def parse_yaml(text: str, where: str) -> Any:
    """Return the data in a YAML text: null, booleans, numbers, strings, lists and mappings.

    Unlike in YAML 1.1, ``1e-5`` is a number. ``010``, ``1:30`` and dates are strings.

    Args:
        text: the YAML text; it may be empty, which is null.
        where: name of the source, for error messages.

    Raises:
        InvalidYaml: the text is not valid YAML.
        ConfigError: a key appears twice, a tag is not supported, a number is too large, or the text is too large or too deeply
            nested, with its aliases expanded.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: has more than {MAX_BYTES} characters; use a smaller text")
    try:
        _check_size(text, where)
        return yaml.load(text, Loader=_Loader)
    except _Refused as error:
        raise ConfigError(f"{where}: {error}") from None
    except yaml.YAMLError as error:
        raise InvalidYaml(f"{where}: not valid YAML: {_reason(error)}") from None
    except (RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise InvalidYaml(f"{where}: not valid YAML: {short(str(error))}") from None


class _Refused(yaml.YAMLError):
    """Raised for valid YAML that the rules of :func:`parse_yaml` do not allow."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML loader with the rules of :func:`parse_yaml`. It uses libyaml if PyYAML was built with it."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    yaml_constructors: dict[str | None, Any] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise _Refused(f"line {line}: a key must be a scalar, not a list or a mapping; correct the key")
            if key in lines:
                raise _Refused(
                    f"line {line}: the key {short(key)} appears twice in one mapping, first in line "
                    f"{lines[key]}; remove one of them"
                )
            lines[key] = line
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping

    def unsupported(self, node: yaml.Node) -> Any:
        raise _Refused(f"line {node.start_mark.line + 1}: the tag {short(node.tag)} is not supported; remove it")

    def integer(self, node: yaml.ScalarNode) -> int:
        value = self._number(node, lambda text: int(text, 0))
        if abs(value) >= _MAX_INTEGER:
            raise _Refused(f"line {node.start_mark.line + 1}: {short(node.value)} is too large for an integer")
        return int(value)

    def decimal(self, node: yaml.ScalarNode) -> float:
        special = {"inf": "inf", "nan": "nan"}.get(node.value.lower().lstrip("+-").lstrip("."))
        sign = -1.0 if node.value.startswith("-") else 1.0
        return sign * float(special) if special else float(self._number(node, float))

    def _number(self, node: yaml.ScalarNode, convert: Any) -> Any:
        try:
            return convert(str(self.construct_scalar(node)).replace("_", ""))
        except ValueError:
            raise _Refused(f"line {node.start_mark.line + 1}: {short(node.value)} is not a number") from None


_NUMBER: Final = "-+0123456789."
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool",
    re.compile(r"^(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$"),
    list("yYnNtTfFoO"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list(_NUMBER),
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"), ["<"])
for _tag in ("null", "bool", "str", "seq", "map"):
    _name = f"tag:yaml.org,2002:{_tag}"
    _Loader.yaml_constructors[_name] = yaml.SafeLoader.yaml_constructors[_name]
_Loader.yaml_constructors["tag:yaml.org,2002:int"] = _Loader.integer
_Loader.yaml_constructors["tag:yaml.org,2002:float"] = _Loader.decimal
_Loader.yaml_constructors["tag:yaml.org,2002:merge"] = yaml.SafeLoader.yaml_constructors["tag:yaml.org,2002:str"]
_Loader.yaml_constructors[None] = _Loader.unsupported


def _check_size(text: str, where: str) -> None:
    """Check the depth and the size with the events of the parser, before any object is created."""
    sizes: dict[str, int] = {}
    # For each list or mapping that is still open: its anchor and its number of values.
    open_nodes: list[list[Any]] = [[None, 0]]
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
            if len(open_nodes) > MAX_DEPTH + 1:
                raise _Refused(
                    f"line {line}: lists and mappings are nested more than {MAX_DEPTH} deep; use fewer levels"
                )
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise _Refused(
                    f"line {line}: the alias *{short(event.anchor)[1:-1]} refers to an anchor whose value is not "
                    "complete before it; define the anchor first"
                )
            anchor, size = None, sizes[event.anchor]
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        open_nodes[-1][1] += size
        if open_nodes[-1][1] > MAX_VALUES:
            raise _Refused(
                f"line {line}: more than {MAX_VALUES} values, with aliases expanded; write fewer values or use fewer aliases"
            )


def _reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    return place + " ".join(str(problem).split())[:200]
