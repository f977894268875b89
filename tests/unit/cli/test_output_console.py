"""Tables that commands print to a pipe keep each row on one line, so that users can filter them with grep."""

import pytest
from rich.table import Table

from editr1.terminal.console import output_console


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    table = Table("run", "state", "reason")
    table.add_row("a-run-with-a-long-name", "succeeded", "word " * 40)
    output_console().print(table)
    return capsys.readouterr().out


def test_row_of_a_piped_table_is_not_wrapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert len(printed(capsys).splitlines()) == 5


def test_columns_environment_variable_sets_the_width_of_piped_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, printed(capsys).splitlines())) == 60
