"""``editr1 evaluate`` on public benchmarks, with principles and ratings from OpenAI-compatible endpoints."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from editr1.artifacts import open_store
from editr1.cli.view import RunView
from editr1.config.store import store_at
from editr1.data.tables import write_table
from editr1.data.types import EditCase, PreferencePair
from editr1.launch.single_stage import run_single_stage
from editr1.runs.kinds import Kind
from editr1.runs.record import StageRecord, load_record
from editr1.runs.spec import StageSpec
from editr1.shapes.candidates import make_candidates
from editr1.shapes.cases import generate_cases
from editr1.shapes.labeller_server import labeller_server

CASES = generate_cases(4, 0, "public", with_principles=True)
RATINGS = {"two images": [6, 5], "one image": [8, 9]}


class JudgeServer(ThreadingHTTPServer):
    """Stand-in for a VLM judge. It refuses the first ``num_refused`` different requests for ratings of two images until it is repaired."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Judge)
        self.num_refused = 0
        self.refused: set[str] = set()
        self.seen: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Judge(BaseHTTPRequestHandler):
    """The handler of :class:`JudgeServer`. Its fixed ratings depend only on the number of images."""

    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = body["messages"][-1]["content"]
        text = json.dumps(body["messages"])
        self.server.seen.append(text)
        if len(self.server.refused) < self.server.num_refused:
            self.server.refused.add(text)
        if self.server.num_refused and text in self.server.refused:
            self.send_error(400, "this image is not allowed")
            return
        num_images = sum(part["type"] == "image_url" for part in parts)
        ratings = RATINGS["two images" if num_images == 2 else "one image"]
        reply = json.dumps({"choices": [{"message": {"content": json.dumps({"score": ratings, "reasoning": "seen"})}}]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def judge() -> Iterator[JudgeServer]:
    server = JudgeServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def write_sets(folder: Path) -> None:
    pairs, editscore, gedit = [], [], []
    for case in CASES:
        better, worse = make_candidates(case, 0, 2)
        pairs.append(PreferencePair(pair_id=case.case_id, case=case, winner=better, loser=worse))
        editscore.append(
            {
                "key": [f"{case.case_id}-a", f"{case.case_id}-b"],
                "instruction": case.instruction,
                "input_image": case.source.data,
                "output_images": [better.image.data, worse.image.data],
                "task_type": "color_alter",
                "dimension": "overall",
            }
        )
        gedit.append(
            {
                "task_type": "color_alter",
                "key": case.case_id.replace("/", "-"),
                "instruction": case.instruction,
                "instruction_language": "en",
                "input_image": case.source.data,
            }
        )
    for name, rows in (("editscore", editscore), ("gedit", gedit)):
        (folder / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), folder / name / "rows.parquet")
    (folder / "gedit" / "prompts.json").write_text('{"sc": "Was it done: <instruction>?", "pq": "Is it sound?"}')
    for name in ("pairs", "cases"):
        (folder / name).mkdir()
    write_table(folder / "pairs" / "pairs.parquet", pairs, PreferencePair)
    write_table(folder / "cases" / "cases.parquet", CASES, EditCase)


def test_public_benchmarks_are_reported_as_tables(tmp_path: Path, judge: JudgeServer) -> None:
    write_sets(tmp_path)
    with labeller_server() as oracle:
        public = {
            "labeller": {
                "endpoints": {"default": {"base_url": oracle}, "judge": {"base_url": judge.url}},
                "principles": {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]},
            },
            "judge": {"endpoint": "judge", "model": "any"},
        }
        done = subprocess.run(
            [
                sys.executable, "-m", "editr1.cli.main", "evaluate", "--out", str(tmp_path / "run"),
                "--pairs", str(tmp_path / "pairs"), "--cases", str(tmp_path / "cases"),
                "--rl", "builtin:shapes-verifier", "--before", "builtin:shapes-editor", "--after", "builtin:shapes-editor",
                "--editscore", str(tmp_path / "editscore"), "--gedit", str(tmp_path / "gedit"),
                "--set", "max_failed_fraction=1.0", "--set", "max_new_tokens=80", "--set", "resolution=32", "--set", "ground_truth=shapes",
                "--set", "bootstrap_samples=100", "--set", f"public={json.dumps(public)}",
            ],
            capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    evaluation = json.loads((tmp_path / "run" / "outputs" / "evaluation" / "evaluation.json").read_text())
    tables = {table["name"]: table for table in evaluation["benchmarks"]}
    assert set(tables) == {
        "EditScore's EditReward-Bench, RL-RRM",
        "GEdit-Bench, editor before RL",
        "GEdit-Bench, editor after RL",
    }
    reward = tables["EditScore's EditReward-Bench, RL-RRM"]
    overall = next(row for row in reward["rows"] if row["name"] == "overall")
    assert overall["published"] is None and overall["ours"] is None, "the untrained verifier writes no valid trace"
    num_edits = 2 * len(CASES)
    assert (reward["num_edits"], reward["failures"], reward["missing"]) == (num_edits, {"unparsed": num_edits}, 4)
    assert "none of 1 traces could be parsed" in reward["first_failure"]
    log = next((tmp_path / "run").rglob("log.txt")).read_text()
    assert f"RL-RRM: {num_edits} of {num_edits} edits have no score (unparsed: {num_edits})" in log
    ratings = {row["name"]: row["ours"] for row in tables["GEdit-Bench, editor after RL"]["rows"]}
    assert ratings["SC, mean over types"]["value"] == 5
    assert ratings["PQ, mean over types"]["value"] == 8
    assert ratings["O, mean over types"]["value"] == pytest.approx(40**0.5)
    written = next((tmp_path / "run").rglob("editscore-*/cases.parquet"))
    assert pq.read_table(written).num_rows == len(CASES)


def evaluate(folder: Path, judge: JudgeServer) -> StageRecord:
    """Run the same ``editr1 evaluate`` on GEdit-Bench, and return the record of its stage."""
    judge.seen.clear()
    public = {"labeller": {"endpoints": {"default": {"base_url": judge.url}}}, "judge": {"model": "any"}}
    stage = StageSpec(
        name="evaluate",
        kind=Kind.EVALUATE,
        inputs={name: f"path:{folder / name}" for name in ("cases", "gedit")} | {"before": "builtin:shapes-editor"},
        config={
            "max_failed_fraction": 0.5,
            "resolution": 32,
            "ground_truth": "shapes",
            "bootstrap_samples": 100,
            "public": public,
        },
    )
    out = folder / "run"
    run_single_stage(stage, seed=0, folder=out, store=None, command="c", observer=RunView(), should_stop=lambda: False)
    record = load_record(open_store(store_at((out / "store").as_uri())), out.name)
    assert record is not None
    return record.stages["evaluate"]


def test_same_command_asks_the_judge_only_for_the_edits_that_it_refused(tmp_path: Path, judge: JudgeServer) -> None:
    write_sets(tmp_path)
    judge.num_refused = 1
    partial = evaluate(tmp_path, judge)
    assert partial.missing.causes == {"GEdit-Bench, editor before RL: refused": 1}
    assert partial.missing.total == len(CASES)
    first = set(judge.seen)

    judge.num_refused = 0
    repaired = evaluate(tmp_path, judge)
    assert not repaired.missing and judge.refused <= set(judge.seen)
    assert first & set(judge.seen) <= judge.refused, "an answer was requested again"
    assert len(first | set(judge.seen)) == 2 * len(CASES)
    written = json.loads((tmp_path / "run/outputs/evaluation/evaluation.json").read_text())
    assert [(table["num_edits"], table["failures"]) for table in written["benchmarks"]] == [(len(CASES), {})]

    assert len(evaluate(tmp_path, judge).attempts) == len(repaired.attempts) and not judge.seen
