"""Shell blocks that are marked as runnable in the README, tutorials and how-to guides run as written in a new folder.

A block is marked by an HTML comment on the line before it: ``<!-- runnable -->``, or ``<!-- runnable: long -->`` if the
block needs a finished quickstart. The blocks of a page run in order in one shell.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from editr1.cli.main import app

ROOT = Path(__file__).parents[3]
_BLOCK = re.compile(r"^<!-- runnable(?P<long>: long)? -->\n```bash\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL)
_NEEDED = (
    "Makefile",
    "README.md",
    "LICENSE",
    "pyproject.toml",
    "requirements.lock",
    "manifests",
    "charts",
    "docs",
    "tests/bench",
)
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *(ROOT / "docs/tutorials").glob("*.md"), *(ROOT / "docs/how-to").glob("*.md"))
)
ALL_PAGES = sorted({"README.md", *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))})
QUICKSTART_PAGES = ("README.md", "docs/tutorials/quickstart.md", *(page for page in PAGES if "how-to" in page))


def blocks(page: str, *, long: bool) -> list[str]:
    """Return the runnable blocks of a page in order; include blocks marked as long only if ``long`` is True."""
    found = _BLOCK.finditer((ROOT / page).read_text())
    return [match["commands"] for match in found if long or not match["long"]]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with files of the repository and links to this environment in ``.venv``."""
    for name in _NEEDED:
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    (tmp_path / ".venv").mkdir()
    for part in ("bin", "lib", "pyvenv.cfg"):
        (tmp_path / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    for mark in (".all", ".dev"):
        (tmp_path / ".venv" / mark).touch()
    return tmp_path


def execute(commands: list[str], folder: Path, timeout_s: float) -> None:
    """Run the blocks in one shell, fail with its output if a command fails, and kill all remaining processes."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("EDITR1_", "OTEL_", "KUBECONFIG"))}
    env["PATH"] = f"{folder}/.venv/bin:{env['PATH']}"
    env["PYTHONPATH"] = f"{ROOT}:{ROOT / 'operators'}"
    log = folder / "output.log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", "\n".join(commands)],
            cwd=folder,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = shell.wait(timeout_s)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    assert code == 0, log.read_text(errors="replace")[-4000:]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, long=False)])
def test_quick_blocks_run_as_written(page: str, clone: Path) -> None:
    execute(blocks(page, long=False), clone, 300)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_blocks_that_need_a_finished_quickstart_run_as_written(clone: Path) -> None:
    for page in QUICKSTART_PAGES:
        execute(blocks(page, long=True), clone, 1800)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_tutorial_on_own_images_runs_as_written(clone: Path) -> None:
    execute(blocks("docs/tutorials/your-own-images.md", long=True), clone, 1800)


def test_only_pages_that_need_a_cluster_have_no_runnable_blocks() -> None:
    unmarked = {page for page in PAGES if not blocks(page, long=True)}
    assert unmarked == {
        "docs/tutorials/first-cluster-run.md",
        "docs/how-to/operator.md",
        "docs/how-to/your-cluster.md",
    }


def test_readme_has_at_most_150_lines_and_names_the_unrelated_project() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert "not PKU-YuanGroup/Edit-R1" in text


def _command_lines(page: str) -> list[list[str]]:
    """Return every ``editr1 ...`` command in the shell blocks and code spans of a page, split into words."""
    text = (ROOT / page).read_text()
    shell = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"(?:^|[;&$(] ?)\s*(?:\.venv/bin/)?editr1 ([a-z][^\n;&|#)]*)", shell, re.MULTILINE)
    lines += re.findall(r"`editr1 ([a-z][^`|]*)`", text)
    return [line.split() for line in lines]


@pytest.mark.parametrize("page", ALL_PAGES)
def test_every_command_and_option_on_a_page_exists(page: str) -> None:
    root = typer.main.get_command(app)
    for words in _command_lines(page):
        command, rest = root, list(words)
        while rest and hasattr(command, "commands"):
            name = rest.pop(0)
            assert name in command.commands, f"editr1 {' '.join(words)}: there is no command {name!r}"
            command = command.commands[name]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word.partition("=")[0] for word in rest if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
        assert used <= known | {"--help", "-h"}, f"editr1 {' '.join(words)}: no option {used - known}"
