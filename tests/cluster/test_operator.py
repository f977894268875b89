"""Complete runs by the operator on a real cluster: failures, suspension, lost pods, rejected runs, operator restarts."""

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
from tests.cluster.conftest import REGISTRY, ROOT, SMALL_CURATION, TAG, Lab, until
from tests.cluster.operator_process import Operator, Relay, apply, edit_run, install_crd, stage, status, wait_state
from tests.integration.test_run_smallest import SMALL

SAMPLE = ROOT / "manifests/samples/quickstart.yaml"
LONG_TRAINING = {"max_steps": 100_000, "checkpoint_every": 10, "batch_size": 8}
EXIT_HOOK = """
import os, sys
if any(word.startswith("editr1.stages.") and word != "editr1.stages.runtime.pod" for word in sys.orig_argv):
    os._exit(int(os.environ["END_WITH"]))
"""


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    known = install_crd(lab)
    lab.kubectl("create", "configmap", "end-with", f"--from-literal=sitecustomize.py={EXIT_HOOK}")
    lab.settings["stages"] = {
        **{f"end-{code}": exit_with(code) for code in (1, 2, 3, 4, 5, 129, 137, 143)},
        "pair": {"nodes": 2},
        "serve": {"preStopSeconds": 2},
        "absent-image": {"image": {"tag": "no-such-tag"}},
    }
    process = Operator(lab, tmp_path_factory.mktemp("operator"), EDITR1_REVISION=git_revision())
    process.start()
    yield process
    lab.kubectl("delete", "editruns", "--all", "--wait=true", check=False)
    process.stop()
    del lab.settings["stages"]
    if not known:
        lab.kubectl("delete", "crd", "editruns.editr1.dev")


def exit_with(code: int) -> dict[str, Any]:
    """Return chart values that make the stage's process exit with ``code`` when it starts."""
    return {
        "env": [{"name": "PYTHONPATH", "value": "/hook"}, {"name": "END_WITH", "value": str(code)}],
        "volumes": [{"name": "hook", "configMap": {"name": "end-with"}}],
        "volumeMounts": [{"name": "hook", "mountPath": "/hook"}],
    }


def small(name: str) -> dict[str, Any]:
    """Return the quickstart's run at its smallest size, under another name."""
    spec = load_run(SAMPLE, SMALL, {})
    body = spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {**body, "metadata": {"name": name}}


def sft(curated: str, name: str = "sft", config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    inputs = {"rows": f"run:{curated}/curate/rows", "model": "builtin:shapes-verifier"}
    return {"name": name, "kind": "sft", "inputs": inputs, "config": config or LONG_TRAINING, **more}


def is_deleted(lab: Lab, run: str) -> bool:
    kinds = "pytorchjobs,deployments,pods,services,configmaps,serviceaccounts"
    return not lab.kubectl("get", kinds, "-l", f"editr1.dev/run={run}", "-o", "name").split()


def files(lab: Lab, entry: dict[str, Any]) -> dict[str, str]:
    """Return the digest of each file that a stage committed. Manifests are left out because they contain the run's name."""
    store = lab.store()
    found = {name: store.manifest(digest).files for name, digest in entry.get("outputs", {}).items()}
    return {f"{name}/{item.path}": item.digest for name, items in found.items() for item in items}


def running_pods(lab: Lab) -> list[str]:
    """Return the names of the running pods of training stages and services."""
    kinds = "editr1.dev/kind in (sft,gcpo,grpo,serve)"
    return lab.kubectl("get", "pods", "-l", kinds, "--field-selector", "status.phase=Running", "-o", "name").split()


@pytest.fixture(scope="module")
def uninterrupted(lab: Lab, operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the final status of the smallest quickstart, submitted by ``editr1 run`` and not interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    sets = [part for item in [*SMALL, "metadata.name=calm"] for part in ("--set", item)]
    command = ["run", str(SAMPLE), *sets, "--on", "kubernetes", "--runs-dir", str(folder)]
    done = lab.editr1(*command)
    assert "created run calm" in done.stderr and (folder / "calm/report.html").stat().st_size > 20_000
    assert "all stages are up to date; nothing to do" in lab.editr1(*command).stdout
    return status(lab, "calm")


def test_completed_run_has_status_record_and_timeline(lab: Lab, uninterrupted: dict[str, Any]) -> None:
    assert uninterrupted["state"] == "Done" and {item["state"] for item in uninterrupted["stages"]} == {"Done"}
    assert {item["type"]: item["status"] for item in uninterrupted["conditions"]}["Ready"] == "True"
    row = lab.kubectl("get", "editruns", "calm").splitlines()
    assert row[0].split() == ["NAME", "STAGE", "STATE", "PROGRESS", "REASON", "AGE"] and "Done" in row[1]
    record = load_record(lab.store(), "calm")
    assert record is not None and record.state is State.DONE and record.git_revision == git_revision()
    assert {name: item.outputs for name, item in record.stages.items()} == {
        item["name"]: item["outputs"] for item in uninterrupted["stages"]
    }
    timeline = lab.editr1("timeline", "calm", "--store", "s3://editr1/runs").stdout
    for name in ("editr1.run calm", "editr1.attempt", "editr1.pod", "editr1.stage sft"):
        assert name in timeline
    assert "is done" in lab.kubectl("describe", "editrun", "calm")
    assert not lab.kubectl("get", "deployments", "-l", "editr1.dev/kind=serve", "-o", "name"), (
        "the reward service still exists"
    )


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_no_stage_is_lost_or_repeated_when_the_operator_is_killed_repeatedly(
    lab: Lab, operator: Operator, uninterrupted: dict[str, Any], kills: int
) -> None:
    rng = random.Random(7)
    name = f"killed-{kills}"
    apply(lab, small(name))
    for _ in range(kills):
        operator.kill()
        operator.start()  # returns when the operator is healthy
        time.sleep(rng.uniform(0.0, 4.0))
    found = wait_state(lab, name, "Done", "Failed", seconds=240)
    assert found["state"] == "Done"
    for before, after in zip(uninterrupted["stages"], found["stages"], strict=True):
        if after["kind"] == "evaluate":  # its report contains manifest digests, which depend on the name of the run
            assert after["metrics"] == before["metrics"]
        else:
            assert files(lab, after) == files(lab, before), after["name"]
        assert len(after["attempts"]) == 1, f"{after['name']} has more than one attempt"


def test_stage_with_an_existing_result_does_not_run_again(
    lab: Lab, operator: Operator, uninterrupted: dict[str, Any]
) -> None:
    body = small("calm")
    lab.kubectl("delete", "editrun", "calm")
    until("its objects are deleted", lambda: is_deleted(lab, "calm"), 60)
    apply(lab, body)
    found = wait_state(lab, "calm", "Done", seconds=60)
    assert found["reason"] == "UpToDate"
    assert is_deleted(lab, "calm"), "objects were created for a run whose results exist"


def test_only_retryable_exit_codes_are_retried(lab: Lab, operator: Operator) -> None:
    permanent, retried = (1, 2, 3, 4, 5), (129, 137, 143)
    for code in permanent + retried:
        one = {"name": f"end-{code}", "kind": "curate", "config": SMALL_CURATION, "retries": 1}
        apply(lab, edit_run(f"end-{code}", [one]))
    for code in permanent + retried:
        found = wait_state(lab, f"end-{code}", "Failed", seconds=120)
        (only,) = found["stages"]
        codes = [item["exitCode"] for item in only["attempts"]]
        assert codes == ([code] if code in permanent else [code, code])
        assert found["reason"] == ("PermanentExitCode" if code in permanent else "RetriesSpent")
    archived = [key for key in lab.store().list_records("runs/end-129/") if "/cluster/attempt-" in key]
    assert len(archived) == 2
    entry = json.loads(lab.store().get_record(archived[0]) or b"")
    assert entry["pods"][0]["containers"][0]["exit_code"] == 129 and entry["events"]
    waited = lab.editr1("wait", "end-3", check=False)
    assert waited.returncode == 3 and "permanent error (exit code 3)" in waited.stderr
    lab.kubectl("delete", "editruns", *(f"end-{code}" for code in permanent + retried))


def test_lost_pod_counts_as_a_failure_of_the_same_attempt(lab: Lab, operator: Operator, curated: str) -> None:
    config = {"max_steps": 36, "checkpoint_every": 6, "batch_size": 8}
    apply(lab, edit_run("lost", [sft(curated, "pair", config)]))
    until("it is training", lambda: "sft " in stage(lab, "lost", "pair").get("progress", ""), 120)
    lab.kubectl("delete", "pod", "lost-pair-worker-1", "--force", "--grace-period=0")
    found = wait_state(lab, "lost", "Done", "Failed", seconds=240)
    (only,) = found["stages"]
    assert (found["state"], only["failures"], len(only["attempts"])) == ("Done", 1, 1)
    assert only["metrics"]["steps"] == 36
    assert "NodeLost" in lab.kubectl("get", "events", "--field-selector", "involvedObject.name=lost")
    lab.kubectl("delete", "editrun", "lost")


def test_missing_image_is_reported_and_fails_after_the_pending_timeout(lab: Lab, operator: Operator) -> None:
    apply(
        lab,
        edit_run(
            "absent-image",
            [{"name": "absent-image", "kind": "curate", "config": SMALL_CURATION, "pending_timeout_seconds": 35}],
        ),
    )
    until("the reason is reported", lambda: status(lab, "absent-image").get("reason") == "NoImage", 34)
    assert "no-such-tag" in lab.editr1("explain", "absent-image").stdout
    found = wait_state(lab, "absent-image", "Failed", seconds=60)
    assert found["reason"] == "PendingTooLong"
    until("its job is deleted", lambda: not lab.kubectl("get", "pytorchjobs", "-o", "name").count("absent-image"), 30)
    lab.kubectl("delete", "editrun", "absent-image")


def test_stage_past_its_deadline_commits_a_checkpoint_and_fails(lab: Lab, operator: Operator, curated: str) -> None:
    apply(lab, edit_run("late", [sft(curated, deadline_seconds=20)]))
    found = wait_state(lab, "late", "Failed", seconds=60)
    (only,) = found["stages"]
    assert found["reason"] == "DeadlinePassed"
    assert 20 <= only["ended"] - only["attempts"][0]["started"] < 25
    until("its pods are deleted", lambda: "late-sft" not in lab.kubectl("get", "pods", "-o", "name"), 60)
    assert [key for key in lab.store().list_records("runs/late/") if "/checkpoints/" in key]
    assert "late-sft" in lab.editr1("logs", "late").stdout, (
        "the end of the log was not archived before the pods were deleted"
    )
    lab.kubectl("delete", "editrun", "late")


def test_exhausted_quota_is_reported_and_the_run_starts_once_it_is_removed(lab: Lab, operator: Operator) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    lab.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(quota))
    try:
        until("the quota is in effect", lambda: "used" in lab.get("resourcequota", "none").get("status", {}), 30)
        apply(lab, edit_run("full", [{"name": "curate", "kind": "curate", "config": SMALL_CURATION}]))
        until("the reason is reported", lambda: status(lab, "full").get("reason") == "NoQuota", 30)
        assert "the namespace's quota is exhausted" in status(lab, "full")["message"]
    finally:
        lab.kubectl("delete", "resourcequota", "none")
    wait_state(lab, "full", "Done", seconds=120)
    lab.kubectl("delete", "editrun", "full")


def test_run_suspended_and_resumed_in_each_stage_completes(
    lab: Lab, operator: Operator, uninterrupted: dict[str, Any]
) -> None:
    body = small("halted")
    for item in body["spec"]["stages"]:
        # Each stage runs long enough to be suspended, so its outputs differ from those of the uninterrupted run.
        item["config"] |= {"sft": {"max_steps": 80}, "gcpo": {"rollouts": 6}, "grpo": {"iterations": 12}}.get(
            item["name"], {}
        )
        if item["name"] == "curate":
            item["config"]["shapes"] |= {"cases": 150}
    apply(lab, body)
    for name in ("curate", "sft", "gcpo", "grpo", "evaluate"):
        until(f"{name} is running", lambda name=name: stage(lab, "halted", name).get("state") == "Running", 240, 0.3)
        time.sleep(2)
        assert "suspended run halted" in lab.editr1("suspend", "halted").stdout
        wait_state(lab, "halted", "Suspended", seconds=30)
        until("all pods are deleted", lambda: not running_pods(lab), 60)
        assert "resumed run halted" in lab.editr1("resume", "halted").stdout
    found = wait_state(lab, "halted", "Done", "Failed", seconds=240)
    assert found["state"] == "Done" and all(item.get("failures", 0) == 0 for item in found["stages"])
    lab.kubectl("delete", "editrun", "halted")


def test_job_that_another_controller_suspends_stays_suspended(lab: Lab, operator: Operator, curated: str) -> None:
    apply(lab, edit_run("held", [sft(curated)]))
    until("it is running", lambda: stage(lab, "held", "sft").get("state") == "Running", 120)
    job = ("pytorchjob", "held-sft")
    lab.kubectl("patch", *job, "--field-manager=queue", "--type=merge", "-p", '{"spec":{"runPolicy":{"suspend":true}}}')
    until("the run waits", lambda: stage(lab, "held", "sft").get("reason") == "Held", 30)
    until("all pods are deleted", lambda: not running_pods(lab), 60)
    time.sleep(5)
    assert lab.kubectl("get", *job, "-o", "jsonpath={.spec.runPolicy.suspend}") == "true"
    assert "suspended by something other than this run" in stage(lab, "held", "sft")["message"]
    lab.kubectl(
        "patch", *job, "--field-manager=queue", "--type=merge", "-p", '{"spec":{"runPolicy":{"suspend":false}}}'
    )
    until("it is running again", lambda: stage(lab, "held", "sft").get("state") == "Running", 120)
    only = stage(lab, "held", "sft")
    assert (only.get("failures", 0), len(only["attempts"])) == (0, 1)
    lab.kubectl("delete", "editrun", "held")


def test_objects_of_a_run_are_deleted_even_if_no_operator_is_running(
    lab: Lab, operator: Operator, curated: str
) -> None:
    apply(lab, edit_run("orphan", [sft(curated)]))
    until("it is running", lambda: stage(lab, "orphan", "sft").get("state") == "Running", 60)
    operator.kill()
    lab.kubectl("delete", "editrun", "orphan", "--timeout", "30s")
    until("its objects are deleted", lambda: is_deleted(lab, "orphan"), 90)
    operator.start()


def test_attempts_survive_an_api_server_outage_of_twenty_seconds(
    lab: Lab, operator: Operator, curated: str, tmp_path: Path
) -> None:
    relay = Relay(Path(os.environ["KUBECONFIG"]), tmp_path)
    if not relay.on_loopback:
        pytest.skip("needs an API server on loopback: another certificate would not match the address of the relay")
    operator.stop()
    relayed = Operator(lab, tmp_path, KUBECONFIG=str(relay.kubeconfig), EDITR1_REVISION=git_revision())
    relayed.start()
    try:
        config = {"max_steps": 20, "checkpoint_every": 10, "batch_size": 8}
        second = {"name": "second", "kind": "sft", "config": config}
        second["inputs"] = {"rows": f"run:{curated}/curate/rows", "model": "stage:first/model"}
        apply(lab, edit_run("cut", [sft(curated, "first", config), second]))
        until("it is running", lambda: stage(lab, "cut", "first").get("state") == "Running", 60)
        relay.cut()
        time.sleep(20)
        relay.restore()
        found = wait_state(lab, "cut", "Done", "Failed", seconds=120)
        assert found["state"] == "Done" and [len(item["attempts"]) for item in found["stages"]] == [1, 1]
    finally:
        relayed.stop()
        operator.start()
        lab.kubectl("delete", "editrun", "cut", check=False)


def test_two_runs_share_a_service_under_two_operators(
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
                "max_iterations_without_signal": 0,
            },
        },
    ]
    for name in ("twin-a", "twin-b"):
        apply(lab, edit_run(name, stages))
    until(
        "both are running",
        lambda: all(stage(lab, n, "grpo").get("state") == "Running" for n in ("twin-a", "twin-b")),
        120,
    )
    assert stage(lab, "twin-a", "rrm")["release"] == stage(lab, "twin-b", "rrm")["release"]
    (service,) = lab.get("deployments", "-l", "editr1.dev/kind=serve")["items"]
    assert {owner["name"] for owner in service["metadata"]["ownerReferences"]} == {"twin-a", "twin-b"}
    for name in ("twin-a", "twin-b"):
        found = wait_state(lab, name, "Done", "Failed", seconds=180)
        assert found["state"] == "Done" and [len(item["attempts"]) for item in found["stages"]] == [1, 1]
    until(
        "the service is deleted",
        lambda: not lab.kubectl("get", "deployments", "-l", "editr1.dev/kind=serve", "-o", "name"),
        60,
    )
    second.stop()
    lab.kubectl("delete", "editruns", "twin-a", "twin-b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("learning_rate", "learning_rat"), 'unknown field "spec.stages[2].config.learning_rat"'),
        (("reward: serve", "reward: nowhere"), "reward: must be the name of a serve stage of the run"),
        (("kind: gcpo", "kind: gpo"), 'supported values: "curate", "sft"'),
        (
            ("pairs: stage:curate/pairs", "rows: stage:curate/rows"),
            "inputs: a gcpo stage accepts only the inputs pairs, model",
        ),
        (("builtin:shapes-verifier", "path:./model"), "pods cannot read a folder on your machine"),
        (("max_steps: 340", "rollouts: 340"), "config.rollouts: only stages of kind gcpo have this setting"),
    ],
)
def test_kubectl_apply_refuses_an_invalid_run(
    lab: Lab, operator: Operator, tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = SAMPLE.read_text()
    assert change[0] in text
    (tmp_path / "wrong.yaml").write_text(text.replace(*change))
    done = subprocess.run(
        ["kubectl", "-n", lab.namespace, "apply", "-f", str(tmp_path / "wrong.yaml")], capture_output=True, text=True
    )
    assert done.returncode != 0 and message in done.stderr


def test_operator_installed_by_the_chart_completes_a_run(lab: Lab, operator: Operator) -> None:
    """The operator runs with the permissions of its chart. If Jaeger is installed, its spans and its pods' form one trace."""
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
        apply(lab, edit_run("charted", [{"name": "curate", "kind": "curate", "config": SMALL_CURATION}]))
        found = wait_state(lab, "charted", "Done", "Failed", seconds=120)
        assert found["state"] == "Done"
        if traced:
            query = lab.forward("service/jaeger", 16686, "observability")
            trace = found["trace"].split("-")[1]
            until("the trace is complete", lambda: is_complete(f"http://127.0.0.1:{query}/api/traces/{trace}"), 30)
    finally:
        subprocess.run([*helm, "uninstall", "operator"], capture_output=True, env=environment)
        lab.kubectl("delete", "editrun", "charted", check=False)
        operator.start()


def is_complete(url: str) -> bool:
    """Return whether a trace has spans of run, attempt, pod and stage, each the parent of the next."""
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
