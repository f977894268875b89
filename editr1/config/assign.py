"""Set single values in nested settings, as environment variables and the option ``--set`` do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editr1.config.errors import ConfigError, short
from editr1.config.yaml import InvalidYaml, parse_yaml


def from_environment(env: Mapping[str, str], prefix: str) -> list[tuple[str, list[str], str]]:
    """Return the environment variables whose names start with ``prefix``, sorted by name.

    Each is a tuple (name of the variable, path of the setting, value).
    """
    if not prefix:
        return []
    names = sorted(name for name in env if name.startswith(prefix) and len(name) > len(prefix))
    return [(name, name[len(prefix) :].lower().split("__"), env[name]) for name in names]


def split_override(item: str) -> tuple[list[str], str]:
    """Return the path and the value of an override ``a.b=value``. Raises ConfigError if it is malformed."""
    key, separator, text = item.partition("=")
    if not separator:
        raise ConfigError(f"--set {item!r}: the value is missing; expected a.b=value, here {key}=VALUE")
    path = [part.strip() for part in key.split(".")]
    if not all(path):
        raise ConfigError(
            f"--set {item!r}: a name before, between or after the dots is empty; expected a.b=value, such as learning_rate=1e-4"
        )
    return path, text


def assign(data: dict[str, Any], path: Sequence[str], value: Any, source: str) -> tuple[str, ...]:
    """Set the value at ``path`` in ``data``, and return ``path`` with indices instead of the names of list entries.

    Nested sections on the path are copied first, because other settings may share them. ``source`` is what sets the
    value, such as "--set a.b", for error messages. Raises ConfigError if the path leads through a value or to an unknown
    entry of a list.
    """
    holder: Any = data
    found = []
    for place, part in enumerate(path):
        key = _key(holder, part, source)
        found.append(str(key))
        if place + 1 == len(path):
            holder[key] = value
            break
        child = holder.get(key) if isinstance(holder, dict) else holder[key]
        if isinstance(child, list | dict):
            child = child.copy()
        elif child is None:
            child = {}
        else:
            name = ".".join(path[: place + 1])
            raise ConfigError(f"{source}: {name} is a value ({short(child)}), not a section; set {name} itself")
        holder[key] = child
        holder = child
    return tuple(found)


def without(sources: Mapping[tuple[str, ...], str], path: tuple[str, ...]) -> dict[tuple[str, ...], str]:
    """Return ``sources`` without the entries for the value at ``path`` and for values inside it, which is replaced."""
    return {known: source for known, source in sources.items() if known[: len(path)] != path}


def _key(holder: dict[str, Any] | list[Any], part: str, source: str) -> Any:
    """Return the dictionary key or the list index for one component of a path.

    In a list, the component is the index of an entry or the value of its field ``name``.
    """
    if isinstance(holder, dict):
        return part
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in holder]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(holder):
        return int(part)
    if not holder:
        raise ConfigError(f"{source}: the list is empty, so it has no entry {part!r}; set the whole list")
    known = ", ".join(str(name) for name in names if name) or f"0 to {len(holder) - 1}"
    raise ConfigError(f"{source}: the list has no entry {part!r}; use one of: {known}")


def scalar(text: str, where: str) -> Any:
    """Parse the text of a value as YAML, or return it unchanged if it is not YAML. ``where`` is its source, for messages."""
    try:
        return parse_yaml(text, where)
    except InvalidYaml:
        return text
