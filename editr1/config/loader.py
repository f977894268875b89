"""Load settings from a file, the environment and ``--set``, and validate them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from editr1.config.errors import MAX_SHOWN, short
from editr1.config.errors import ConfigError as ConfigError
from editr1.config.merge import deep_merge
from editr1.config.renamed import renamed
from editr1.config.yaml import MAX_BYTES, InvalidYaml, parse_yaml

M = TypeVar("M", bound=BaseModel)
_MAX_FAULTS = 20
"""Maximum number of faults in the message of an error."""


def load_settings(
    model: type[M],
    *,
    file: Path | None = None,
    values: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    env_prefix: str = "",
    env_section: Sequence[str] = (),
    overrides: Sequence[str] = (),
    where: str = "",
) -> M:
    """Merge settings from several sources and validate them as ``model``.

    A later source takes precedence over an earlier one: defaults, ``values``, ``file``, ``env``, ``overrides``. Values
    in ``env`` and ``overrides`` are parsed as YAML, so that ``1e-4``, ``true``, ``null`` and ``[1, 2]`` have their YAML
    types and ``'"1.10"'`` is a string. An entry of a list is addressed by its index or by its ``name``, as in
    ``spec.stages.sft.retries=3``.

    Args:
        model: Settings model to build.
        file: YAML file with a mapping at its top level.
        values: Nested settings, over which ``file`` takes precedence.
        env: Environment variables. The variable ``<env_prefix>A__B`` sets ``a.b``.
        env_prefix: Prefix of the environment variables to read. If it is empty, ``env`` is ignored.
        env_section: Path of the settings section to which ``env`` applies. By default, this is the top level.
        overrides: Assignments of the form ``a.b=c``.
        where: Name of the source of the settings in error messages. By default, this is ``file``.

    Raises:
        ConfigError: the file cannot be read, an override is malformed, a key is unknown, or a value is invalid.

    Example:
        ``load_settings(SftConfig, file=Path("sft.yaml"), overrides=["learning_rate=2e-4"])``
    """
    data: dict[str, Any] = dict(values or {})
    if file is not None:
        data = deep_merge(data, read_yaml(file))
    variables = {}
    for variable, path, text in _from_env(env or {}, env_prefix):
        full_path = [*env_section, *path]
        variables[tuple(full_path)] = variable
        _assign(data, full_path, _scalar(text, f"environment variable {variable}"))
    data = with_overrides(data, overrides)
    return validate(model, data, where=where or (str(file) if file else ""), variables=variables)


def with_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of ``values`` in which each override ``a.b=c`` is applied.

    Raises ConfigError if an override is malformed.
    """
    data = dict(values)
    for item in overrides:
        path, text = _split_override(item)
        _assign(data, path, _scalar(text, f"--set {'.'.join(path)}"))
    return data


def validate(
    model: type[M],
    data: Mapping[str, Any],
    *,
    where: str = "",
    variables: Mapping[tuple[str, ...], str] = MappingProxyType({}),
) -> M:
    """Return ``data`` as an instance of ``model``. Raises ConfigError with one line per fault if it is invalid.

    ``variables`` maps the path of a value to the environment variable that set it, for error messages.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(model, error, where=where, variables=variables))) from None


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Raises ConfigError if the file is missing, not YAML, or not a mapping."""
    try:
        with file.open(encoding="utf-8") as opened:
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}; save the file as UTF-8") from None
    loaded = parse_yaml(text, str(file))
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigError(
            f"{file}: expected a mapping of settings at the top level, got {type(loaded).__name__}; write one setting per line, as key: value"
        )
    return loaded


def explain(
    model: type[BaseModel],
    error: ValidationError,
    *,
    where: str = "",
    variables: Mapping[tuple[str, ...], str] = MappingProxyType({}),
) -> list[str]:
    """Return the faults of a validation error, each as a line ``where: a.b: message (got value)``.

    If ``variables`` maps the path of a value to an environment variable, the line also names that variable.
    """
    lines = []
    faults = error.errors(include_url=False)
    for fault in faults[:_MAX_FAULTS]:
        parts = tuple(str(part)[:MAX_SHOWN] for part in fault["loc"])
        head = ": ".join(part for part in (where, ".".join(parts)) if part)
        if variable := next((name for path, name in variables.items() if parts[: len(path)] == path), None):
            head += f" (environment variable {variable})"
        lines.append(": ".join(part for part in (head, _message(model, fault)) if part))
    if len(faults) > _MAX_FAULTS:
        lines.append(f"{where or 'settings'}: and {len(faults) - _MAX_FAULTS} more faults")
    return lines


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown name: the most similar known name, or all known names if none is similar."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"


def _message(model: type[BaseModel], fault: ErrorDetails) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown(model, fault["loc"])
    message = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
    # If a validator checks a whole section, its message already contains the field and the value.
    of_section = fault["type"] == "value_error" and isinstance(fault["input"], Mapping)
    return message if fault["type"] == "missing" or of_section else f"{message} (got {short(fault['input'])})"


def _unknown(model: type[BaseModel], location: Sequence[int | str]) -> str:
    name, holder = str(location[-1]), _model_at(model, location[:-1])
    if holder is None:
        return "unknown key"
    if (found := renamed(holder, name)) is not None:
        return found.message
    return f"unknown key; {nearest(name, [info.alias or key for key, info in holder.model_fields.items()])}"


def _model_at(model: type[BaseModel], location: Iterable[int | str]) -> type[BaseModel] | None:
    """Return the class of the settings section at ``location``, or None if ``location`` is not in a section."""
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        info = current.model_fields.get(part)
        if info is None:
            info = next((f for f in current.model_fields.values() if f.alias == part), None)
        # Keys of a dict field, such as endpoints.default, are not fields, so the model does not change.
        current = _model_in(info.annotation) if info is not None else current
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg)) is not None), None)


def _from_env(env: Mapping[str, str], prefix: str) -> list[tuple[str, list[str], str]]:
    """Return the environment variables whose names start with ``prefix``, sorted by name.

    Each is a tuple (name of the variable, path of the setting, value).
    """
    if not prefix:
        return []
    names = sorted(name for name in env if name.startswith(prefix) and len(name) > len(prefix))
    return [(name, name[len(prefix) :].lower().split("__"), env[name]) for name in names]


def _split_override(item: str) -> tuple[list[str], str]:
    key, separator, text = item.partition("=")
    if not separator or not key.strip() or any(not part for part in key.split(".")):
        raise ConfigError(f"--set {item!r}: expected a.b=value, such as learning_rate=1e-4")
    return key.strip().split("."), text


def _assign(data: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set the value at ``path`` in ``data``.

    Nested sections on the path are copied first, because other settings may share them.
    """
    holder: Any = data
    for place, part in enumerate(path[:-1]):
        key = _key(holder, part, path)
        child = holder.get(key) if isinstance(holder, dict) else holder[key]
        if isinstance(child, list | dict):
            child = child.copy()
        elif child is None:
            child = {}
        else:
            raise ConfigError(
                f"{'.'.join(path)}: {'.'.join(path[: place + 1])} is a value, not a section; set {'.'.join(path[: place + 1])} itself"
            )
        holder[key] = child
        holder = child
    holder[_key(holder, path[-1], path)] = value


def _key(holder: dict[str, Any] | list[Any], part: str, path: Sequence[str]) -> Any:
    """Return the key or index in ``holder`` that one component of a path denotes.

    In a list, it is an index or the ``name`` of an entry.
    """
    if isinstance(holder, dict):
        return part
    names = [entry.get("name") if isinstance(entry, dict) else None for entry in holder]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(holder):
        return int(part)
    known = ", ".join(str(name) for name in names if name) or f"0 to {len(holder) - 1}"
    raise ConfigError(f"{'.'.join(path)}: the list has no entry {part!r}; use one of: {known}")


def _scalar(text: str, where: str) -> Any:
    try:
        return parse_yaml(text, where)
    except InvalidYaml:
        return text
