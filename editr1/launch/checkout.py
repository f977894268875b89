"""Read the commit and the uncommitted changes of the git checkout from which editr1 runs."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

MAX_PATCH_BYTES = 4 << 20


def git_revision() -> str:
    """Return the checked-out commit, with the suffix ``+dirty`` if there are uncommitted changes.

    The result is empty if the package does not run from a git checkout.
    """
    revision = _git("rev-parse", "HEAD").decode().strip()
    if not revision:
        return ""
    return revision + ("+dirty" if _git("status", "--porcelain").strip() else "")


def git_patch() -> bytes:
    """Return the diff of the working tree against the checked-out commit.

    The result is empty if there are no changes, if the diff is larger than 4 MiB, or outside a checkout.
    """
    patch = _git("diff", "HEAD")
    return patch if len(patch) <= MAX_PATCH_BYTES else b""


@cache
def checkout_root() -> Path | None:
    """Return the root of the git checkout that contains this package; None outside a checkout."""
    top = _run_git(Path(__file__).parent, "rev-parse", "--show-toplevel").decode().strip()
    return Path(top) if top else None


def _git(*arguments: str) -> bytes:
    root = checkout_root()
    return _run_git(root, *arguments) if root else b""


def _run_git(folder: Path, *arguments: str) -> bytes:
    """Run git and return its standard output. The result is empty if git fails or is not installed."""
    try:
        result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return result.stdout if result.returncode == 0 else b""
