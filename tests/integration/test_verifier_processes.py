"""Verifier training on two ranks (torchrun, gloo): shared batches, stopping and resuming, and whole pairs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

import editr1
from editr1.data.images import encode_png
from editr1.data.tables import write_table
from editr1.data.types import Candidate, Category, EditCase, EncodedImage, PreferencePair, Principle, Quadruple, SftRow
from editr1.verifier.trace import format_trace
from tests.integration.conftest import train_in_processes

PROGRAM = """
import os, sys
from pathlib import Path
import torch
from editr1.config.gcpo import GcpoConfig
from editr1.config.sft import SftConfig
from editr1.telemetry import Interrupted, Progress, TrainHooks
from editr1.verifier.gcpo import train_gcpo
from editr1.verifier.pair_reward import PairReward
from editr1.verifier.sft import train_sft

torch.set_num_threads(1)
compute_rewards = PairReward.__call__
num_traces = 2

def checked_rewards(self, completions, completion_ids, principles, **more):
    images = [[image.tobytes() for image in row] for row in more["images"]]
    assert images and len(images) % (2 * num_traces) == 0
    for start in range(0, len(images), 2 * num_traces):
        pair = images[start : start + 2 * num_traces]
        assert len({row[0] for row in pair}) == 1, "a pair contains traces of two cases"
        sides = [{row[1] for row in part} for part in (pair[:num_traces], pair[num_traces:])]
        assert all(len(side) == 1 for side in sides) and sides[0] != sides[1], "a side contains traces of two edits"
    assert more["row"][0] % 2 == 0  # the row numbers are passed on, so PairReward checks the layout itself
    (out / f"checked-{rank}").write_text("whole pairs")
    return compute_rewards(self, completions, completion_ids, principles, **more)

PairReward.__call__ = checked_rewards
kind, root, out, model = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
steps, stop_at = int(sys.argv[5]), int(sys.argv[6])
rank = int(os.environ.get("RANK", "0"))
calls = 0

def should_stop():
    global calls
    calls += 1
    return rank == 1 and calls == stop_at  # rank 0 is never requested to stop

def on_checkpoint(folder, step):
    (out / "checkpoint").write_text(str(folder))

out.mkdir(parents=True, exist_ok=True)
checkpoint = out / "checkpoint"
hooks = TrainHooks(progress=Progress(out / "progress.jsonl" if rank == 0 else None), should_stop=should_stop,
                   on_checkpoint=on_checkpoint, resume_from=Path(checkpoint.read_text()) if checkpoint.exists() else None)
try:
    if kind == "sft":
        config = SftConfig(max_steps=steps, batch_size=8, learning_rate=1e-3, warmup_steps=0)
        train_sft(config, model=model, rows=root / "rows.parquet", output_dir=out / "model", hooks=hooks)
    else:
        config = GcpoConfig(rollouts=steps, pairs_per_rollout=4, num_traces=num_traces, learning_rate=1e-4, max_new_tokens=96)
        train_gcpo(config, model=model, pairs=root / "pairs.parquet", output_dir=out / "model", hooks=hooks)
except Interrupted as stopped:
    print(stopped, flush=True)
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
os._exit(0)  # as at the end of a stage process, see editr1/stages/runtime/entry.py
"""

BASE = Path(editr1.__file__).parent / "shapes" / "assets" / "verifier"
PRINCIPLES = (
    Principle(question="top-left is red square?", category=Category.FOLLOW),
    Principle(question="background kept?", category=Category.KEEP),
    Principle(question="picture clean?", category=Category.QUALITY),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    rng = random.Random(0)

    def image() -> EncodedImage:
        return EncodedImage(data=encode_png(Image.new("RGB", (32, 32), tuple(rng.randrange(256) for _ in range(3)))))

    def case(number: int) -> EditCase:
        text = "remove the top-left red square"
        return EditCase(case_id=f"c{number}", source=image(), instruction=text, principles=PRINCIPLES)

    def edit(name: str) -> Candidate:
        return Candidate(candidate_id=name, editor="any", image=image())

    rows = [
        SftRow(
            quadruple=Quadruple(case=case(number), candidate=edit(f"e{number}")),
            trace=format_trace(
                "picture looks clean, yes;", PRINCIPLES, [rng.randrange(2) for _ in PRINCIPLES], rng.randrange(21) / 2
            ),
        )
        for number in range(32)
    ]
    write_table(folder / "rows.parquet", rows, SftRow)
    pairs = [PreferencePair(pair_id=f"p{n}", case=case(n), winner=edit(f"w{n}"), loser=edit(f"l{n}")) for n in range(8)]
    write_table(folder / "pairs.parquet", pairs, PreferencePair)
    (folder / "program.py").write_text(PROGRAM)
    return folder


def run(
    root: Path, kind: str, out: Path, processes: int, *, model: Path = BASE, steps: int = 4, stop_at: int = 0
) -> list[dict[str, float]]:
    arguments = (kind, str(root), str(out), str(model), str(steps), str(stop_at))
    return train_in_processes(root / "program.py", processes, out, *arguments)


def weights(out: Path) -> dict[str, object]:
    return dict(load_file(out / "model" / "model.safetensors"))


def test_two_ranks_share_each_sft_batch(root: Path, tmp_path: Path) -> None:
    one = run(root, "sft", tmp_path / "one", 1)
    two = run(root, "sft", tmp_path / "two", 2)
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-2)


def test_stop_on_one_rank_stops_both_and_the_training_resumes(root: Path, tmp_path: Path) -> None:
    whole = run(root, "sft", tmp_path / "whole", 2)
    halves = run(root, "sft", tmp_path / "halves", 2, stop_at=2)
    assert len(halves) == 2
    assert not (tmp_path / "halves" / "model" / "model.safetensors").exists()
    halves = run(root, "sft", tmp_path / "halves", 2)
    assert [m["loss"] for m in halves] == pytest.approx([m["loss"] for m in whole], rel=1e-5)
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert max(float((first[name] - second[name]).abs().max()) for name in first) < 1e-5  # type: ignore[operator]


def test_gcpo_keeps_pairs_whole_on_each_of_two_ranks(root: Path, tmp_path: Path) -> None:
    run(root, "sft", tmp_path / "sft", 2, steps=80)
    start = tmp_path / "sft" / "model"
    metrics = run(root, "gcpo", tmp_path / "gcpo", 2, model=start, steps=2)
    assert len(metrics) == 2
    assert all((tmp_path / "gcpo" / f"checked-{rank}").exists() for rank in (0, 1))
    assert all(m["log_ratio_max"] == pytest.approx(0.0, abs=1e-6) for m in metrics)
    assert all(m["parse_rate"] > 0.5 and m["no_signal_rate"] < 1 for m in metrics)
    before, after = weights(tmp_path / "sft"), weights(tmp_path / "gcpo")
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-6  # type: ignore[operator]
