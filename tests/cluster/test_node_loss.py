"""A job of two pods that loses one of them continues from its last checkpoint and completes."""

import json

from tests.cluster.conftest import Lab, until

STEPS = 60


def test_job_that_loses_a_pod_continues_from_its_checkpoint(lab: Lab, curated: str) -> None:
    values = {
        "inputs": {"rows": f"run:{curated}/curate/rows", "model": "builtin:shapes-verifier"},
        "nodes": 2,
        "processes": 1,
        "config": {"max_steps": STEPS, "checkpoint_every": 10, "batch_size": 8},
    }
    lab.submit("sft", "pair", values)
    until("a checkpoint", lambda: checkpoints(lab), 180)
    lab.kubectl("delete", "pod", "pair-worker-1", "--force", "--grace-period=0")
    done = lab.editr1("wait", "pair", "--timeout", "300")
    assert "pair is succeeded" in done.stderr

    shown = json.loads(lab.editr1("runs", "show", "pair", "--store", "s3://editr1/runs", "--json").stdout)
    assert shown["state"] == "done" and shown["stages"]["sft"]["metrics"]["steps"] == STEPS
    store = lab.store()
    (key,) = [key for key in store.list_records("runs/pair/") if key.endswith("progress.jsonl")]
    lines = [json.loads(line) for line in (store.get_record(key) or b"").decode().splitlines()]
    resumed = [line["done"] for line in lines if "metrics" not in line and line["phase"] == "sft"]
    assert resumed[0] == 0 and resumed[-1] >= 10, "the second attempt did not continue from a checkpoint"
    assert lines[-1]["done"] == STEPS
    logs = lab.editr1("logs", "pair").stdout
    assert "pair-worker-0" in logs and "pair-worker-1" in logs
    lab.editr1("cancel", "pair")


def checkpoints(lab: Lab) -> list[str]:
    return [key for key in lab.store().list_records("runs/pair/") if "/checkpoints/" in key]
