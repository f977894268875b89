import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editr1.config.loader import ConfigError
from editr1.runs.references import parse_reference
from editr1.runs.spec import load_run

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"


def sample() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((SAMPLES / "quickstart.yaml").read_text())
    return data


def write(tmp_path: Path, data: object) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


@pytest.mark.parametrize("file", sorted(SAMPLES.glob("*.yaml")), ids=lambda p: p.name)
def test_every_sample_is_a_valid_run_file(file: Path) -> None:
    assert load_run(file).spec.stages


def test_overrides_apply_to_stages_and_to_the_run(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, sample()), ["spec.seed=7", "sft.learning_rate=2e-4", "metadata.name=mine"])
    assert run.spec.seed == 7
    assert run.metadata.name == "mine"
    assert next(s for s in run.spec.stages if s.name == "sft").config["learning_rate"] == 2e-4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda d: d["spec"]["stages"][1]["inputs"].pop("rows"),
            ["sft.inputs: an sft stage requires either rows or pairs"],
        ),
        (lambda d: d["spec"]["stages"][1]["inputs"].pop("model"), ["sft.inputs.model: missing"]),
        (lambda d: d["spec"]["stages"][5]["inputs"].pop("pairs"), ["evaluate.inputs: pairs: missing; set"]),
        (lambda d: d["spec"]["stages"][1]["inputs"].update(rows="stage:nope/rows"), ["no earlier stage", "nope"]),
        (lambda d: d["spec"]["stages"][1]["inputs"].update(rows="stage:curate/row"), ["has no output 'row'", "rows"]),
        (lambda d: d["spec"]["stages"][1]["inputs"].update(rows="http://x/y"), ["http://x/y", "sha256:"]),
        (lambda d: d["spec"]["stages"][1]["inputs"].update(rows="hub:a/b"), ["cannot come from the hub"]),
        (
            lambda d: d["spec"]["stages"][1].update(config={"learning_rat": 1}),
            ["sft.config", "did you mean 'learning_rate'"],
        ),
        (lambda d: d["spec"]["stages"][1].update(name="curate"), ["already used by an earlier stage"]),
        (lambda d: d["spec"]["stages"][4].update(reward="sft"), ["reward", "serve stage"]),
        (
            lambda d: d["spec"]["stages"][4].update(reward="http://127.0.0.1:8000,http://127.0.0.1:80a0"),
            ["reward", "'http://127.0.0.1:80a0' is not a valid http(s) address"],
        ),
        (lambda d: d["spec"]["stages"][1].update(reward="serve"), ["does not use a reward service"]),
        (lambda d: d.update(kind="Job"), ["kind", "EditRun"]),
        (lambda d: d["spec"].update(sead=1), ["spec.sead", "did you mean 'seed'"]),
        (lambda d: d["metadata"].update(name="A b"), ["metadata.name", "A b"]),
    ],
)
def test_invalid_run_file_is_rejected_with_field_and_reason(tmp_path: Path, change: Any, words: list[str]) -> None:
    data = sample()
    change(data)
    with pytest.raises(ConfigError) as caught:
        load_run(write(tmp_path, data))
    for word in words:
        assert word in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(string.printable, max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_letters, max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(["apiVersion", "metadata", "spec", "stages", "stage", "inputs", "config"]), what=JSON)
def test_arbitrary_values_are_accepted_or_rejected_with_a_message(tmp_path: Path, where: str, what: Any) -> None:
    data = sample()
    if where in data:
        data[where] = what
    elif where == "stages":
        data["spec"]["stages"] = what
    elif where == "stage":
        data["spec"]["stages"][1] = what
    else:
        data["spec"]["stages"][1][where] = what
    try:
        load_run(write(tmp_path, data))
    except ConfigError as error:
        assert str(error)


@pytest.mark.parametrize("text", ["", "sha256:xyz", "stage:a", "builtin:nope", "hub:x", "ftp:a/b", "path:"])
def test_malformed_reference_is_rejected(text: str) -> None:
    with pytest.raises(ConfigError, match="is not valid; use one of these forms"):
        parse_reference(text)
