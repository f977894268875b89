"""The gradients and the logged metrics of SFT and GCPO on two processes are those of the formulas and of one process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from editr1.config.gcpo import GcpoConfig
from editr1.config.sft import SftConfig
from editr1.config.verifier import LoraSettings
from editr1.shapes.tiny_verifier import build_tiny_verifier
from editr1.telemetry import Progress, TrainHooks
from tests.integration.conftest import train_in_processes
from tests.unit.verifier.gradient_data import TRACES, write_gradient_pairs, write_gradient_rows
from tests.unit.verifier.gradients import (
    LARGEST_DIFFERENCE,
    Step,
    gcpo_reference,
    gcpo_steps,
    relative_difference,
    sft_reference,
    sft_steps,
)

LORA = LoraSettings(rank=4, alpha=6.0, targets="all")
LAYOUTS = [("fp32", 1, None), ("fp32", 4, None), ("fp32", 6, None), ("bf16-mixed", 4, None), ("fp32", 4, LORA)]
"""Precision, number of accumulation steps, and adapters."""
Layout = tuple[str, int, LoraSettings | None]
TIMING = {"tokens_per_second"}


def name_of(kind: str, precision: str, accumulation: int, lora: LoraSettings | None) -> str:
    return f"{kind}-{precision}-{accumulation}{'-lora' if lora else ''}"


def sft_config(layout: Layout, processes: int) -> SftConfig:
    precision, accumulation, lora = layout
    return SftConfig(
        max_steps=1, batch_size=24, micro_batch_size=24 // accumulation // processes, warmup_steps=0, max_grad_norm=0.0,
        precision=precision, lora=lora, device="cpu",
    )  # fmt: skip


def gcpo_config(layout: Layout, processes: int) -> GcpoConfig:
    """Return settings with two passes and a KL term.

    In fp32, the update is so large that some ratios are clipped. In bf16, rounding would move tokens across the clip boundary,
    where the gradient jumps, so the update is smaller.
    """
    precision, accumulation, lora = layout
    return GcpoConfig(
        rollouts=1, passes=2, pairs_per_rollout=6, num_traces=2, micro_batch_size=24 // accumulation // processes,
        warmup_steps=0, max_grad_norm=0.0, learning_rate=1e-3 if precision == "fp32" else 1e-4, beta=0.1, precision=precision,
        lora=lora, device="cpu",
    )  # fmt: skip


def train_all(root: Path, out: Path, layouts: list[Layout], processes: int, rank: int) -> None:
    """Train with every layout, and save the steps and the progress of rank 0."""
    torch.set_num_threads(1)
    for layout in layouts:
        for kind in ("sft", "gcpo"):
            folder = out / name_of(kind, *layout)
            folder.mkdir(parents=True, exist_ok=True)
            hooks = TrainHooks(progress=Progress(folder / "progress.jsonl" if rank == 0 else None))
            if kind == "sft":
                config = sft_config(layout, processes)
                steps = sft_steps(config, root / "model", root / "rows.parquet", folder / "out", hooks)
            else:
                settings = gcpo_config(layout, processes)
                pairs = root / "pairs.parquet"
                steps = gcpo_steps(settings, root / "model", pairs, folder / "out", TRACES, hooks)
            if rank == 0:
                torch.save([(step.weights, step.gradient) for step in steps], folder / "steps.pt")


PROGRAM = """
import os, sys
from pathlib import Path
import torch
from tests.integration.test_verifier_gradients import LAYOUTS, train_all

out = Path(sys.argv[2])
out.mkdir(exist_ok=True)
train_all(Path(sys.argv[1]), out, LAYOUTS, 2, int(os.environ["RANK"]))
(out / "progress.jsonl").touch()
torch.distributed.destroy_process_group()
sys.stdout.flush()
os._exit(0)  # as at the end of a stage process, see editr1/stages/runtime/entry.py
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, a small verifier, and the trainings on two processes (``two``) and one process (``one``)."""
    folder = tmp_path_factory.mktemp("gradients")
    build_tiny_verifier(folder / "model", seed=3, size="small")
    write_gradient_rows(folder)
    write_gradient_pairs(folder)
    (folder / "program.py").write_text(PROGRAM)
    train_in_processes(folder / "program.py", 2, folder / "two", str(folder), str(folder / "two"))
    train_all(folder, folder / "one", [("fp32", 4, None)], 1, 0)
    return folder


def steps_of(folder: Path) -> list[Step]:
    return [Step(weights, gradient) for weights, gradient in torch.load(folder / "steps.pt", weights_only=True)]


def metrics_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
    found = [line["metrics"] for line in lines if "metrics" in line]
    return [{name: value for name, value in metrics.items() if name not in TIMING} for metrics in found]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: name_of("two", *layout))
def test_gradients_on_two_processes_are_those_of_the_formulas(root: Path, layout: Layout) -> None:
    name = name_of("sft", *layout)
    sft = sft_config(layout, 2)
    (step,) = steps_of(root / "two" / name)
    expected = sft_reference(sft, root / "model", root / "rows.parquet", step.weights)
    difference = relative_difference(step.gradient, expected)
    print(f"{name}, 2 processes: {difference:.1e}", file=sys.stderr)
    assert difference < LARGEST_DIFFERENCE[sft.precision]
    name = name_of("gcpo", *layout)
    gcpo = gcpo_config(layout, 2)
    steps = steps_of(root / "two" / name)
    assert len(steps) == 2
    for number, step in enumerate(steps, start=1):
        expected = gcpo_reference(gcpo, root / "model", root / "pairs.parquet", TRACES, steps[0].weights, step.weights)
        difference = relative_difference(step.gradient, expected)
        print(f"{name}, 2 processes, pass {number}: {difference:.1e}", file=sys.stderr)
        assert difference < LARGEST_DIFFERENCE[gcpo.precision]


@pytest.mark.parametrize("kind", ["sft", "gcpo"])
@pytest.mark.parametrize("accumulation", [1, 4, 6])
def test_metrics_do_not_depend_on_the_layout(root: Path, kind: str, accumulation: int) -> None:
    one = metrics_of(root / "one" / f"{kind}-fp32-4")
    two = metrics_of(root / "two" / f"{kind}-fp32-{accumulation}")
    assert len(one) == len(two) == {"sft": 1, "gcpo": 2}[kind]
    for expected, found in zip(one, two, strict=True):
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-6)
    if kind == "gcpo":
        assert one[0]["parse_rate"] == two[0]["parse_rate"] == 21 / 24
        assert one[0]["no_signal_rate"] == two[0]["no_signal_rate"] == 0.5
        assert one[0]["truncated_rate"] == pytest.approx(3 / 24)
        assert one[1]["clip_fraction"] > 0
