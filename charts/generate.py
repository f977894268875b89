"""Write each chart's values.yaml, values.schema.json and README.md from the typed values in ``editr1/config``.

    python charts/generate.py            # write
    python charts/generate.py --check    # exit 1 when a file on disk is another

The defaults of a stage's own settings (``config``) stay in the package.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from editr1.config.chart import StageValues
from editr1.config.chart_reward import RewardValues
from editr1.config.chart_training import CurateValues, EvaluateValues, GcpoValues, GrpoValues, SftValues
from editr1.runs.kinds import KINDS, Kind

HERE = Path(__file__).parent
CHARTS: dict[str, type[StageValues]] = {
    "curate": CurateValues,
    "sft": SftValues,
    "gcpo": GcpoValues,
    "reward": RewardValues,
    "grpo": GrpoValues,
    "evaluate": EvaluateValues,
}
CONFIG = "config"
"""The stage's own settings: their defaults stay in the package, so that a values file holds what differs."""
EXAMPLES = {
    "curate": "--set store.url=s3://my-bucket/editr1",
    "sft": "--set store.url=s3://my-bucket/editr1 --set inputs.rows=sha256:... --set inputs.model=hub:Qwen/Qwen2.5-VL-7B-Instruct",
    "gcpo": "--set store.url=s3://my-bucket/editr1 --set inputs.pairs=sha256:... --set inputs.model=sha256:...",
    "reward": "--set store.url=s3://my-bucket/editr1 --set inputs.model=sha256:...",
    "grpo": "--set store.url=s3://my-bucket/editr1 --set inputs.cases=sha256:... --set inputs.editor=sha256:... --set reward.release=rrm",
    "evaluate": "-f evaluate.yaml",
}


def kind_of(chart: str) -> Kind:
    """The kind of stage that a chart launches."""
    return Kind.SERVE if chart == "reward" else Kind(chart)


def files_of(chart: str) -> dict[Path, str]:
    """Path to text of the three generated files of a chart."""
    model = CHARTS[chart]
    folder = HERE / chart
    return {
        folder / "values.yaml": "\n".join(_values(model, _defaults(chart), 0)).lstrip("\n") + "\n",
        folder / "values.schema.json": json.dumps(_schema(model, kind_of(chart)), indent=1) + "\n",
        folder / "README.md": _readme(chart, model),
    }


def _defaults(chart: str) -> dict[str, Any]:
    values = CHARTS[chart]().model_dump(mode="json", by_alias=True)
    values["image"]["repository"] = f"editr1/{chart}"
    values[CONFIG] = {}
    return values


def _values(model: type[BaseModel], defaults: dict[str, Any], depth: int) -> Iterator[str]:
    pad = "  " * depth
    for name, field in model.model_fields.items():
        key = field.alias or name
        if depth == 0:
            yield ""
        for line in (field.description or "").splitlines():
            yield f"{pad}# {line}"
        inner = field.annotation
        if key != CONFIG and isinstance(inner, type) and issubclass(inner, BaseModel):
            yield f"{pad}{key}:"
            yield from _values(inner, defaults[key], depth + 1)
        else:
            yield f"{pad}{key}: {json.dumps(defaults[key])}"


def _schema(model: type[StageValues], kind: Kind) -> dict[str, Any]:
    schema = _without_titles(model.model_json_schema(by_alias=True, mode="validation"))
    reference = schema["properties"]["inputs"]["additionalProperties"]
    schema["properties"]["inputs"] |= {
        "additionalProperties": False,
        "properties": {item.name: reference | {"description": item.what} for item in KINDS[kind].inputs},
    }
    # Helm hands a library chart's values down under its name, and global to everyone.
    schema["properties"] |= {
        "global": {"type": "object", "description": "Helm's global values; unused."},
        "editr1-lib": {"type": "object", "description": "Helm puts the library chart's values here; unused."},
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _without_titles(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_titles(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_titles(item) for item in node] if isinstance(node, list) else node


def _readme(chart: str, model: type[StageValues]) -> str:
    about = yaml.safe_load((HERE / chart / "Chart.yaml").read_text())["description"]
    lines = [f"# charts/{chart}", "", about, "", f"    helm install my-{chart} charts/{chart} {EXAMPLES[chart]}", ""]
    lines += ["| value | default | what it is |", "|---|---|---|"]
    for path, default, what in _rows(model, _defaults(chart), ""):
        shown = json.dumps(default).replace("|", "\\|")
        lines.append(f"| `{path}` | `{shown}` | {' '.join(what.split()).replace('|', chr(92) + '|')} |")
    lines += ["", f"`config` takes the settings of the stage: `editr1 config schema {kind_of(chart)}` lists them.", ""]
    return "\n".join([*lines, "Generated by `python charts/generate.py`."]) + "\n"


def _rows(model: type[BaseModel], defaults: dict[str, Any], head: str) -> Iterator[tuple[str, Any, str]]:
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner = field.annotation
        if key != CONFIG and isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _rows(inner, defaults[key], f"{head}{key}.")
        else:
            yield f"{head}{key}", defaults[key], field.description or ""


def main() -> int:
    """Write the files, or with ``--check`` name those that differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for chart in CHARTS:
        for path, text in files_of(chart).items():
            if not path.is_file() or path.read_text() != text:
                stale.append(path)
                if not check:
                    path.write_text(text)
    for path in stale:
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(HERE.parent)}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
