"""Attempts of a training stage that are killed at a given point, and the digest of what a later attempt commits."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from editr1.config.store import StoreConfig
from editr1.runs.job import StageJob
from editr1.stages.runtime.context import StageContext
from editr1.telemetry import Interrupted, Progress

Body = Callable[[StageContext], Any]

POINTS = ("before", "stopped", "at", "after", "export", "commit")
"""When the first attempt ends: killed before its last checkpoint, stopped by SIGTERM there, killed when the last checkpoint
was saved, after it, while the model is exported, or while it is committed."""


class Killed(BaseException):
    """Stands for SIGKILL: no code of the stage handles it."""


class _Deadly(Progress):
    """Progress that ends the attempt when the step ``last`` is reported."""

    def __init__(self, file: Path, last: int) -> None:
        super().__init__(file)
        self._left = last

    def phase(self, name: str, total: int, done: int = 0) -> None:
        super().phase(name, total, done)
        self._left -= done

    def step(self, count: int = 1, **metrics: float) -> None:
        super().step(count, **metrics)
        self._left -= count
        if self._left == 0:
            raise Killed


def digest_after(body: Body, job: dict[str, Any], folder: Path, point: str, checkpoint: int, export: str) -> str:
    """Kill an attempt at ``point``, finish the training in another one, and return the digest of the output "model".

    The second attempt has another environment, and its working folder has what a killed process may leave.

    Args:
        body: Code of the stage.
        job: Fields of the job.
        folder: Empty folder for the store and the working folders.
        point: One of ``POINTS``.
        checkpoint: Step after which the last checkpoint is saved.
        export: Dotted name of a function that is called in the middle of an export.
    """
    context = _context(job, folder)
    killed = replace(context.hooks(), progress=Progress(None))
    if point in ("before", "after"):
        last = checkpoint + (1 if point == "after" else -1)
        killed = replace(killed, progress=_Deadly(folder / "progress.jsonl", last))
    elif point == "stopped":
        calls = iter(range(1, 1000))
        killed = replace(killed, should_stop=lambda: next(calls) == checkpoint - 1)
    elif point == "at":
        save = killed.on_checkpoint

        def save_and_die(saved: Path, step: int) -> None:
            save(saved, step)
            if step == checkpoint:
                raise Killed

        killed = replace(killed, on_checkpoint=save_and_die)
    try:
        with patch.object(context, "hooks", lambda: killed), _killed_later(context, point, export):
            body(context)
        raise AssertionError(f"the attempt was not ended: {point}")
    except (Killed, Interrupted):
        pass
    for left in ("model.safetensors.tmp", "adapter/notes.txt", "checkpoint-1/x"):
        path = folder / "work" / f"out-{job['key'][:12]}" / "model" / left
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left by a killed process")
    with _other_environment(folder):
        return digest_of(body, job, folder)


def digest_of(body: Body, job: dict[str, Any], folder: Path) -> str:
    """Run the stage in this process and return the digest of its output "model"."""
    context = _context(job, folder)
    body(context)
    return context.outputs["model"]


def _context(job: dict[str, Any], folder: Path) -> StageContext:
    store = StoreConfig(url=(folder / "store").as_uri())
    fields = {"run": "r", "stage": "train", "seed": 0, **job}
    return StageContext(StageJob(store=store, workdir=folder / "work", **fields), should_stop=lambda: False)


@contextmanager
def _killed_later(context: StageContext, point: str, export: str) -> Iterator[None]:
    def die(*_: object, **__: object) -> None:
        raise Killed

    if point == "export":
        with patch(export, die):
            yield
    elif point == "commit":
        commit = context.commit

        def last_commit(*arguments: Any) -> str:
            with patch.object(context.store.objects, "put_bytes", die):  # the files are stored, the manifest is not
                return commit(*arguments)

        with patch.object(context, "commit", lambda *a, **k: last_commit(*a, *k.values())):
            yield
    else:
        yield


@contextmanager
def _other_environment(folder: Path) -> Iterator[None]:
    """Change the environment of this process as another machine might."""
    random.seed(5)
    np.random.seed(6)
    torch.manual_seed(7)
    before, mask = Path.cwd(), os.umask(0o077)
    variables = {"HOME": str(folder), "TZ": "Asia/Kathmandu", "LANG": "tr_TR.UTF-8", "LC_ALL": "C", "USER": "other"}
    os.chdir(folder)
    try:
        with patch.dict(os.environ, variables), patch("huggingface_hub.constants.HF_HUB_OFFLINE", True):
            time.tzset()
            yield
    finally:
        os.chdir(before)
        os.umask(mask)
        time.tzset()
