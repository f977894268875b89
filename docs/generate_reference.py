"""MkDocs hook that generates every page of the reference from the code while the site is built.

The generated pages are not committed. Settings, chart values and the EditRun resource come from their JSON schemas, the command
line from typer, the HTTP API from FastAPI's OpenAPI document, tables from the Arrow schemas, and the rest from docstrings
that griffe reads without importing the modules.
"""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "operators"), str(ROOT)]

import reference_cli  # noqa: E402
import reference_code  # noqa: E402
from reference_schema import schema_table  # noqa: E402

from editr1.config.loader import read_yaml  # noqa: E402

Page = tuple[str, str]
"""Title and Markdown of a generated page."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the generated pages to the navigation."""
    section: list[Any] = next(entry["Reference"] for entry in config.nav or [] if "Reference" in entry)
    section[:] = ["reference/index.md", *_navigation()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    for path, (title, text) in pages().items():
        wide = "---\nhide: [toc]\n---\n" if "/settings/" in path or "/charts/" in path else ""
        files.append(File.generated(config, path, content=f"{wide}# {title}\n\n{text}"))
    return files


@cache
def pages() -> dict[str, Page]:
    """Return the title and text of every reference page, by path below ``docs``."""
    found = dict(_settings()) | {
        "reference/run-file.md": ("Run file and EditRun resource", _run_file()),
        "reference/cli.md": ("Command line", reference_cli.command_line()),
        **dict(_charts()),
        "reference/reward-api.md": ("Reward server API", reference_code.reward_api()),
        "reference/tables.md": ("Parquet tables", reference_code.tables()),
        "reference/artifacts.md": ("Artifacts", reference_code.artifacts()),
        "reference/exit-codes.md": ("Exit codes", reference_code.exit_codes()),
        "reference/telemetry.md": ("Metrics and spans", reference_code.telemetry()),
        **dict(_python_api()),
    }
    return {"reference/index.md": ("Reference", _index(found)), **found}


def _settings() -> Iterator[tuple[str, Page]]:
    from editr1.runs.kinds import KINDS

    for kind, info in KINDS.items():
        text = (
            f"{_sentence(info.title)}\n\nSettings go under `config` of the stage in a run file or of the chart's values, "
            f"or in the file given with `-f`. `editr1 {kind}` and `editr1 submit` also accept `--set NAME=VALUE` and the "
            f"environment variable `EDITR1_{kind.upper()}__NAME`; `editr1 run` accepts `--set STAGE.NAME=VALUE`.\n\n"
        )
        yield (
            f"reference/settings/{kind}.md",
            (f"Settings: {kind}", text + schema_table(info.settings_model().model_json_schema(by_alias=True))),
        )
    for name, text in (
        ("cluster", "The file given by `--cluster` or `EDITR1_CLUSTER_FILE`."),
        ("store", "Address and credentials of an artifact store. Secrets are read from the environment only."),
        ("reproduce", "Sizes of the experiments of `editr1 reproduce`, set with `--set NAME=VALUE`."),
    ):
        yield (
            f"reference/settings/{name}.md",
            (f"Settings: {name}", f"{text}\n\n{schema_table(_outermost(name).model_json_schema(by_alias=True))}"),
        )


def _outermost(module: str) -> Any:
    """Return the last settings model in a module of ``editr1.config``, which contains the other models."""
    from editr1.config.base import Settings

    found = importlib.import_module(f"editr1.config.{module}")
    models = [item for item in vars(found).values() if isinstance(item, type) and issubclass(item, Settings)]
    return [model for model in models if model.__module__ == found.__name__][-1]


def _charts() -> Iterator[tuple[str, Page]]:
    for schema in sorted((ROOT / "charts").glob("*/values.schema.json")):
        chart = schema.parent.name
        defaults = read_yaml(schema.parent / "values.yaml")
        about = read_yaml(schema.parent / "Chart.yaml").get("description", "")
        text = f"{_sentence(about)}\n\n"
        if chart != "operator":
            kind = "serve" if chart == "reward" else chart
            text += f"`config` takes the [settings of the stage](../settings/{kind}.md).\n\n"
        table = schema_table(json.loads(schema.read_text()), defaults, skip=("global", "config"))
        yield f"reference/charts/{chart}.md", (f"Chart: {chart}", text + table)


def _run_file() -> str:
    resource = read_yaml(ROOT / "charts/operator/files/editruns.yaml")
    schema = resource["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    spec, status = schema["spec"], schema["status"]
    stage = spec["properties"]["stages"]["items"]
    stage["properties"]["config"] = {
        "type": "object",
        "description": "Settings of the stage's kind; see the page of each kind.",
    }
    rules = [*spec["x-kubernetes-validations"], *stage["x-kubernetes-validations"]]
    from editr1.runs.kinds import KINDS

    lines = [
        "The same YAML file is executed by `editr1 run` and accepted by Kubernetes as an `EditRun` resource.",
        "",
        "```yaml",
        f"apiVersion: {resource['spec']['group']}/{resource['spec']['versions'][0]['name']}",
        f"kind: {resource['spec']['names']['kind']}",
        "metadata: {name: my-run}",
        "spec: {seed: 0, stages: []}",
        "```",
        "",
        "## spec",
        schema_table(spec, prefix="spec."),
        "## Rules checked when the resource is created",
        "",
        *(f"- {rule['message']}" for rule in rules if not rule["message"].startswith("config.")),
        "- config: a stage has the settings of its own kind only",
        "",
        "## Inputs and outputs of each kind",
        reference_code.kinds_table(KINDS),
        "## status",
        "The operator writes the status; `kubectl get editruns` shows a summary.",
        "",
        schema_table(status, prefix="status."),
    ]
    return "\n".join(lines)


def packages() -> list[str]:
    """Return the packages of the import contract from top to bottom, without single modules such as ``editr1.errors``."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    names = [name.strip() for layer in contract["layers"] for name in layer.split("|")]
    return [name for name in names if _folder(name).is_dir()]


def _folder(package: str) -> Path:
    return (ROOT / "operators" if package.startswith("editr1_operator") else ROOT) / package.replace(".", "/")


def _python_api() -> Iterator[tuple[str, Page]]:
    for package in packages():
        about = reference_code.docstring(package)
        modules = [path for path in sorted(_folder(package).rglob("*.py")) if not path.name.startswith("__")]
        lines = [about, ""]
        for module in modules:
            root = ROOT / "operators" if package.startswith("editr1_operator") else ROOT
            lines += [f"::: {'.'.join(module.relative_to(root).with_suffix('').parts)}", ""]
        yield f"reference/python/{package.rpartition('.')[2]}.md", (f"Python: {package}", "\n".join(lines))


def _index(found: dict[str, Page]) -> str:
    lines = [
        "Every page below is generated from the code when the site is built, so it describes the version that you have.",
        "",
    ]
    for heading, chosen in _sections(found):
        lines += [
            f"## {heading}",
            "",
            *(f"- [{title}]({path.removeprefix('reference/')})" for path, title in chosen),
            "",
        ]
    return "\n".join(lines)


def _sections(found: dict[str, Page]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    groups: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("Formats and interfaces", lambda path: path.count("/") == 1 and path != "reference/index.md"),
        ("Settings", lambda path: "/settings/" in path),
        ("Charts", lambda path: "/charts/" in path),
        ("Python API", lambda path: "/python/" in path),
    )
    for heading, belongs in groups:
        yield (
            heading,
            [(path, title.partition(": ")[2] or title) for path, (title, _) in found.items() if belongs(path)],
        )


def _navigation() -> list[dict[str, Any]]:
    sections = dict(_sections(pages()))
    return [
        *({title: path} for path, title in sections.pop("Formats and interfaces")),
        *({heading: [{title: path} for path, title in chosen]} for heading, chosen in sections.items()),
    ]


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!")) or not text else ".")
