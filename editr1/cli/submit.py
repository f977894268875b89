"""``editr1 submit`` and ``editr1 render``: run one stage on a cluster, or print the Kubernetes objects of its chart."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.common import (
    ClusterOption,
    NamespaceOption,
    ReplaceOption,
    SetOption,
    StopFlag,
    cluster_overrides,
    command_line,
    reporting,
)
from editr1.errors import ExitCode
from editr1.terminal.text import echo

Stage = Annotated[str, typer.Argument(help="Chart of the stage: curate, sft, gcpo, reward, grpo or evaluate.")]
Values = Annotated[
    Path | None,
    typer.Option(
        "-f",
        "--values",
        help="YAML file with Helm values of the chart. For the schema, run: editr1 config schema STAGE --values",
    ),
]
Name = Annotated[
    str | None,
    typer.Option("--name", help="Name of the run and of the Helm release.  [default: the name of the chart]"),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command()(submit)
    app.command()(render)


def submit(
    stage: Stage,
    values: Values = None,
    name: Name = None,
    overrides: SetOption = None,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the Kubernetes objects without installing them.")
    ] = False,
    replace: ReplaceOption = False,
    follow: Annotated[bool, typer.Option("--follow", help="Show progress until the stage has ended.")] = False,
) -> None:
    """Run a stage on the cluster by installing its Helm chart. References to inputs are resolved to digests first.

    If the same job is already running, the command attaches to it. A job whose settings or inputs differ from those
    recorded under its name is rejected. In this case, choose another --name, or use --replace.

    Example: editr1 submit grpo -f grpo.yaml --name my-grpo --follow
    """
    import os

    from editr1.cli.follow import follow_releases
    from editr1.launch.kubernetes.connect import connect, load_cluster
    from editr1.launch.kubernetes.submit import prepare, read_values, save_spans
    from editr1.launch.kubernetes.submit import submit as send
    from editr1.launch.kubernetes.values import chart_of, kind_of
    from editr1.telemetry import Span, configure, flush, span, traceparent

    with reporting():
        kind = kind_of(stage)
        connection = connect(load_cluster(cluster, cluster_overrides(namespace), os.environ))
        release = name or chart_of(kind)
        spans = Path(tempfile.mkdtemp()) / "spans.jsonl"
        configure("editr1-submit", spans, **{"editr1.run": release})
        with span(Span.RUN, run=release):
            read = read_values(kind, release, connection.config, values, overrides or [], os.environ)
            prepared = prepare(kind, release, read, connection, traceparent=traceparent(), upload=not dry_run)
            if dry_run:
                echo(_as_yaml(prepared.objects))
                return
            sent = send(prepared, connection, command_line(), replace=replace)
            word = "attached to" if sent.attached else "submitted"
            where = connection.api.namespace
            echo(f"{word} {release} in namespace {where}: stage {sent.job.stage} of run {sent.job.run}")
            echo(f"  editr1 status {release} -n {where}\n  editr1 logs {release} -n {where} -f")
            code = follow_releases(connection, [release], StopFlag()) if follow else ExitCode.DONE
        flush()
        if not sent.attached:
            save_spans(connection, sent.job, spans)
        shutil.rmtree(spans.parent)
    raise typer.Exit(code)


def render(
    stage: Stage,
    values: Values = None,
    name: Name = None,
    overrides: SetOption = None,
    cluster: ClusterOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """Print the Kubernetes objects of a stage, as rendered by its Helm chart. This command needs no cluster.

    Example: editr1 render sft -f sft.yaml --set nodes=2
    """
    import os

    from editr1.launch.kubernetes.connect import load_cluster
    from editr1.launch.kubernetes.helm import Helm
    from editr1.launch.kubernetes.submit import read_values
    from editr1.launch.kubernetes.submit import render as render_stage
    from editr1.launch.kubernetes.values import chart_of, kind_of

    with reporting():
        kind = kind_of(stage)
        release = name or chart_of(kind)
        config = load_cluster(cluster, cluster_overrides(namespace), os.environ)
        read = read_values(kind, release, config, values, overrides or [], os.environ)
        objects = render_stage(kind, release, read, config, config.namespace or "default", Helm())
    echo(_as_yaml(objects))


def _as_yaml(objects: list[dict[str, object]]) -> str:
    import yaml

    return "---\n" + yaml.safe_dump_all(objects, sort_keys=False, width=120).rstrip()
