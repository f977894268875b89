"""The commands ``editr1 curate``, ``editr1 sft`` and so on, which run a single stage without a run file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.common import ConfigOption, ReplaceOption, SetOption, StopFlag, StoreOption, command_line, reporting
from editr1.terminal.text import echo

Out = Annotated[Path, typer.Option("--out", help="Folder for the outputs and all other files of the stage.")]
Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Random seed.")]
Processes = Annotated[
    int, typer.Option(min=1, max=64, help="Number of processes on this machine. With GPUs, each process uses one.")
]
RunNameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of the run in the artifact store.  [default: the name of the folder --out]"),
]

_REFERENCE = "a folder, path:DIR, sha256:DIGEST, run:RUN/STAGE/OUTPUT, hub:NAME@REVISION or builtin:NAME"

Experts = Annotated[
    str | None,
    typer.Option(
        help=f"Folder with experts.jsonl, examples of principles written by experts: {_REFERENCE}.  [default: examples of this package]"
    ),
]


def register(app: typer.Typer) -> None:
    """Add the six commands to ``app``."""
    for command in (curate, sft, gcpo, serve, grpo, evaluate):
        app.command()(command)


def curate(
    out: Out,
    data: Annotated[
        str | None, typer.Option(help=f"Output of editr1 data import: {_REFERENCE}.  [default: the shapes dataset]")
    ] = None,
    experts: Experts = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    store: StoreOption = None,
    name: RunNameOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Create the training data: edit cases with principles, preference pairs, and SFT rows with reasoning traces.

    Example: editr1 curate --data ./imported --out runs/curation --set curation.variant=T+V
    """
    _run_stage(
        "curate", {"data": data, "experts": experts}, _Options(out, config, overrides, seed, store, name, replace)
    )


def sft(
    model: Annotated[str, typer.Option(help=f"Base verifier: {_REFERENCE}.")],
    out: Out,
    rows: Annotated[str | None, typer.Option(help=f"SFT rows: {_REFERENCE}.")] = None,
    pairs: Annotated[
        str | None,
        typer.Option(
            help="Preference pairs, instead of --rows. The training data are sampled traces that agree with the pairs."
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    processes: Processes = 1,
    store: StoreOption = None,
    name: RunNameOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Train a verifier on reasoning traces (SFT).

    Example: editr1 sft --rows runs/curation/outputs/rows --model builtin:shapes-verifier --out runs/sft
    """
    _run_stage(
        "sft",
        {"rows": rows, "pairs": pairs, "model": model},
        _Options(out, config, overrides, seed, store, name, replace, processes),
    )


def gcpo(
    pairs: Annotated[str, typer.Option(help=f"Preference pairs: {_REFERENCE}.")],
    model: Annotated[str, typer.Option(help=f"Verifier after SFT: {_REFERENCE}.")],
    out: Out,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    processes: Processes = 1,
    store: StoreOption = None,
    name: RunNameOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Train a verifier on human preference pairs (GCPO).

    Example: editr1 gcpo --pairs runs/curation/outputs/pairs --model runs/sft/outputs/model --out runs/gcpo
    """
    _run_stage(
        "gcpo",
        {"pairs": pairs, "model": model},
        _Options(out, config, overrides, seed, store, name, replace, processes),
    )


def serve(
    model: Annotated[str, typer.Option(help=f"Verifier: {_REFERENCE}.")],
    out: Out = Path("runs/serve"),
    config: ConfigOption = None,
    overrides: SetOption = None,
    store: StoreOption = None,
) -> None:
    """Serve a verifier as a reward server over HTTP until the command is interrupted.

    Example: editr1 serve --model runs/gcpo/outputs/model --set port=8080
    """
    from editr1.launch.single_stage import serve_in_process, stage_settings
    from editr1.runs.kinds import Kind

    with reporting():
        settings = stage_settings(Kind.SERVE, config, overrides or [], os.environ)
        serve_in_process(_reference(model), settings, folder=out, store=store)


def grpo(
    cases: Annotated[str, typer.Option(help=f"Edit cases with principles: {_REFERENCE}.")],
    editor: Annotated[str, typer.Option(help=f"Editor to train: {_REFERENCE}.")],
    reward: Annotated[str, typer.Option(help="Addresses of the reward servers, separated by commas.")],
    out: Out,
    reward_digest: Annotated[
        str | None,
        typer.Option(
            help="Digest of the model at --reward, for servers that do not report it: sha256:<64 hex digits>."
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    processes: Processes = 1,
    store: StoreOption = None,
    name: RunNameOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Train an image editor with Flow-GRPO. A reward server scores its edits, and the scores are the rewards.

    Example: editr1 grpo --cases runs/curation/outputs/cases --editor builtin:shapes-editor
    --reward http://127.0.0.1:8080 --out runs/grpo
    """
    _run_stage(
        "grpo",
        {"cases": cases, "editor": editor},
        _Options(out, config, overrides, seed, store, name, replace, processes),
        reward,
        reward_digest,
    )


def evaluate(
    out: Out,
    pairs: Annotated[str | None, typer.Option(help=f"Held-out preference pairs: {_REFERENCE}.")] = None,
    cases: Annotated[str | None, typer.Option(help=f"Held-out edit cases: {_REFERENCE}.")] = None,
    rl: Annotated[str | None, typer.Option(help=f"Verifier after GCPO: {_REFERENCE}.")] = None,
    before: Annotated[str | None, typer.Option(help=f"Editor before RL: {_REFERENCE}.")] = None,
    after: Annotated[str | None, typer.Option(help=f"Editor after RL: {_REFERENCE}.")] = None,
    sft: Annotated[str | None, typer.Option(help=f"Verifier after SFT: {_REFERENCE}.")] = None,
    editscore: Annotated[
        str | None, typer.Option(help="Folder of the benchmark EditReward-Bench by EditScore.")
    ] = None,
    tiger: Annotated[str | None, typer.Option(help="Folder of the benchmark EditReward-Bench by TIGER-Lab.")] = None,
    gedit: Annotated[
        str | None, typer.Option(help="Folder of the benchmark GEdit-Bench, with its judge's prompts in prompts.json.")
    ] = None,
    imgedit: Annotated[str | None, typer.Option(help="Folder of the benchmark ImgEdit-Bench.")] = None,
    experts: Experts = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: Seed = 0,
    store: StoreOption = None,
    name: RunNameOption = None,
    replace: ReplaceOption = False,
) -> None:
    """Evaluate verifiers and editors on held-out data and on public benchmarks.

    Verifiers (--sft, --rl) are evaluated on --pairs, and editors (--before, --after) on --cases.

    Public benchmarks need a VLM that writes principles and rates edits: --set
    public.labeller.endpoints.default.base_url=URL --set public.labeller.decomposer.model=NAME --set
    public.judge.model=NAME

    Example: editr1 evaluate --pairs outputs/pairs-test --cases outputs/cases-test --sft sft/outputs/model
    --rl gcpo/outputs/model --before builtin:shapes-editor --after grpo/outputs/model --out runs/evaluation
    """
    inputs = {"pairs": pairs, "cases": cases, "sft": sft, "rl": rl, "before": before, "after": after}
    inputs |= {"editscore": editscore, "tiger": tiger, "gedit": gedit, "imgedit": imgedit, "experts": experts}
    _run_stage("evaluate", inputs, _Options(out, config, overrides, seed, store, name, replace))


def _reference(text: str) -> str:
    from editr1.runs.references import Scheme

    return text if text.partition(":")[0] in set(Scheme) else f"path:{text}"


@dataclass(frozen=True)
class _Options:
    out: Path
    config: Path | None
    overrides: list[str] | None
    seed: int
    store: str | None
    name: str | None
    replace: bool
    processes: int = 1


def _run_stage(
    kind: str,
    inputs: dict[str, str | None],
    options: _Options,
    reward: str | None = None,
    reward_digest: str | None = None,
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
            reward_digest=reward_digest,
            config=stage_settings(Kind(kind), options.config, options.overrides or [], os.environ),
            processes=options.processes,
        )
        folders = run_single_stage(
            stage,
            seed=options.seed,
            folder=options.out,
            store=options.store,
            command=command_line(),
            observer=view,
            should_stop=StopFlag(),
            name=options.name,
            replace=options.replace,
        )
        for output, folder in folders.items():
            echo(f"{output}: {folder}")
