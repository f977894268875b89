"""``editr1 config``: print the schemas of settings, or a run file with all defaults filled in."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from editr1.cli.command import CommandApp
from editr1.cli.common import RunFileArgument, SetOption, reporting
from editr1.terminal.text import echo

app = CommandApp(no_args_is_help=True, help="Settings: print their schemas, or a run file with all defaults.")


@app.command()
def schema(
    kind: Annotated[
        str, typer.Argument(help="'run' (a run file) or a kind of stage: curate, sft, gcpo, serve, grpo or evaluate.")
    ] = "run",
    values: Annotated[
        bool,
        typer.Option(
            "--values", help="Print the schema of the Helm values of the stage's chart: nodes, GPUs, store and so on."
        ),
    ] = False,
) -> None:
    """Print the JSON Schema of a run file, of the settings of a stage, or of the values of its chart.

    Example: editr1 config schema grpo > grpo.schema.json
    """
    from editr1.config.loader import ConfigError
    from editr1.launch.kubernetes.values import MODELS, kind_of
    from editr1.runs.kinds import KINDS, Kind
    from editr1.runs.spec import RunSpec

    with reporting():
        if values:
            echo(json.dumps(MODELS[kind_of(kind)].model_json_schema(by_alias=True), indent=2))
            return
        if kind != "run" and kind not in set(Kind):
            raise ConfigError(f"{kind!r} has no schema; use 'run' or one of {', '.join(Kind)}")
        model = RunSpec if kind == "run" else KINDS[Kind(kind)].settings_model()
        echo(json.dumps(model.model_json_schema(by_alias=True), indent=2))


@app.command()
def show(file: RunFileArgument, overrides: SetOption = None) -> None:
    """Print a run file with all defaults filled in, including the run's seed in the settings of the stages.

    Example: editr1 config show manifests/samples/quickstart.yaml --set gcpo.learning_rate=5e-5
    """
    import yaml

    from editr1.runs.resolve import full_config
    from editr1.runs.spec import load_run

    with reporting():
        spec = load_run(file, overrides or [], os.environ)
    shown = spec.model_dump(mode="json", by_alias=True)
    for stage, typed in zip(shown["spec"]["stages"], spec.spec.stages, strict=True):
        stage["config"] = full_config(typed.kind, typed.config, spec.spec.seed)
    echo(yaml.safe_dump(shown, sort_keys=False, width=120).rstrip())
