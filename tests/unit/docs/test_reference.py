"""The generated reference lists every setting, command, metric, table column and chart value."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import typer.main
from pydantic import BaseModel

from editr1.cli.main import app
from editr1.data import schema as tables
from editr1.errors import ExitCode
from editr1.runs.kinds import KINDS
from editr1.serving.metrics import ServerMetrics
from editr1.telemetry import names

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def reference() -> Iterator[dict[str, str]]:
    """Yield the Markdown of every generated page by its path."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        generator: ModuleType = __import__("generate_reference")
        yield {path: text for path, (_, text) in generator.pages().items()}
    finally:
        sys.path.remove(str(ROOT / "docs"))


def _fields(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def test_every_setting_of_every_stage_is_listed_with_a_description(reference: dict[str, str]) -> None:
    for kind, info in KINDS.items():
        page = reference[f"reference/settings/{kind}.md"]
        for name in _fields(info.settings_model()):
            row = next((line for line in page.splitlines() if line.startswith(f'| <a id="{name}">')), None)
            assert row is not None, f"{kind}.{name}"
            assert row.rstrip(" |").count("|") >= 5, f"{kind}.{name} has no description"


def test_nested_settings_are_listed_with_their_path(reference: dict[str, str]) -> None:
    assert "`lora.rank`" in reference["reference/settings/sft.md"]
    assert "`curation.members[].temperature`" in reference["reference/settings/curate.md"]
    assert "`curation.endpoints.<name>.base_url`" in reference["reference/settings/curate.md"]


def test_every_command_is_listed_with_every_option(reference: dict[str, str]) -> None:
    page = reference["reference/cli.md"]

    def check(group: object, path: str) -> int:
        count = 0
        for name, command in group.commands.items():  # type: ignore[attr-defined]
            if command.hidden:
                continue
            if hasattr(command, "commands"):
                count += check(command, f"{path} {name}")
                continue
            section = page.partition(f"## {path} {name}\n")[2].partition("\n## ")[0]
            assert section, f"{path} {name}"
            for parameter in command.params:
                if parameter.param_type_name == "option" and parameter.name != "help" and not parameter.hidden:
                    assert parameter.opts[-1] in section, f"{path} {name} {parameter.opts}"
            count += 1
        return count

    assert check(typer.main.get_command(app), "editr1") >= 30


def test_every_exit_code_is_listed(reference: dict[str, str]) -> None:
    page = reference["reference/exit-codes.md"]
    for code in ExitCode:
        assert f"| {code.value} | `{code.name}` |" in page


def test_every_metric_and_span_is_listed(reference: dict[str, str]) -> None:
    page = reference["reference/telemetry.md"]
    from prometheus_client.metrics import MetricWrapperBase

    import editr1_operator.metrics as operator_metrics

    exposed = [line.split()[2] for line in ServerMetrics(lambda: 0).text().decode().splitlines() if "# TYPE" in line]
    expected = [*names.Span, *names.Metric, *names.StageMetric, *(name for name in exposed if "_created" not in name)]
    expected += [item._name for item in vars(operator_metrics).values() if isinstance(item, MetricWrapperBase)]
    assert len(expected) > 30
    for name in expected:
        assert f"`{name}" in page, name
    assert "` |  |" not in page, "a metric or span has no meaning: add a docstring to its name"


def test_every_column_of_every_table_is_listed(reference: dict[str, str]) -> None:
    page = reference["reference/tables.md"]
    for name, kind in tables.KINDS.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for field in tables.schema_of(kind):
            assert f"`{field.name}" in section, f"{name}.{field.name}"


def test_every_chart_value_is_listed(reference: dict[str, str]) -> None:
    import yaml

    for values in (ROOT / "charts").glob("*/values.yaml"):
        page = reference[f"reference/charts/{values.parent.name}.md"]
        for name in yaml.safe_load(values.read_text()):
            assert name == "config" or f"`{name}`" in page, f"{values.parent.name}: {name}"


def test_reward_api_page_lists_routes_and_error_statuses(reference: dict[str, str]) -> None:
    page = reference["reference/reward-api.md"]
    for heading in ("POST /v1/score", "GET /healthz", "GET /readyz", "GET /metrics"):
        assert f"## {heading}" in page
    for status in (408, 413, 422, 429, 503):
        assert f"| {status} |" in page


def test_every_package_of_the_import_contract_has_a_python_page(reference: dict[str, str]) -> None:
    for package in ("editr1_operator", "cli", "launch", "runs", "serving", "editor", "verifier", "parallel", "data"):
        assert f"reference/python/{package}.md" in reference


def test_no_page_uses_a_former_name_of_a_setting() -> None:
    from editr1.config import renamed

    former = {name for table in renamed.RENAMED.values() for name in table}
    entries = [entry for table in renamed.RENAMED.values() for entry in table.values()]
    present = {entry.new for entry in entries if isinstance(entry, renamed.Renamed)}
    for info in KINDS.values():
        present |= set(info.settings_model().model_fields)
    gone = {name for name in former - present if "_" in name or name != name.lower()}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    used = {(page.name, word) for page in pages for word in re.findall(r"[A-Za-z_]+", page.read_text()) if word in gone}
    assert not used


def test_operator_page_lists_only_existing_reasons() -> None:
    from editr1.launch.kubernetes.run_status import Reason

    page = (ROOT / "docs/how-to/operator.md").read_text()
    table = page.partition("| observed |")[2].partition("\n\n")[0]
    assert set(re.findall(r"\(?`([A-Z][a-z]+[A-Za-z]*)`", table)) <= {reason.value for reason in Reason}
