"""Whole runs that belong to the cluster: applied, killed, suspended, lost, refused; and the operator killed at any moment."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.launch.checkout import git_revision
from editr1.runs.record import State, load_record
from editr1.runs.spec import load_run
from tests.cluster.conftest import REGISTRY, ROOT, SMALL_WORLD, TAG, Lab, until
from tests.cluster.operator_process import Operator, Way, apply, edit_run, install_crd, stage, status, wait_state
from tests.integration.test_run_smallest import SMALL

SAMPLE = ROOT / "manifests/samples/quickstart.yaml"
LONG = {"max_steps": 100_000, "checkpoint_every": 10, "batch_size": 8}
HOOK = """
import os, sys
if any(word.startswith("editr1.stages.") and word != "editr1.stages.runtime.pod" for word in sys.orig_argv):
    os._exit(int(os.environ["END_WITH"]))
"""


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    known = install_crd(lab)
    lab.kubectl("create", "configmap", "end-with", f"--from-literal=sitecustomize.py={HOOK}")
    lab.settings["stages"] = {
        **{f"end-{code}": ending(code) for code in (1, 2, 3, 4, 5, 129, 137, 143)},
        "pair": {"nodes": 2},
        "serve": {"preStopSeconds": 2},
        "no-image": {"image": {"tag": "no-such-tag"}},
    }
    process = Operator(lab, tmp_path_factory.mktemp("operator"), EDITR1_REVISION=git_revision())
    process.start()
    yield process
    lab.kubectl("delete", "editruns", "--all", "--wait=true", check=False)
    process.stop()
    del lab.settings["stages"]
    if not known:
        lab.kubectl("delete", "crd", "editruns.editr1.dev")


def ending(code: int) -> dict[str, Any]:
    """Chart values with which the stage's process ends at once with ``code``."""
    return {
        "env": [{"name": "PYTHONPATH", "value": "/hook"}, {"name": "END_WITH", "value": str(code)}],
        "volumes": [{"name": "hook", "configMap": {"name": "end-with"}}],
        "volumeMounts": [{"name": "hook", "mountPath": "/hook"}],
    }


def small(name: str) -> dict[str, Any]:
    """The quickstart's run file at its smallest size."""
    spec = load_run(SAMPLE, SMALL, {})
    body = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {**body, "metadata": {"name": name}}


def sft(curated: str, name: str = "sft", config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    inputs = {"rows": f"run:{curated}/curate/rows", "model": "builtin:shapes-verifier"}
    return {"name": name, "kind": "sft", "inputs": inputs, "config": config or LONG, **more}


def gone(lab: Lab, run: str) -> bool:
    kinds = "pytorchjobs,deployments,pods,services,configmaps,serviceaccounts"
    return not lab.kubectl("get", kinds, "-l", f"editr1.dev/run={run}", "-o", "name").split()


def files(lab: Lab, entry: dict[str, Any]) -> dict[str, str]:
    """Digest of every file that a stage committed; the manifests above them name the run."""
    store = lab.store()
    found = {name: store.manifest(digest).files for name, digest in entry.get("outputs", {}).items()}
    return {f"{name}/{item.path}": item.digest for name, items in found.items() for item in items}


def working(lab: Lab) -> list[str]:
    """Pods of training stages and services that run."""
    kinds = "editr1.dev/kind in (sft,gcpo,grpo,serve)"
    return lab.kubectl("get", "pods", "-l", kinds, "--field-selector", "status.phase=Running", "-o", "name").split()


@pytest.fixture(scope="module")
def calm(lab: Lab, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The smallest quickstart as ``editr1 run`` gives it to the operator, undisturbed; its last status."""
    folder = tmp_path_factory.mktemp("calm")
    sets = [part for item in [*SMALL, "metadata.name=calm"] for part in ("--set", item)]
    command = ["run", str(SAMPLE), *sets, "--on", "kubernetes", "--runs-dir", str(folder)]
    done = lab.editr1(*command)
    assert "created run calm" in done.stderr and (folder / "calm/report.html").stat().st_size > 20_000
    assert "all stages are up to date; nothing to do" in lab.editr1(*command).stdout
    return status(lab, "calm")


def test_a_run_shows_and_is_recorded_as_a_local_one_is(lab: Lab, calm: dict[str, Any]) -> None:
    assert calm["state"] == "Done" and {item["state"] for item in calm["stages"]} == {"Done"}
    assert {item["type"]: item["status"] for item in calm["conditions"]}["Ready"] == "True"
    row = lab.kubectl("get", "editruns", "calm").splitlines()
    assert row[0].split() == ["NAME", "STAGE", "STATE", "PROGRESS", "REASON", "AGE"] and "Done" in row[1]
    record = load_record(lab.store(), "calm")
    assert record is not None and record.state is State.DONE and record.git_revision == git_revision()
    assert {name: item.outputs for name, item in record.stages.items()} == {
        item["name"]: item["outputs"] for item in calm["stages"]
    }
    drawn = lab.editr1("timeline", "calm", "--store", "s3://editr1/runs").stdout
    for name in ("editr1.run calm", "editr1.attempt", "editr1.pod", "editr1.stage sft"):
        assert name in drawn
    assert "is done" in lab.kubectl("describe", "editrun", "calm")
    assert not lab.kubectl("get", "deployments", "-l", "editr1.dev/kind=serve", "-o", "name"), "the service outlived it"


def test_an_operator_killed_twenty_times_loses_and_doubles_nothing(
    lab: Lab, operator: Operator, calm: dict[str, Any]
) -> None:
    dice = random.Random(7)
    apply(lab, small("hunted"))
    for _ in range(20):
        operator.kill()
        operator.start()  # killed again only when it is up
        time.sleep(dice.uniform(0.0, 4.0))
    found = wait_state(lab, "hunted", "Done", "Failed", seconds=240)
    assert found["state"] == "Done"
    for before, after in zip(calm["stages"], found["stages"], strict=True):
        if after["kind"] == "evaluate":  # its page names the models that it saw, whose manifests name the run
            assert after["metrics"] == before["metrics"]
        else:
            assert files(lab, after) == files(lab, before), after["name"]
        assert len(after["attempts"]) == 1, f"{after['name']} was started again"


def test_a_stage_that_stands_is_not_run_again(lab: Lab, operator: Operator, calm: dict[str, Any]) -> None:
    body = small("calm")
    lab.kubectl("delete", "editrun", "calm")
    until("gone", lambda: gone(lab, "calm"), 60)
    apply(lab, body)
    found = wait_state(lab, "calm", "Done", seconds=60)
    assert found["reason"] == "UpToDate"
    assert gone(lab, "calm"), "nothing was started"


def test_each_exit_code_leads_to_what_the_readme_says(lab: Lab, operator: Operator) -> None:
    permanent, retried = (1, 2, 3, 4, 5), (129, 137, 143)
    for code in permanent + retried:
        one = {"name": f"end-{code}", "kind": "curate", "config": SMALL_WORLD, "retries": 1}
        apply(lab, edit_run(f"end-{code}", [one]))
    for code in permanent + retried:
        found = wait_state(lab, f"end-{code}", "Failed", seconds=120)
        (only,) = found["stages"]
        codes = [item["exitCode"] for item in only["attempts"]]
        assert codes == ([code] if code in permanent else [code, code])
        assert found["reason"] == ("PermanentExitCode" if code in permanent else "RetriesSpent")
    kept = [key for key in lab.store().list_records("runs/end-129/") if "/cluster/attempt-" in key]
    assert len(kept) == 2
    told = json.loads(lab.store().get_record(kept[0]) or b"")
    assert told["pods"][0]["containers"][0]["exit_code"] == 129 and told["events"]
    waited = lab.editr1("wait", "end-3", check=False)
    assert waited.returncode == 3 and "exit code 3 is permanent" in waited.stderr
    lab.kubectl("delete", "editruns", *(f"end-{code}" for code in permanent + retried))


def test_a_lost_pod_counts_as_a_retry_and_the_run_goes_on(lab: Lab, operator: Operator, curated: str) -> None:
    config = {"max_steps": 36, "checkpoint_every": 6, "batch_size": 8}
    apply(lab, edit_run("lost", [sft(curated, "pair", config)]))
    until("it trains", lambda: "sft " in stage(lab, "lost", "pair").get("progress", ""), 120)
    lab.kubectl("delete", "pod", "lost-pair-worker-1", "--force", "--grace-period=0")
    found = wait_state(lab, "lost", "Done", "Failed", seconds=240)
    (only,) = found["stages"]
    assert (found["state"], only["failures"], len(only["attempts"])) == ("Done", 1, 1)
    assert only["metrics"]["steps"] == 36
    assert "NodeLost" in lab.kubectl("get", "events", "--field-selector", "involvedObject.name=lost")
    lab.kubectl("delete", "editrun", "lost")


def test_an_image_that_is_not_there_is_said_within_seconds_and_ends_in_time(lab: Lab, operator: Operator) -> None:
    apply(
        lab,
        edit_run(
            "no-image", [{"name": "no-image", "kind": "curate", "config": SMALL_WORLD, "pending_timeout_seconds": 35}]
        ),
    )
    until("it says why", lambda: status(lab, "no-image").get("reason") == "NoImage", 34)
    assert "no-such-tag" in lab.editr1("explain", "no-image").stdout
    found = wait_state(lab, "no-image", "Failed", seconds=60)
    assert found["reason"] == "PendingTooLong"
    until("its job is gone", lambda: not lab.kubectl("get", "pytorchjobs", "-o", "name").count("no-image"), 30)
    lab.kubectl("delete", "editrun", "no-image")


def test_a_deadline_holds_and_a_checkpoint_stands(lab: Lab, operator: Operator, curated: str) -> None:
    apply(lab, edit_run("late", [sft(curated, deadline_seconds=20)]))
    found = wait_state(lab, "late", "Failed", seconds=60)
    (only,) = found["stages"]
    assert found["reason"] == "DeadlinePassed"
    assert 20 <= only["ended"] - only["attempts"][0]["started"] < 25
    until("its pods are gone", lambda: "late-sft" not in lab.kubectl("get", "pods", "-o", "name"), 60)
    assert [key for key in lab.store().list_records("runs/late/") if "/checkpoints/" in key]
    assert "late-sft" in lab.editr1("logs", "late").stdout, "the last lines are kept when the pods are gone"
    lab.kubectl("delete", "editrun", "late")


def test_a_quota_of_nothing_is_said_and_the_run_starts_once_it_is_lifted(lab: Lab, operator: Operator) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    lab.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(quota))
    try:
        until("quota counted", lambda: "used" in lab.get("resourcequota", "none").get("status", {}), 30)
        apply(lab, edit_run("full", [{"name": "curate", "kind": "curate", "config": SMALL_WORLD}]))
        until("it says why", lambda: status(lab, "full").get("reason") == "NoQuota", 30)
        assert "the namespace's quota is full" in status(lab, "full")["message"]
    finally:
        lab.kubectl("delete", "resourcequota", "none")
    wait_state(lab, "full", "Done", seconds=120)
    lab.kubectl("delete", "editrun", "full")


def test_suspended_and_resumed_in_each_stage_a_run_ends_as_it_would_have(
    lab: Lab, operator: Operator, calm: dict[str, Any]
) -> None:
    body = small("held")
    for item in body["spec"]["stages"]:
        # Long enough to be met while they run; their outputs are then not the calm run's.
        item["config"] |= {"sft": {"max_steps": 80}, "gcpo": {"rollouts": 6}, "grpo": {"iterations": 12}}.get(
            item["name"], {}
        )
        if item["name"] == "curate":
            item["config"]["world"] |= {"cases": 150}
    apply(lab, body)
    for name in ("curate", "sft", "gcpo", "grpo", "evaluate"):
        until(f"{name} runs", lambda name=name: stage(lab, "held", name).get("state") == "Running", 120, 0.3)
        time.sleep(2)
        assert "suspended run held" in lab.editr1("suspend", "held").stdout
        wait_state(lab, "held", "Suspended", seconds=30)
        until("no pod is left", lambda: not working(lab), 60)
        assert "resumed run held" in lab.editr1("resume", "held").stdout
    found = wait_state(lab, "held", "Done", "Failed", seconds=240)
    assert found["state"] == "Done" and all(item.get("failures", 0) == 0 for item in found["stages"])
    lab.kubectl("delete", "editrun", "held")


def test_deleting_a_run_while_the_operator_is_down_leaves_nothing(lab: Lab, operator: Operator, curated: str) -> None:
    apply(lab, edit_run("orphan", [sft(curated)]))
    until("it runs", lambda: stage(lab, "orphan", "sft").get("state") == "Running", 60)
    operator.kill()
    lab.kubectl("delete", "editrun", "orphan", "--timeout", "30s")
    until("all of it is gone", lambda: gone(lab, "orphan"), 90)
    operator.start()


def test_twenty_seconds_without_the_api_server_cost_nothing(
    lab: Lab, operator: Operator, curated: str, tmp_path: Path
) -> None:
    way = Way(Path(os.environ["KUBECONFIG"]), tmp_path)
    if not way.on_loopback:
        pytest.skip("the API server is elsewhere: its certificate does not name a relay on this machine")
    operator.stop()
    apart = Operator(lab, tmp_path, KUBECONFIG=str(way.kubeconfig), EDITR1_REVISION=git_revision())
    apart.start()
    try:
        config = {"max_steps": 20, "checkpoint_every": 10, "batch_size": 8}
        second = {"name": "second", "kind": "sft", "config": config}
        second["inputs"] = {"rows": f"run:{curated}/curate/rows", "model": "stage:first/model"}
        apply(lab, edit_run("cut", [sft(curated, "first", config), second]))
        until("it runs", lambda: stage(lab, "cut", "first").get("state") == "Running", 60)
        way.cut()
        time.sleep(20)
        way.mend()
        found = wait_state(lab, "cut", "Done", "Failed", seconds=120)
        assert found["state"] == "Done" and [len(item["attempts"]) for item in found["stages"]] == [1, 1]
    finally:
        apart.stop()
        operator.start()
        lab.kubectl("delete", "editrun", "cut", check=False)


def test_two_runs_on_one_model_share_a_service_and_two_operators_do_no_harm(
    lab: Lab, operator: Operator, curated: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    second = Operator(lab, tmp_path, EDITR1_REVISION=git_revision())
    request.addfinalizer(second.stop)
    second.start()
    stages: list[dict[str, Any]] = [
        {
            "name": "rrm",
            "kind": "serve",
            "inputs": {"model": "builtin:shapes-verifier"},
            "config": {"golden_must_parse": False, "max_new_tokens": 64},
        },
        {
            "name": "grpo",
            "kind": "grpo",
            "reward": "rrm",
            "inputs": {"cases": f"run:{curated}/curate/cases", "editor": "builtin:shapes-editor"},
            "config": {
                "resolution": 32,
                "iterations": 6,
                "cases_per_iteration": 2,
                "group_size": 4,
                "max_failed_fraction": 1,
            },
        },
    ]
    for name in ("twin-a", "twin-b"):
        apply(lab, edit_run(name, stages))
    until("both run", lambda: all(stage(lab, n, "grpo").get("state") == "Running" for n in ("twin-a", "twin-b")), 120)
    assert stage(lab, "twin-a", "rrm")["release"] == stage(lab, "twin-b", "rrm")["release"]
    (service,) = lab.get("deployments", "-l", "editr1.dev/kind=serve")["items"]
    assert {owner["name"] for owner in service["metadata"]["ownerReferences"]} == {"twin-a", "twin-b"}
    for name in ("twin-a", "twin-b"):
        found = wait_state(lab, name, "Done", "Failed", seconds=180)
        assert found["state"] == "Done" and [len(item["attempts"]) for item in found["stages"]] == [1, 1]
    until(
        "the service is gone",
        lambda: not lab.kubectl("get", "deployments", "-l", "editr1.dev/kind=serve", "-o", "name"),
        60,
    )
    second.stop()
    lab.kubectl("delete", "editruns", "twin-a", "twin-b")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("learning_rate", "learning_rat"), 'unknown field "spec.stages[2].config.learning_rat"'),
        (("reward: serve", "reward: nowhere"), "reward: must name a serve stage of the run"),
        (("kind: gcpo", "kind: gpo"), 'supported values: "curate", "sft"'),
        (("pairs: stage:curate/pairs", "rows: stage:curate/rows"), "inputs: a gcpo stage accepts only pairs, model"),
        (("builtin:shapes-verifier", "path:./model"), "pods cannot read a folder of your machine"),
        (("max_steps: 340", "rollouts: 340"), "config.rollouts: only a stage of kind gcpo has this field"),
    ],
)
def test_a_wrong_field_is_refused_by_kubectl_apply(
    lab: Lab, operator: Operator, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    text = SAMPLE.read_text()
    assert change[0] in text
    (tmp_path / "wrong.yaml").write_text(text.replace(*change))
    done = subprocess.run(
        ["kubectl", "-n", lab.namespace, "apply", "-f", str(tmp_path / "wrong.yaml")], capture_output=True, text=True
    )
    assert done.returncode != 0 and says in done.stderr


def test_the_chart_s_operator_takes_a_run_on_and_traces_it(lab: Lab, operator: Operator) -> None:
    """In a pod, with the chart's rights and no more; its spans and its pods' are one trace in Jaeger where there is one."""
    operator.stop()
    traced = "jaeger" in lab.kubectl("get", "services", "-n", "observability", "-o", "name", check=False)
    endpoint = "http://jaeger.observability:4318" if traced else ""
    settings = {key: value for key, value in lab.settings.items() if key not in ("store_endpoint", "stages")}
    settings["values"] = {**settings["values"], "telemetry": {"endpoint": endpoint, "publishIntervalSeconds": 1}}
    values = {
        "namespaces": [lab.namespace],
        "crds": False,
        "image": {"repository": f"{REGISTRY}/operator", "tag": TAG},
        "cluster": settings,
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "telemetry": {"endpoint": endpoint},
    }
    helm = ["helm", "-n", lab.namespace]
    environment = {**lab.environment, "HELM_DRIVER": "configmap"}
    install = [*helm, "install", "operator", str(ROOT / "charts/operator"), "-f", lab.file("operator.yaml", values)]
    try:
        subprocess.run([*install, "--wait", "--timeout", "90s"], check=True, capture_output=True, env=environment)
        apply(lab, edit_run("charted", [{"name": "curate", "kind": "curate", "config": SMALL_WORLD}]))
        found = wait_state(lab, "charted", "Done", "Failed", seconds=120)
        assert found["state"] == "Done"
        if traced:
            query = lab.forward("service/jaeger", 16686, "observability")
            trace = found["trace"].split("-")[1]
            until("one trace", lambda: whole(f"http://127.0.0.1:{query}/api/traces/{trace}"), 30)
    finally:
        subprocess.run([*helm, "uninstall", "operator"], capture_output=True, env=environment)
        lab.kubectl("delete", "editrun", "charted", check=False)
        operator.start()


def whole(url: str) -> bool:
    """Whether the trace has run, attempt, pod and stage, each below the one before."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        (trace,) = json.load(answer)["data"]
    parents = {
        span["spanID"]: (span["operationName"], next((item["spanID"] for item in span["references"]), None))
        for span in trace["spans"]
    }
    chains = []
    for number in parents:
        chain: list[str] = []
        at: str | None = number
        while at in parents:
            name, at = parents[at]
            chain.append(name)
        chains.append(chain)
    return ["editr1.stage", "editr1.pod", "editr1.attempt", "editr1.run"] in chains
