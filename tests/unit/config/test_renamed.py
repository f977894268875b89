"""Former names of settings are rejected with an error that contains the replacement."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest
from pydantic import BaseModel

import editr1.config
from editr1.config.base import Settings
from editr1.config.gcpo import GcpoConfig
from editr1.config.loader import ConfigError, load_settings, validate
from editr1.config.renamed import RENAMED, Removed, Renamed, renamed
from editr1.config.sft import SftConfig
from editr1.runs.spec import RunSpec

for module in pkgutil.iter_modules(editr1.config.__path__, "editr1.config."):
    importlib.import_module(module.name)
for other in ("editr1.runs.job", "editr1.verifier.prompt"):
    importlib.import_module(other)


def models(root: type[BaseModel] = Settings) -> dict[str, type[BaseModel]]:
    """Return every settings model by class name."""
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= models(child)
    return found


FORMER = json.loads((Path(__file__).parent / "former_fields.json").read_text())
"""Former names of settings by current model name. Inherited settings are listed under the parent model."""
ENTRIES = [(name, old, entry) for name, table in RENAMED.items() for old, entry in table.items()]


@pytest.mark.parametrize(("name", "old", "entry"), ENTRIES, ids=[f"{name}.{old}" for name, old, _ in ENTRIES])
def test_former_name_is_rejected_with_the_current_name(name: str, old: str, entry: Renamed | Removed) -> None:
    model = models()[name]
    keys = {field.alias or key for key, field in model.model_fields.items()}
    for child in model.__subclasses__():
        keys |= {field.alias or key for key, field in child.model_fields.items()}
    assert old not in keys
    with pytest.raises(ConfigError) as caught:
        validate(model, {old: 1})
    (line,) = [line for line in str(caught.value).splitlines() if line.startswith(f"{old}:")]
    if isinstance(entry, Removed):
        assert line == f"{old}: removed; {entry.instead}"
        return
    assert entry.new in keys
    assert line.startswith(f"{old}: renamed to {entry.new}") and entry.reason in line


@pytest.mark.parametrize("name", FORMER)
def test_every_former_name_is_still_a_setting_or_rejected_with_its_replacement(name: str) -> None:
    model = models()[name]
    keys = {field.alias or key for key, field in model.model_fields.items()}
    assert [old for old in FORMER[name] if old not in keys and renamed(model, old) is None] == []


def test_subclass_inherits_the_former_names() -> None:
    assert renamed(SftConfig, "weights") == renamed(GcpoConfig, "weights") != None  # noqa: E711
    assert renamed(SftConfig, "epsilon") is None


def test_bfloat16_weights_are_rejected_with_the_reason() -> None:
    with pytest.raises(ConfigError, match=r"renamed to precision .*pure bfloat16 weights do not learn"):
        load_settings(SftConfig, overrides=["weights=bfloat16"])


def test_error_for_a_former_name_contains_the_environment_variable() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(SftConfig, env={"EDITR1_SFT__STEPS": "3"}, env_prefix="EDITR1_SFT__")
    assert str(caught.value) == "steps (environment variable EDITR1_SFT__STEPS): renamed to max_steps"


def test_former_name_of_a_stage_field_is_rejected_in_a_run_file() -> None:
    stage = {"name": "a", "kind": "curate", "pending_s": 3}
    data = {
        "apiVersion": "editr1.dev/v1alpha1",
        "kind": "EditRun",
        "metadata": {"name": "x"},
        "spec": {"stages": [stage]},
    }
    with pytest.raises(ConfigError, match=r"spec\.stages\.0\.pending_s: renamed to pending_timeout_seconds"):
        validate(RunSpec, data)
