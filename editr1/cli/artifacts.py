"""``editr1 artifacts``: list, show, verify, download and upload artifacts, and show their lineage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editr1.cli.command import CommandApp
from editr1.cli.common import ClusterOption, fail, open_store_option, reporting
from editr1.errors import ExitCode
from editr1.terminal.text import echo

if TYPE_CHECKING:
    from editr1.artifacts import ArtifactStore, Manifest

app = CommandApp(no_args_is_help=True, help="Artifacts in a store: list, show, verify, download and upload them.")

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="EDITR1_STORE",
        help="Artifact store: file:///path, s3://bucket/prefix or a local folder."
        "  [default: the store of the cluster settings]",
    ),
]
Digest = Annotated[
    str, typer.Argument(help="Digest of the artifact (sha256:DIGEST), or a prefix that is unique in the store.")
]


@app.command("ls")
def list_artifacts(
    store: Store = None,
    cluster: ClusterOption = None,
    kind: Annotated[str | None, typer.Option(help="List only artifacts of this kind.")] = None,
) -> None:
    """List the artifacts in a store with their kind, stage, run, number of files and size.

    Example: editr1 artifacts ls --store runs/quickstart/store
    """
    from rich.table import Table

    from editr1.terminal.console import output_console

    with reporting():
        table = Table("digest", "kind", "stage", "run", "files", "MB")
        for item in _open(store, cluster).list():
            if kind in (None, item.kind):
                size = sum(file.size for file in item.files) / 1e6
                table.add_row(item.digest[:19], item.kind, item.stage, item.run, str(len(item.files)), f"{size:.2f}")
        output_console().print(table)


@app.command()
def show(digest: Digest, store: Store = None, cluster: ClusterOption = None) -> None:
    """Print the manifest of an artifact.

    Example: editr1 artifacts show sha256:1f2e --store runs/quickstart/store
    """
    with reporting():
        echo(_find(_open(store, cluster), digest).model_dump_json(indent=2))


@app.command()
def verify(digest: Digest, store: Store = None, cluster: ClusterOption = None) -> None:
    """Read all files of an artifact and verify their digests. Exits with 5 if a digest differs.

    Example: editr1 artifacts verify sha256:1f2e --store runs/quickstart/store
    """
    with reporting():
        opened = _open(store, cluster)
        problems = opened.verify(_find(opened, digest).digest)
    if problems:
        raise fail("\n".join(str(problem) for problem in problems), ExitCode.INPUT)
    echo("all files match their digests")


@app.command()
def pull(
    digest: Digest,
    folder: Annotated[Path, typer.Argument(help="Folder to download to.")],
    store: Store = None,
    cluster: ClusterOption = None,
) -> None:
    """Download an artifact to a folder. If a download was interrupted, the command resumes it.

    If the folder contains files that are not part of the artifact, the command exits with 2. Files that an earlier pull
    of another artifact wrote there are removed.

    Example: editr1 artifacts pull sha256:1f2e ./model --store s3://bucket/editr1
    """
    with reporting(folder):
        opened = _open(store, cluster)
        echo(opened.fetch(_find(opened, digest).digest, folder))


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Folder to upload.")],
    store: Store = None,
    cluster: ClusterOption = None,
    kind: Annotated[
        str, typer.Option(help="Kind of artifact: verifier, editor, rows, pairs, cases, import and so on.")
    ] = "import",
) -> None:
    """Upload a folder as an artifact and print its digest.

    Pickled files and damaged weights are rejected. If the artifact already exists, its damaged files in the store are
    replaced.

    Example: editr1 artifacts push ./my-verifier --kind verifier --store s3://bucket/editr1
    """
    from editr1.artifacts import open_store
    from editr1.artifacts.weights import check_model_folder
    from editr1.runs.find import parse_store

    with reporting():
        if not folder.is_dir():
            raise fail(f"{folder}: not a folder; give the path of the folder to upload", ExitCode.CONFIG)
        if kind != "checkpoint":  # The resume state of a trainer is not in safetensors format.
            check_model_folder(folder)
        new = store is not None and not store.startswith("s3://")  # If the store is a folder, it is created.
        opened = open_store(parse_store(store)) if store and new else _open(store, cluster)
        echo(opened.commit(folder, kind=kind, stage="push", repair=True).digest)


@app.command()
def lineage(digest: Digest, store: Store = None, cluster: ClusterOption = None) -> None:
    """Print the artifacts from which an artifact was made: its inputs, their inputs and so on.

    Example: editr1 artifacts lineage sha256:1f2e --store runs/quickstart/store
    """
    from rich.tree import Tree

    from editr1.terminal.console import output_console

    with reporting():
        opened = _open(store, cluster)
        first = _find(opened, digest)
        known = {item.digest: item for item in [first, *opened.lineage(first.digest)]}

    def grow(tree: Tree, manifest: Manifest) -> None:
        for parent in manifest.parents:
            if parent in known:
                grow(tree.add(_label(known[parent])), known[parent])
            else:
                tree.add(f"{parent[:19]} (not in this store)")

    tree = Tree(_label(first))
    grow(tree, first)
    output_console().print(tree)


def _label(manifest: Manifest) -> str:
    return f"{manifest.digest[:19]}  {manifest.kind} by {manifest.stage}" + (
        f" of {manifest.run}" if manifest.run else ""
    )


def _open(store: str | None, cluster: Path | None) -> ArtifactStore:
    from editr1.launch.kubernetes.connect import cluster_store, load_cluster

    return open_store_option(store, cluster) or cluster_store(load_cluster(cluster))


def _find(store: ArtifactStore, digest: str) -> Manifest:
    wanted = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    if len(wanted) == 71:
        return store.manifest(wanted)
    found = [item for item in store.list() if item.digest.startswith(wanted)]
    if not found:
        raise fail(
            f"{digest}: no artifact in this store has this digest; list the artifacts with: editr1 artifacts ls",
            ExitCode.CONFIG,
        )
    if len(found) > 1:
        raise fail(
            f"{digest}: {len(found)} artifacts in this store have this prefix; give a longer prefix", ExitCode.CONFIG
        )
    return found[0]
