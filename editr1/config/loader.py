"""Load settings from a file, the environment and ``--set``, and validate them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from editr1.config.assign import assign, from_environment, scalar, split_override, without
from editr1.config.errors import MAX_SHOWN, short
from editr1.config.errors import ConfigError as ConfigError
from editr1.config.merge import deep_merge
from editr1.config.renamed import renamed
from editr1.config.yaml import MAX_BYTES, parse_yaml

M = TypeVar("M", bound=BaseModel)
Sources = Mapping[tuple[str, ...], str]
"""What set a value, by the value's path: "environment variable NAME" or "--set NAME"."""
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
    data, sources = merge_settings(
        file=file, values=values, env=env, env_prefix=env_prefix, env_section=env_section, overrides=overrides
    )
    return validate(model, data, where=where or (str(file) if file else ""), sources=sources)


def merge_settings(
    *,
    file: Path | None = None,
    values: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    env_prefix: str = "",
    env_section: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> tuple[dict[str, Any], Sources]:
    """Merge settings as :func:`load_settings` does, but without validating them.

    Returns the settings, and the sources of those that were set by a variable or an override.
    """
    data: dict[str, Any] = dict(values or {})
    if file is not None:
        data = deep_merge(data, read_yaml(file))
    sources: dict[tuple[str, ...], str] = {}
    for variable, path, text in from_environment(env or {}, env_prefix):
        source = f"environment variable {variable}"
        found = assign(data, [*env_section, *path], scalar(text, source), source)
        sources = {**without(sources, found), found: source}
    for item in overrides:
        path, text = split_override(item)
        source = f"--set {'.'.join(path)}"
        found = assign(data, path, scalar(text, source), source)
        sources = {**without(sources, found), found: source}
    return data, sources


def validate(
    model: type[M],
    data: Mapping[str, Any],
    *,
    where: str = "",
    sources: Sources = MappingProxyType({}),
) -> M:
    """Return ``data`` as an instance of ``model``. Raises ConfigError with one line per fault if it is invalid.

    ``sources`` maps the path of a value to what set it, such as "environment variable X", for error messages.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(model, error, where=where, sources=sources))) from None


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
    sources: Sources = MappingProxyType({}),
) -> list[str]:
    """Return the faults of a validation error, each as a line ``where: a.b: message (got value)``.

    If ``sources`` maps the path of a value to what set it, the line also names this source.
    """
    lines = []
    faults = error.errors(include_url=False)
    for fault in faults[:_MAX_FAULTS]:
        parts = tuple(str(part)[:MAX_SHOWN] for part in fault["loc"])
        head = ": ".join(part for part in (where, ".".join(parts)) if part)
        at_parts = (name for path, name in sources.items() if parts[: len(path)] == path)
        # A list that was replaced by a mapping is the fault of a value that was set inside it.
        below = (name for path, name in sources.items() if _mapping_for_list(fault) and path[: len(parts)] == parts)
        if source := next(at_parts, None) or next(below, None):
            head += f" ({source})"
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
    if _mapping_for_list(fault):
        return (
            f"must be a list, not a mapping; write the whole list, such as [{{name: a}}, {{name: b}}], because an entry can "
            f"be set by its name only in a list that the file contains (got {short(fault['input'])})"
        )
    message = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else fault["msg"]
    # If a validator checks a whole section, its message already contains the field and the value.
    of_section = fault["type"] == "value_error" and isinstance(fault["input"], Mapping)
    return message if fault["type"] == "missing" or of_section else f"{message} (got {short(fault['input'])})"


def _mapping_for_list(fault: ErrorDetails) -> bool:
    return fault["type"] in ("list_type", "tuple_type") and isinstance(fault["input"], Mapping)


def _unknown(model: type[BaseModel], location: Sequence[int | str]) -> str:
    name, holder = str(location[-1]), _model_at(model, location[:-1])
    if holder is None:
        return "unknown key"
    if (found := renamed(holder, name)) is not None:
        return found.message
    if len(location) > 1 and name == str(location[-2]):
        return f"unknown key; {name!r} is written twice; remove one of them"
    inside = [key for key, info in holder.model_fields.items() if name in _fields_of(info.annotation)]
    if inside:
        return f"unknown key; did you mean '{inside[0]}.{name}'?"
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


def _fields_of(annotation: Any) -> Iterable[str]:
    """Return the names of the settings in a section; none if ``annotation`` is not that of a section."""
    return annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else ()


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg)) is not None), None)
