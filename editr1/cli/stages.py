"""One command a stage: the same process that a run starts, on inputs named by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.common import ConfigOption, SetOption, StopFlag, StoreOption, command_line, reporting

Out = Annotated[Path, typer.Option("--out", help="Folder for the run's files and, at the end, the outputs.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of every random choice.")]
Processes = Annotated[int, typer.Option(min=1, max=64, help="Processes (GPUs) on this machine.")]

_REFERENCE = (
    "path:DIR, sha256:DIGEST, run:RUN/STAGE/OUTPUT, hub:NAME@REVISION or builtin:NAME; a bare folder is taken as path:."
)


def register(app: typer.Typer) -> None:
    """Add the six commands to the application."""
    for command in (curate, sft, gcpo, serve, grpo, evaluate):
        app.command()(command)


def curate(
    out: Out,
    data: Annotated[
        str | None, typer.Option(help=f"Imported pictures ({_REFERENCE}). Without it: the shapes world.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    store: StoreOption = None,
) -> None:
    """Write principles and verified traces for edit cases.

    Example: editr1 curate --data ./imported --out runs/curation --set curation.variant=T+V
    """
    _run_stage("curate", {"data": data}, out, config, overrides, seed, 1, store)


def sft(
    model: Annotated[str, typer.Option(help=f"Base verifier ({_REFERENCE})")],
    out: Out,
    rows: Annotated[str | None, typer.Option(help=f"SFT rows ({_REFERENCE})")] = None,
    pairs: Annotated[
        str | None, typer.Option(help="In place of rows: pairs that pick among the model's own traces.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    processes: Processes = 1,
    store: StoreOption = None,
) -> None:
    """Train the verifier on verified traces.

    Example: editr1 sft --rows runs/curation/outputs/rows --model builtin:shapes-verifier --out runs/sft
    """
    _run_stage("sft", {"rows": rows, "pairs": pairs, "model": model}, out, config, overrides, seed, processes, store)


def gcpo(
    pairs: Annotated[str, typer.Option(help=f"Preference pairs ({_REFERENCE})")],
    model: Annotated[str, typer.Option(help=f"Verifier after SFT ({_REFERENCE})")],
    out: Out,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    processes: Processes = 1,
    store: StoreOption = None,
) -> None:
    """Train the verifier on human preference pairs (GCPO).

    Example: editr1 gcpo --pairs runs/curation/outputs/pairs --model runs/sft/outputs/model --out runs/gcpo
    """
    _run_stage("gcpo", {"pairs": pairs, "model": model}, out, config, overrides, seed, processes, store)


def serve(
    model: Annotated[str, typer.Option(help=f"Verifier ({_REFERENCE})")],
    out: Out = Path("runs/serve"),
    config: ConfigOption = None,
    overrides: SetOption = None,
    store: StoreOption = None,
) -> None:
    """Serve a verifier as the reward API until interrupted.

    Example: editr1 serve --model runs/gcpo/outputs/model --set port=8080
    """
    from editr1.launch.single_stage import serve_in_process, stage_settings
    from editr1.runs.kinds import Kind

    with reporting():
        settings = stage_settings(Kind.SERVE, config, overrides or [], os.environ)
        serve_in_process(_reference(model), settings, folder=out, store=store)


def grpo(
    cases: Annotated[str, typer.Option(help=f"Edit cases with principles ({_REFERENCE})")],
    editor: Annotated[str, typer.Option(help=f"Editor to train ({_REFERENCE})")],
    reward: Annotated[str, typer.Option(help="Addresses of the reward service, joined by commas.")],
    out: Out,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    processes: Processes = 1,
    store: StoreOption = None,
) -> None:
    """Train an image editor on the reward service (Flow-GRPO).

    Example: editr1 grpo --cases runs/curation/outputs/cases --editor builtin:shapes-editor
    --reward http://127.0.0.1:8080 --out runs/grpo
    """
    _run_stage("grpo", {"cases": cases, "editor": editor}, out, config, overrides, seed, processes, store, reward)


def evaluate(
    out: Out,
    pairs: Annotated[str | None, typer.Option(help=f"Held-out preference pairs ({_REFERENCE})")] = None,
    cases: Annotated[str | None, typer.Option(help=f"Held-out edit cases ({_REFERENCE})")] = None,
    rl: Annotated[str | None, typer.Option(help=f"Verifier after GCPO ({_REFERENCE})")] = None,
    before: Annotated[str | None, typer.Option(help=f"Editor before RL ({_REFERENCE})")] = None,
    after: Annotated[str | None, typer.Option(help=f"Editor after RL ({_REFERENCE})")] = None,
    sft: Annotated[str | None, typer.Option(help=f"Verifier after SFT ({_REFERENCE})")] = None,
    editscore: Annotated[str | None, typer.Option(help="Folder of EditScore's EditReward-Bench.")] = None,
    tiger: Annotated[str | None, typer.Option(help="Folder of TIGER's EditReward-Bench.")] = None,
    gedit: Annotated[str | None, typer.Option(help="Folder of GEdit-Bench, the judge's prompts.json in it.")] = None,
    imgedit: Annotated[str | None, typer.Option(help="Folder of ImgEdit-Bench.")] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    store: StoreOption = None,
) -> None:
    """Measure verifiers and editors on held-out data, and on public sets where their folders are given.

    What is given is measured: verifiers need --pairs, editors --cases.

    Public sets need a VLM that writes principles and marks: --set public.labeller.endpoints.default.base_url=URL
    --set public.labeller.decomposer.model=NAME --set public.judge.model=NAME

    Example: editr1 evaluate --pairs outputs/pairs-test --cases outputs/cases-test --sft sft/outputs/model
    --rl gcpo/outputs/model --before builtin:shapes-editor --after grpo/outputs/model --out runs/evaluation
    """
    inputs = {"pairs": pairs, "cases": cases, "sft": sft, "rl": rl, "before": before, "after": after}
    inputs |= {"editscore": editscore, "tiger": tiger, "gedit": gedit, "imgedit": imgedit}
    _run_stage("evaluate", inputs, out, config, overrides, seed, 1, store)


def _reference(text: str) -> str:
    from editr1.runs.references import Scheme

    return text if text.partition(":")[0] in set(Scheme) else f"path:{text}"


def _run_stage(
    kind: str,
    inputs: dict[str, str | None],
    out: Path,
    config: Path | None,
    overrides: list[str] | None,
    seed: int,
    processes: int,
    store: str | None,
    reward: str | None = None,
) -> None:
    from editr1.cli.view import RunView
    from editr1.launch.single_stage import run_single_stage, stage_settings
    from editr1.runs.kinds import Kind
    from editr1.runs.spec import StageSpec

    with reporting(), RunView() as view:
        stage = StageSpec(
            name=kind,
            kind=Kind(kind),
            inputs={name: _reference(text) for name, text in inputs.items() if text is not None},
            reward=reward,
            config=stage_settings(Kind(kind), config, overrides or [], os.environ),
            processes=processes,
        )
        folders = run_single_stage(
            stage,
            seed=seed,
            folder=out,
            store=store,
            command=command_line(),
            observer=view,
            should_stop=StopFlag(),
        )
        for name, folder in folders.items():
            typer.echo(f"{name}: {folder}")
