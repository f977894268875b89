"""The parts of the reference that describe formats: HTTP API, tables, artifacts, exit codes, metrics and spans."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import griffe
from reference_schema import schema_table, text

ROOT = Path(__file__).resolve().parent.parent


@cache
def package() -> griffe.Module:
    """Load the package with griffe, without importing it."""
    found = griffe.load("editr1", search_paths=[str(ROOT)], docstring_parser="google")
    assert isinstance(found, griffe.Module)
    return found


def docstring(name: str) -> str:
    """Return the docstring of a module or package, read from its file."""
    folder = ROOT / "operators" if name.startswith("editr1_operator") else ROOT
    path = folder / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def reward_api() -> str:
    """Return the routes, request bodies and responses of the reward server, from its OpenAPI document."""
    from editr1.config.serve import ServeConfig
    from editr1.serving.server import create_app

    app = create_app(Mock(), ServeConfig(), [Mock()])
    document = app.openapi()
    app.state.service.stop()
    schemas = document["components"]["schemas"]
    lines = [docstring("editr1.serving.api"), ""]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += [f"## {method.upper()} {path}", "", text(operation.get("description", "")), ""]
            lines += [*_body(operation), "| status | meaning |", "|---|---|"]
            for status, answer in operation["responses"].items():
                lines.append(f"| {status} | {text(answer['description'])} |")
            lines.append("")
    lines += ["## Response bodies", ""]
    for name, schema in schemas.items():
        if schema.get("properties"):
            lines += [f"### {name}", "", schema.get("description", ""), "", schema_table({**schema, "$defs": schemas})]
    return "\n".join(lines)


def _body(operation: Mapping[str, Any]) -> Iterator[str]:
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        yield from ("Request body:", "", schema_table(schema))


def tables() -> str:
    """Return the columns of every kind of table, from the Arrow schemas."""
    import pyarrow as pa

    from editr1.data import schema

    def leaves(path: str, field: pa.Field) -> Iterator[str]:
        kind = field.type
        if pa.types.is_struct(kind):
            for child in kind:
                yield from leaves(f"{path}.{child.name}", child)
        elif pa.types.is_list(kind):
            yield from leaves(f"{path}[]", kind.value_field)
        else:
            yield f"| `{path}` | {kind} | {'may be null' if field.nullable else 'required'} |"

    lines = []
    for name, kind in schema.KINDS.items():
        lines += [f"## {name}", "", text(kind.__doc__ or ""), "", "| column | type | |", "|---|---|---|"]
        for field in schema.schema_of(kind):
            lines += leaves(field.name, field)
        lines.append("")
    module = docstring("editr1.data.schema").partition("\n")
    notes = [part for part in module[2].split("\n\n") if "====" not in part]
    return "\n".join([module[0], "\n\n".join(notes), "", *lines])


def artifacts() -> str:
    """Return the manifest, the keys of a store, and the inputs and outputs of each kind of stage."""
    from editr1.artifacts.manifest import Manifest
    from editr1.runs.kinds import KINDS

    return "\n".join(
        [
            docstring("editr1.artifacts.store"),
            "",
            "## Manifest",
            "",
            docstring("editr1.artifacts.manifest"),
            "",
            schema_table(Manifest.model_json_schema()),
            "## Run record",
            "",
            docstring("editr1.runs.record"),
            "",
            docstring("editr1.runs.live"),
            "",
            "## What each stage reads and writes",
            "",
            kinds_table(KINDS),
        ]
    )


def kinds_table(kinds: Mapping[Any, Any]) -> str:
    """Return the tables of inputs and outputs of every kind of stage."""
    lines = ["", "| kind | input | | contents |", "|---|---|---|---|"]
    for kind, info in kinds.items():
        for item in info.inputs:
            lines.append(
                f"| {kind} | `{item.name}` | {'required' if item.required else 'optional'} | {text(item.what)} |"
            )
    lines += ["", "| kind | outputs | extras of the package that it needs |", "|---|---|---|"]
    for kind, info in kinds.items():
        outputs = ", ".join(f"`{name}`" for name in info.outputs) or "none"
        lines.append(f"| {kind} | {outputs} | {', '.join(f'`{name}`' for name in info.extras)} |")
    return "\n".join([*lines, "", ""])


def exit_codes() -> str:
    """Return the exit codes, and the exceptions that end a process with each of them."""
    lines = [docstring("editr1.errors"), "", "| code | name | meaning | raised as |", "|---|---|---|---|"]
    raised: dict[str, list[str]] = {}
    for cls in _classes(package()):
        value = cls.members.get("exit_code")
        if isinstance(value, griffe.Attribute) and value.value is not None:
            raised.setdefault(str(value.value).rpartition(".")[2], []).append(f"`{cls.name}`")
    for name, value, about in enum_members("errors.ExitCode"):
        lines.append(f"| {value} | `{name}` | {text(about)} | {', '.join(sorted(raised.get(name, ())))} |")
    lines += [
        "",
        "Codes below 128 are permanent. Codes of 128 and above are worth a retry, and the launcher retries them.",
        "",
    ]
    return "\n".join(lines)


def telemetry() -> str:
    """Return the names and meanings of spans and metrics."""
    from prometheus_client import REGISTRY

    from editr1.serving.metrics import ServerMetrics

    lines = [docstring("editr1.telemetry.names"), ""]
    lines += ["## Metrics of the reward server", "", *_exposition(ServerMetrics(lambda: 0).text().decode())]
    from prometheus_client import generate_latest

    import editr1_operator.metrics  # noqa: F401

    operator = [line for line in generate_latest(REGISTRY).decode().splitlines() if "editr1_operator" in line]
    lines += ["## Metrics of the operator", "", *_exposition("\n".join(operator))]
    for title, name in (("Metrics of a running stage", "StageMetric"), ("Spans", "Span")):
        lines += [f"## {title}", "", "| name | meaning |", "|---|---|"]
        lines += [
            f"| `{value.strip(chr(39))}` | {text(about)} |"
            for _, value, about in enum_members(f"telemetry.names.{name}")
        ]
        lines.append("")
    return "\n".join(lines)


def _exposition(exposition: str) -> Iterator[str]:
    yield from ("| name | type | meaning |", "|---|---|---|")
    helps = {}
    for line in exposition.splitlines():
        words = line.split(" ", 3)
        if line.startswith("# HELP "):
            helps[words[2]] = words[3]
        elif line.startswith("# TYPE ") and not words[2].endswith("_created"):
            yield f"| `{words[2]}` | {words[3]} | {text(helps.get(words[2], ''))} |"
    yield ""


def enum_members(path: str) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the value as source code, and the docstring of each member of an enum of the package."""
    for name, member in package()[path].members.items():
        if isinstance(member, griffe.Attribute) and name.isupper():
            yield name, str(member.value), member.docstring.value if member.docstring else ""


def _classes(module: griffe.Module) -> Iterator[griffe.Class]:
    for member in module.members.values():
        if member.is_alias:
            continue
        if isinstance(member, griffe.Module):
            yield from _classes(member)
        elif isinstance(member, griffe.Class):
            yield member
