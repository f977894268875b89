"""The reader of YAML: duplicate keys, numbers, and bounds on aliases, depth and size."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest

from editr1.config.errors import MAX_SHOWN, short
from editr1.config.loader import ConfigError, load_settings, read_yaml
from editr1.config.yaml import MAX_BYTES, InvalidYaml, parse_yaml
from editr1.errors import ExitCode
from editr1.runs.spec import RunSpec

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("-1E+3", -1000.0),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("12", 12),
        ("-1_000", -1000),
        ("0x1f", 31),
        ("0", 0),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("true", True),
        ("yes", True),
        ("", None),
        ("~", None),
        ("010", "010"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("2024-13-45", "2024-13-45"),
        ("e5", "e5"),
        ("'1e-5'", "1e-5"),
        ("=", "="),
        ("{a: [1, {b: null}]}", {"a": [1, {"b": None}]}),
        ("[&x {a: 1}, *x, {<<: *x, b: 2}, {<<: *x, a: 3}]", [{"a": 1}, {"a": 1}, {"a": 1, "b": 2}, {"a": 3}]),
    ],
)
def test_plain_values_have_the_types_of_json(text: str, value: Any) -> None:
    read = parse_yaml(text, "x")
    assert read == value and type(read) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_yaml(".nan", "x"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\nb: 2\na: 3\n", "run.yaml: line 3: the key 'a' appears twice in one mapping, first in line 1"),
        ("x: {a: 1, a: 1}", "the key 'a' appears twice"),
        ("x: {<<: {a: 1}, <<: {a: 2}}", "the key '<<' appears twice"),
        ("[a]: 1", "line 1: a key must be a scalar"),
        ("a: !!python/object:os.system x", "line 1: the tag '.*' is not supported"),
        ("a: !!binary aGk=", "line 1: the tag '.*binary' is not supported"),
        ("a: !!int x", "line 1: 'x' is not a number"),
        ("a: " + "9" * 30, "line 1: '9+' is too large"),
        ("a: 0x" + "f" * 9999, "line 1: '0xf.*f' is too large"),
        ("a: " + "9" * 5000, "line 1: '9.*9' is not a number"),
        ("a: &a [*a]", "line 1: the alias \\*a refers to an anchor whose value is not complete before it"),
        ("a: *b", "line 1: the alias \\*b refers to an anchor"),
        (LAUGHS, "line 5: more than 100000 values, with aliases expanded"),
        ("[" * 60, "line 1: lists and mappings are nested more than 50 deep"),
        ("[" * 100_000, "not valid YAML: .*nesting depth"),
        ("- " * 100_000, "nested more than 50 deep"),
        ("x" * (MAX_BYTES + 1), "more than 4194304 characters"),
        ("a: 1\nb: [\n", "not valid YAML: line 3, column 1: "),
        ("a: \x07", "not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
    ],
)
def test_unsafe_or_ambiguous_text_is_refused_with_its_line(text: str, fault: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConfigError, match=fault) as raised:
        parse_yaml(text, "run.yaml")
    assert time.monotonic() - started < 2.0
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)
    assert raised.value.exit_code == ExitCode.CONFIG


def test_syntax_errors_have_a_type_of_their_own() -> None:
    with pytest.raises(InvalidYaml):
        parse_yaml("[", "x")
    with pytest.raises(ConfigError) as raised:
        parse_yaml("{a: 1, a: 2}", "x")
    assert not isinstance(raised.value, InvalidYaml)


def test_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(tmp_path / "run.yaml")


@pytest.mark.parametrize(
    "value",
    [[[["x" * 10_000] * 10_000] * 10_000] * 10_000, "y" * 10**7, 10**5000, {"a": 10**5000}],
    ids=["nested lists", "string", "integer", "integer in a mapping"],
)
def test_shown_value_is_short(value: object) -> None:
    started = time.monotonic()
    assert 3 < len(short(value)) <= MAX_SHOWN
    assert time.monotonic() - started < 1.0


def test_message_about_many_faults_is_short(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("\n".join(f"key{i}: 1" for i in range(5000)))
    with pytest.raises(ConfigError, match=r"run\.yaml: and \d+ more faults") as raised:
        load_settings(RunSpec, file=tmp_path / "run.yaml")
    assert len(str(raised.value).splitlines()) <= 21


def test_override_with_a_duplicate_key_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--set spec\.seed: line 1: the key 'a' appears twice"):
        load_settings(RunSpec, overrides=["spec.seed={a: 1, a: 2}"])
