"""Generate values.yaml, values.schema.json and README.md of each chart from the pydantic models in ``editr1/config``.

The CustomResourceDefinition of EditRun in the operator's chart is generated from the models of the run file.

    python charts/generate.py            # write the files
    python charts/generate.py --check    # exit with 1 if a generated file is out of date

The defaults of the stage settings (``config``) are not written to the charts, so that only the package defines them.
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

from editr1.config.chart_operator import OperatorValues
from editr1.config.loader import read_yaml
from editr1.launch.kubernetes.values import MODELS, chart_of, kind_of
from editr1.runs.kinds import KINDS, Kind
from editr1_operator.crd import custom_resource_definition

HERE = Path(__file__).parent
OPERATOR = "operator"
CHARTS: dict[str, type[BaseModel]] = {
    **{chart_of(kind): model for kind, model in MODELS.items()},
    OPERATOR: OperatorValues,
}
CONFIG = "config"
"""Key of the stage settings in the values of a chart."""
EXAMPLES = {
    "curate": "--set store.url=s3://my-bucket/editr1",
    "sft": "--set store.url=s3://my-bucket/editr1 --set inputs.rows=sha256:... --set inputs.model=hub:Qwen/Qwen2.5-VL-7B-Instruct",
    "gcpo": "--set store.url=s3://my-bucket/editr1 --set inputs.pairs=sha256:... --set inputs.model=sha256:...",
    "reward": "--set store.url=s3://my-bucket/editr1 --set inputs.model=sha256:...",
    "grpo": "--set store.url=s3://my-bucket/editr1 --set inputs.cases=sha256:... --set inputs.editor=sha256:... --set reward.release=rrm",
    "evaluate": "-f evaluate.yaml",
    "operator": "-n editr1-system --create-namespace --set namespaces={editr1}",
}


def files_of(chart: str) -> dict[Path, str]:
    """Return the files that are generated for a chart, as a mapping from path to text."""
    model = CHARTS[chart]
    folder = HERE / chart
    schema = _schema(model) if chart == OPERATOR else _stage_schema(model, kind_of(chart))
    files = {
        folder / "values.yaml": "\n".join(_values(model, _defaults(chart), 0)).lstrip("\n") + "\n",
        folder / "values.schema.json": json.dumps(schema, indent=1) + "\n",
        folder / "README.md": _readme(chart, model),
    }
    if chart == OPERATOR:
        files[folder / "files/editruns.yaml"] = yaml.safe_dump(custom_resource_definition(), sort_keys=False, width=120)
    return files


def _defaults(chart: str) -> dict[str, Any]:
    values = CHARTS[chart]().model_dump(mode="json", by_alias=True)
    values["image"]["repository"] = f"editr1/{chart}"
    if chart != OPERATOR:
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


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = _without_titles(model.model_json_schema(by_alias=True, mode="validation"))
    schema["properties"]["global"] = {
        "type": "object",
        "description": "Helm passes global values to every chart. This chart does not use them.",
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _stage_schema(model: type[BaseModel], kind: Kind) -> dict[str, Any]:
    schema = _schema(model)
    reference = schema["properties"]["inputs"]["additionalProperties"]
    schema["properties"]["inputs"] |= {
        "additionalProperties": False,
        "properties": {item.name: reference | {"description": item.what} for item in KINDS[kind].inputs},
    }
    lib = {
        "type": "object",
        "description": "Helm passes these values to the library chart editr1-lib, which does not use them.",
    }
    schema["properties"]["editr1-lib"] = lib
    return schema


def _without_titles(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _without_titles(value)
            for key, value in node.items()
            if not (key == "title" and isinstance(value, str))
        }
    return [_without_titles(item) for item in node] if isinstance(node, list) else node


def _readme(chart: str, model: type[BaseModel]) -> str:
    about = read_yaml(HERE / chart / "Chart.yaml")["description"]
    lines = [f"# charts/{chart}", "", about, "", f"    helm install my-{chart} charts/{chart} {EXAMPLES[chart]}", ""]
    lines += ["| Value | Default | Description |", "|---|---|---|"]
    for path, default, what in _rows(model, _defaults(chart), ""):
        shown = json.dumps(default).replace("|", "\\|")
        lines.append(f"| `{path}` | `{shown}` | {' '.join(what.split()).replace('|', chr(92) + '|')} |")
    lines.append("")
    if chart != OPERATOR:
        lines += [
            f"`config` contains the settings of the stage. `editr1 config schema {kind_of(chart)}` lists them.",
            "",
        ]
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
    """Write the files that differ from the generated text. With ``--check``, only print their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for chart in CHARTS:
        for path, text in files_of(chart).items():
            if not path.is_file() or path.read_text() != text:
                stale.append(path)
                if not check:
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(text)
    for path in stale:
        name = path.relative_to(HERE.parent)
        print(f"{name} is out of date; run python charts/generate.py" if check else f"wrote {name}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
