"""A message about ``--set`` or a variable names what was written, its value, what is allowed and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from editr1.config.loader import ConfigError
from editr1.runs.spec import load_run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    stage = {"name": "make", "kind": "curate", "config": {"curation": {"num_traces": 2}}}
    body = {"seed": 3, "stages": [stage]}
    run = {"apiVersion": "editr1.dev/v1alpha1", "kind": "EditRun", "metadata": {"name": "x"}, "spec": body}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    return tmp_path / "run.yaml"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("make.curation.num_traces.x=3", ["make.curation.num_traces is a value (2)", "make.curation.num_traces itself"]),
        ("spec.seed.x=3", ["spec.seed is a value (3)", "set spec.seed itself"]),
        ("make..seed=3", ["--set 'make..seed=3'", "empty", "a.b=value"]),
        (".make=3", ["--set '.make=3'", "empty"]),
        ("make.seed", ["--set 'make.seed'", "the value is missing"]),
        ("spec={seed: 5}", ["--set 'spec={seed: 5}'", "as a whole", "spec.seed=1"]),
        ("metadata={name: y}", ["as a whole", "metadata.name=my-run"]),
        ("make={seed: 5}", ["as a whole", "make.SETTING=VALUE"]),
        ("apiVersion=x", ["apiVersion can only be set in the run file"]),
        ("curate.seed=5", ["'curate' is no part of the run", "stage and a dot (make)"]),
        ("make.curation.members.careful.weight=2", ["--set make.curation.members.careful.weight", "must be a list", "name:"]),
        ("make.curation.curation.num_traces=2", ["'curation' is written twice", "remove one"]),
        ("make.num_traces=2", ["num_traces (--set make.num_traces)", "did you mean 'curation.num_traces'"]),
        ("make.labeller=foo", ["labeller (--set make.labeller)", "got 'foo'"]),
        ("spec.stages.make.retries=foo", ["spec.stages.0.retries (--set spec.stages.make.retries)", "got 'foo'"]),
        ("spec.stages.make.config.labeller=foo", ["labeller (--set spec.stages.make.config.labeller)", "got 'foo'"]),
        ("spec.stages.none.retries=1", ["--set spec.stages.none.retries", "no entry 'none'", "make"]),
    ],
)  # fmt: skip
def test_message_names_what_was_written_and_what_to_do(file: Path, override: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(file, [override])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("stage", ["MAKE", "0"])
@pytest.mark.parametrize(("field", "setting"), [("CONFIG__LABELLER", "labeller"), ("RETRIES", "retries")])
def test_variable_of_the_run_is_named(file: Path, stage: str, field: str, setting: str) -> None:
    variable = f"EDITR1_RUN__SPEC__STAGES__{stage}__{field}"
    with pytest.raises(ConfigError) as caught:
        load_run(file, env={variable: "foo"})
    assert f"{setting} (environment variable {variable}): " in str(caught.value)


def test_the_last_source_of_a_value_is_named(file: Path) -> None:
    variable = "EDITR1_RUN__SPEC__STAGES__MAKE__CONFIG__LABELLER"
    with pytest.raises(ConfigError) as caught:
        load_run(file, ["make.labeller=bar"], env={variable: "foo"})
    assert "(--set make.labeller)" in str(caught.value) and variable not in str(caught.value)
