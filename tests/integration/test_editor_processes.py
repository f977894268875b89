"""Editor training on two processes (torchrun, gloo) matches training on one process."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from editr1.data.tables import write_table
from editr1.data.types import Category, EditCase, EncodedImage, Principle
from editr1.shapes.tiny_editor import build_tiny_flux_kontext
from tests.integration.conftest import train_in_processes
from tests.unit.editor.gradients import PASSES, check, derive, load, training, write_unequal_cases

PROGRAM = """
import io, sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image
from editr1.config.grpo import GrpoConfig
from editr1.data.types import Scored
from editr1.editor.grpo import train_grpo
from editr1.telemetry import Progress, TrainHooks

torch.set_num_threads(1)
root, out = Path(sys.argv[1]), Path(sys.argv[2])

def scorer(items):
    values = [np.asarray(Image.open(io.BytesIO(item.edited.data)), dtype=float)[..., 0].mean() / 25.5 for item in items]
    return [Scored(score=value, verdicts=(), model_digest="m") for value in values]

config = GrpoConfig(iterations=2, cases_per_iteration=2, group_size=4, num_inference_steps=4, sde_window_size=2, resolution=32,
                    micro_batch_size=4, tune=sys.argv[3])
train_grpo(config, editor=root / "start", cases=root / "cases.parquet", scorer=scorer, output_dir=out / "editor",
           hooks=TrainHooks(progress=Progress(out / "progress.jsonl")))
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()  # as in a stage process: gloo threads must not outlive the interpreter
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    build_tiny_flux_kontext(folder / "start", 0)
    rows = []
    for i in range(4):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(i).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        principle = Principle(question="is it red?", category=Category.FOLLOW)
        source = EncodedImage(data=buffer.getvalue())
        rows.append(EditCase(case_id=f"c{i}", source=source, instruction="make it red", principles=(principle,)))
    write_table(folder / "cases.parquet", rows, EditCase)
    (folder / "program.py").write_text(PROGRAM)
    return folder


def run(root: Path, out: Path, processes: int, tune: str) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    metrics = train_in_processes(root / "program.py", processes, out, str(root), str(out), tune)
    return metrics, dict(load_file(next((out / "editor" / "transformer").glob("*.safetensors"))))


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_two_processes_match_one_process(root: Path, tmp_path: Path, tune: str) -> None:
    one, one_weights = run(root, tmp_path / "one", 1, tune)
    two, two_weights = run(root, tmp_path / "two", 2, tune)
    assert len(one) == len(two) == 2
    for a, b in zip(one, two, strict=True):
        assert b["reward_mean"] == pytest.approx(a["reward_mean"], abs=5e-3)
        assert b["reward_std"] == pytest.approx(a["reward_std"], abs=5e-3)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=0.1)
        assert b["ratio_error_first"] < 1e-6
    # The first Adam steps have the size of the learning rate for any gradient, so tiny differences can flip their signs.
    start = load_file(next((root / "start" / "transformer").glob("*.safetensors")))
    update_one, update_two = (
        torch.cat([(found[name] - start[name]).flatten() for name in sorted(start)])
        for found in (one_weights, two_weights)
    )
    assert float(update_two.norm()) == pytest.approx(float(update_one.norm()), rel=0.1)
    assert float(torch.nn.functional.cosine_similarity(update_one, update_two, dim=0)) > 0.999


GRADIENT_PROGRAM = """
import json, os, sys
from pathlib import Path
import torch
from tests.unit.editor.gradients import record, training

torch.set_num_threads(1)
root, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir(exist_ok=True)
record(training(**json.loads(sys.argv[3])), root / "start", root / "unequal" / "cases.parquet", out, rank=int(os.environ["RANK"]))
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(
    "changes",
    [PASSES | {"beta": 0.5, "micro_batch_size": 5}, PASSES | {"precision": "bf16-mixed", "learning_rate": 1e-2}],
    ids=["fp32", "bf16"],
)
def test_gradients_and_metrics_of_two_processes_follow_from_the_formulas(
    root: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    (root / "unequal").mkdir(exist_ok=True)
    write_unequal_cases(root / "unequal")
    (root / "gradients.py").write_text(GRADIENT_PROGRAM)
    train_in_processes(root / "gradients.py", 2, tmp_path, str(root), str(tmp_path), json.dumps(changes))
    recordings = load(tmp_path)
    assert [len(recording.samples) for recording in recordings] == [12, 12]
    config = training(**changes)
    derived = derive(recordings, config, root / "start")
    print("largest relative difference of a gradient:", max(check(recordings, derived, config, tmp_path)))
    for (_, first), (_, second) in zip(recordings[0].steps, recordings[1].steps, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)
