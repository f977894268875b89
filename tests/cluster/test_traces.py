"""One OpenTelemetry trace covers the submission, both attempts of a stage, and the generation in a reward replica."""

import json
import urllib.request
from typing import Any

import pytest

from tests.cluster.conftest import SMALL_CURATION, Lab, until

EXPECTED_SPANS = {
    "editr1.run",
    "editr1.pod",
    "editr1.stage",
    "editr1.load",
    "editr1.checkpoint",
    "editr1.step",
    "editr1.step.sample",
    "editr1.step.reward",
    "editr1.step.optimise",
    "editr1.reward.request",
    "editr1.reward.serve",
    "editr1.reward.queue",
    "editr1.reward.batch",
    "editr1.reward.generate",
}


@pytest.fixture(scope="module")
def jaeger(lab: Lab) -> dict[str, str]:
    if "jaeger" not in lab.kubectl("get", "services", "-n", "observability", "-o", "name", check=False):
        pytest.skip("needs Jaeger: service jaeger in namespace observability")
    query = lab.forward("service/jaeger", 16686, "observability")
    collect = lab.forward("service/jaeger", 4318, "observability")
    return {"query": f"http://127.0.0.1:{query}", "collect": f"http://127.0.0.1:{collect}"}


def spans(jaeger: dict[str, str], service: str, run: str) -> list[dict[str, Any]]:
    """Return all spans of the newest trace of ``run`` that contains spans of ``service``."""
    url = f"{jaeger['query']}/api/traces?service={service}&limit=20&lookback=1h"
    with urllib.request.urlopen(url, timeout=20) as answer:
        traces = json.load(answer)["data"]
    for trace in traces:
        tags = [tag for process in trace["processes"].values() for tag in process["tags"]]
        if any(tag["key"] == "editr1.run" and tag["value"] == run for tag in tags):
            return [{**span, "process": trace["processes"][span["processID"]]} for span in trace["spans"]]
    return []


def test_grpo_stage_and_its_reward_requests_form_one_trace(lab: Lab, curated: str, jaeger: dict[str, str]) -> None:
    endpoint = {"telemetry": {"endpoint": "http://jaeger.observability:4318", "publishIntervalSeconds": 1}}
    reward = {
        "inputs": {"model": "builtin:shapes-verifier"},
        "config": {"golden_must_parse": False, "max_new_tokens": 64},
    }
    lab.submit("reward", "traced-rrm", {**reward, **endpoint}, "--follow")
    values = {
        "inputs": {"cases": f"run:{curated}/curate/cases", "editor": "builtin:shapes-editor"},
        "reward": {"release": "traced-rrm"},
        "config": {
            "resolution": 32,
            "iterations": 40,
            "cases_per_iteration": 2,
            "group_size": 4,
            "max_failed_fraction": 1.0,
            "max_iterations_without_signal": 0,
            "checkpoint_every": 3,
        },
        **endpoint,
    }
    file = lab.file("traced.yaml", values)
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": jaeger["collect"]}
    lab.editr1("submit", "grpo", "-f", file, "--name", "traced", **collector)
    until("a checkpoint", lambda: [k for k in lab.store().list_records("runs/traced/") if "/checkpoints/" in k], 180)
    lab.kubectl("delete", "pod", "traced-master-0", "--force", "--grace-period=0")
    assert "traced is succeeded" in lab.editr1("wait", "traced", "--timeout", "240").stderr
    until("the trace is complete", lambda: {span["operationName"] for span in traced(jaeger)} >= EXPECTED_SPANS, 60)
    found = all_spans(jaeger)
    assert len({span["traceID"] for span in found}) == 1

    by_id = {span["spanID"]: span for span in found}
    last = max((span for span in found if span["operationName"] == "editr1.pod"), key=lambda span: span["startTime"])
    assert parents(last, by_id)[0] == "editr1.run"
    generations = [span for span in found if span["operationName"] == "editr1.reward.generate"]
    chains = [parents(span, by_id) for span in generations]
    complete = [chain for chain in chains if chain[-1] == "editr1.run"]
    assert complete, chains[:2]
    order = ["editr1.reward.serve", "editr1.reward.request", "editr1.stage", "editr1.pod", "editr1.run"]
    positions = [complete[0].index(name) for name in order]
    assert positions == sorted(positions)
    pods = {tag["value"] for s in found for tag in s["process"]["tags"] if tag["key"] == "k8s.pod.uid"}
    assert len(pods) >= 3, "expected spans of two attempts and of a reward replica"

    shown = lab.editr1("timeline", "traced", "--store", "s3://editr1/runs").stdout
    assert "editr1.stage grpo" in shown and "editr1.run" in shown
    for release in ("traced", "traced-rrm"):
        lab.editr1("cancel", release)


def all_spans(jaeger: dict[str, str]) -> list[dict[str, Any]]:
    """Return the spans of the release ``traced``, after waiting until two queries in a row return the same number."""
    counts = [-1, 0]

    def complete() -> bool:
        counts[:] = [counts[1], len(traced(jaeger))]
        return counts[0] == counts[1]

    until("no further span arrives", complete, 60, every=5.0)
    return traced(jaeger)


def traced(jaeger: dict[str, str]) -> list[dict[str, Any]]:
    """Return the spans of the release ``traced`` that the collector has received so far."""
    return spans(jaeger, "editr1-submit", "traced")


def parents(span: dict[str, Any], by_id: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the known ancestors of a span, nearest first."""
    names = []
    while span["references"]:
        above = by_id.get(span["references"][0]["spanID"])
        if above is None:
            break
        names.append(above["operationName"])
        span = above
    return names


def test_stage_succeeds_with_an_unreachable_collector(lab: Lab) -> None:
    values = {
        "config": SMALL_CURATION,
        "telemetry": {"endpoint": "http://nowhere.nothing:4318", "publishIntervalSeconds": 1},
    }
    output = lab.submit("curate", "untraced", values, "--follow")
    assert "untraced is succeeded" in output
    lab.editr1("cancel", "untraced")
