"""Run the quickstart with several seeds, and print its held-out metrics with intervals and the time of each stage.

    python tests/bench/quickstart_seeds.py --seeds 501 502 503

The script runs ``editr1 run manifests/samples/quickstart.yaml`` once per seed (completed runs are not repeated) and prints
a table of metrics by seed. It exits with code 1 if a target is missed. The targets are: SFT-RRM has an accuracy of at
least 76% with half credit for ties, RL-RRM gains at least 4 points, the editor's true score (0 to 10) gains at least 1,
the intervals of these gains do not contain zero, and a run takes at most 7 minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from editr1.artifacts import open_store
from editr1.config.store import StoreConfig
from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report.model import ReportData
from editr1.runs.find import find_records
from editr1.runs.record import RunRecord
from editr1.runs.report import assemble

SAMPLE = Path(__file__).parents[2] / "manifests/samples/quickstart.yaml"
MAX_SECONDS = 7 * 60


def run(seed: int, folder: Path, sets: list[str]) -> tuple[RunRecord, ReportData]:
    """Run the sample with ``seed`` in ``folder``, and return its record and evaluation."""
    command = [sys.executable, "-m", "editr1.cli.main", "run", str(SAMPLE), "--runs-dir", str(folder)]
    subprocess.run([*command, "--set", f"spec.seed={seed}", *(f"--set={value}" for value in sets)], check=True)
    (record,) = find_records(folder, None)
    store = next(folder.glob("*/store"))
    evaluation = record.stages["evaluate"].outputs["evaluation"]
    opened = open_store(StoreConfig(url=store.resolve().as_uri()))
    return record, assemble(record, opened, evaluation, folder / record.name / "spans.jsonl")


def metrics(data: ReportData) -> dict[str, tuple[Estimate | None, float, float | None]]:
    """Return the metrics by name as (estimate, display factor, target or None)."""
    accuracy = {verifier.role: verifier.accuracy for verifier in data.verifiers}
    sft, rl = accuracy["sft"], accuracy["rl"]
    gain, editor = data.verifier_gain, data.editor
    return {
        "SFT-RRM half credit": (sft and sft.half_credit, 100, 76),
        "RL-RRM half credit": (rl and rl.half_credit, 100, None),
        "RL-RRM gain, half credit": (gain.half_credit, 100, 4),
        "RL-RRM gain, strict": (gain.strict, 100, None),
        "RL-RRM gain, inverted": (gain.inverted, 100, None),
        "editor before": (editor and editor.before.score, 1, None),
        "editor after": (editor and editor.after.score, 1, None),
        "editor gain": (editor and editor.gain.score, 1, 1),
        "editor gain, follow": (editor and editor.gain.follow, 100, None),
        "editor gain, keep": (editor and editor.gain.keep, 100, None),
        "editor gain, quality": (editor and editor.gain.quality, 100, None),
    }


def seconds(record: RunRecord) -> dict[str, float]:
    """Return the wall time of each stage (serve lasts as long as grpo) and of the whole run in seconds."""
    stages = {
        name: sum((attempt.ended or attempt.started) - attempt.started for attempt in stage.attempts)
        for name, stage in record.stages.items()
    }
    return stages | {"total": (record.ended or record.created) - record.created}


def main() -> int:
    """Run all seeds and print the tables. Return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[501, 502, 503], help="seeds to run")
    parser.add_argument("--folder", type=Path, default=Path("runs/seeds"), help="folder of the runs")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=VALUE", help="as in editr1 run")
    given = parser.parse_args()
    done = {seed: run(seed, given.folder / str(seed), given.set) for seed in given.seeds}
    missed: list[str] = []

    table = Table("metric", *(f"seed {seed}" for seed in done), "mean", "n")
    for name, (_, factor, target) in metrics(next(iter(done.values()))[1]).items():
        cells, values, n = [], [], 0
        for seed, (_, data) in done.items():
            estimate = metrics(data)[name][0]
            if estimate is None:
                cells.append("not measured")
                missed += [f"{name}, seed {seed}: not measured"] if target is not None else []
                continue
            value, low, high = (factor * number for number in (estimate.value, estimate.low, estimate.high))
            cells.append(f"{value:.2f} ({low:.2f} to {high:.2f})")
            values.append(value)
            n = estimate.n
            if target is not None and (value < target or low <= 0):
                missed.append(f"{name}, seed {seed}: {cells[-1]}, target {target}")
        table.add_row(name, *cells, f"{mean(values):.2f}" if values else "", str(n))
    Console(width=160).print(table)

    times = {seed: seconds(record) for seed, (record, _) in done.items()}
    clock = Table("seconds", *(f"seed {seed}" for seed in done))
    for stage in next(iter(times.values())):
        clock.add_row(stage, *(f"{times[seed][stage]:.0f}" for seed in done))
    Console(width=160).print(clock)
    missed += [f"seed {seed}: {took['total']:.0f} s" for seed, took in times.items() if took["total"] > MAX_SECONDS]
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
