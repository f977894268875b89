"""The reward Deployment scales with its load, and no request fails when a replica is deleted or the release is upgraded."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from editr1.runs.record import load_record, load_result
from tests.cluster.conftest import REGISTRY, ROOT, TAG, Lab, until

LOAD = Path(__file__).parent / "load.py"
RELEASE = "rrm"


@pytest.fixture(scope="module")
def service(lab: Lab, curated: str) -> Iterator[str]:
    """Install a reward service with one to three replicas of a trained verifier, and return its URL."""
    if "keda.sh" not in lab.kubectl("api-versions"):
        pytest.skip("needs KEDA")
    values = {
        "inputs": {"rows": f"run:{curated}/curate/rows", "model": "builtin:shapes-verifier"},
        "config": {"max_steps": 30, "warmup_steps": 2, "batch_size": 16},
    }
    lab.submit("sft", "verifier", values, "--follow")
    output = lab.submit("reward", RELEASE, reward_values(), "--follow")
    assert f"{RELEASE} is ready" in output
    yield f"http://{RELEASE}.{lab.namespace}.svc:8000"
    lab.editr1("cancel", RELEASE)


def reward_values(**more: Any) -> dict[str, Any]:
    return {
        "inputs": {"model": "run:verifier/sft/model"},
        "config": {"golden_must_parse": False, "max_new_tokens": 96, "max_batch_size": 8, "drain_timeout_seconds": 30},
        "preStopSeconds": 3,
        "autoscaling": {
            "mode": "keda",
            "minReplicas": 1,
            "maxReplicas": 3,
            "scaleDownStabilizationSeconds": 10,
            "scaleDownPeriodSeconds": 2,
            "keda": {"inFlight": 6, "pollingIntervalSeconds": 1},
        },
        **more,
    }


class Load:
    """A pod that sends score requests continuously."""

    def __init__(self, lab: Lab, name: str, url: str, seconds: int, concurrent: int) -> None:
        self._lab, self._name = lab, name
        lab.kubectl("delete", "configmap", name, "--ignore-not-found")
        lab.kubectl("create", "configmap", name, f"--from-file=load.py={LOAD}")
        restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        container = {
            "name": "load",
            "image": f"{REGISTRY}/reward:{TAG}",
            "imagePullPolicy": "IfNotPresent",
            "command": ["python", "/load/load.py", url, str(seconds), str(concurrent)],
            "securityContext": restricted,
            "resources": {"requests": {"cpu": "20m"}},
            "volumeMounts": [{"name": "load", "mountPath": "/load"}],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": [{"name": "load", "configMap": {"name": name}}],
            },
        }
        lab.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(pod))

    def result(self) -> dict[str, Any]:
        """Wait until the pod ends, and return its result."""

        def text() -> str | None:
            found = re.search("RESULT (.*)", self._lab.kubectl("logs", self._name, check=False))
            return found[1] if found else None

        return json.loads(until(f"the end of {self._name}", text, 180))


def completed(found: dict[str, Any]) -> int:
    """Return the number of scored edits. Unparseable traces of a barely trained verifier count; no other failure is allowed."""
    assert set(found["counts"]) <= {"ok", "unparsed"}, found
    return sum(found["counts"].values())


def ready(lab: Lab) -> int:
    return int(lab.get("deployment", RELEASE)["status"].get("readyReplicas", 0))


def pods(lab: Lab) -> list[str]:
    found = lab.get("pods", "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]
    return [item["metadata"]["name"] for item in found if "deletionTimestamp" not in item["metadata"]]


def test_replicas_scale_with_the_load_and_no_request_fails(lab: Lab, service: str) -> None:
    assert ready(lab) == 1
    load = Load(lab, "load-scale", service, 60, 24)
    until("three ready replicas", lambda: ready(lab) == 3, 60)
    lab.kubectl("delete", "pod", pods(lab)[0], "--force", "--grace-period=0")
    found = load.result()
    assert completed(found) > 100
    until("one replica again", lambda: ready(lab) == 1, 120)


def test_no_request_fails_during_a_rolling_update(lab: Lab, service: str) -> None:
    before = set(pods(lab))
    load = Load(lab, "load-update", service, 45, 6)
    values = lab.file("upgrade.yaml", reward_values(podAnnotations={"updated": "yes"}))
    settings = yaml.safe_load(Path(lab.environment["EDITR1_CLUSTER_FILE"]).read_text())["values"]
    shared = lab.file("shared.yaml", {**settings, "image": {"repository": f"{REGISTRY}/reward", "tag": TAG}})
    command = ["helm", "upgrade", RELEASE, str(ROOT / "charts/reward"), "-n", lab.namespace, "-f", shared, "-f", values]
    environment = {**lab.environment, "HELM_DRIVER": "configmap"}
    refused = subprocess.run(command, capture_output=True, text=True, env=environment)
    # docs/explanation/decisions.md recommends --force-conflicts because of this conflict.
    assert refused.returncode != 0 and "conflict" in refused.stderr
    done = subprocess.run([*command, "--force-conflicts"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    until("new replicas only", lambda: pods(lab) and not set(pods(lab)) & before, 90)
    found = load.result()
    assert completed(found) > 20


def test_helm_test_of_the_release_succeeds(lab: Lab, service: str) -> None:
    done = subprocess.run(
        ["helm", "test", RELEASE, "-n", lab.namespace],
        capture_output=True,
        text=True,
        env={**lab.environment, "HELM_DRIVER": "configmap"},
    )
    assert done.returncode == 0 and "Succeeded" in done.stdout, done.stderr


def test_service_at_zero_replicas_scales_up_for_a_grpo_pod(lab: Lab, service: str, curated: str) -> None:
    """The GRPO stage waits until the service is ready, and the service scales down to zero replicas afterwards."""
    values = reward_values()
    values["autoscaling"] = {**values["autoscaling"], "minReplicas": 0}
    lab.submit("reward", "scaled-to-zero", values)
    until("no replica", lambda: lab.get("deployment", "scaled-to-zero")["spec"]["replicas"] == 0, 90)
    assert "until a GRPO pod starts" in lab.editr1("explain", "scaled-to-zero").stdout
    grpo = {
        "inputs": {"cases": f"run:{curated}/curate/cases", "editor": "builtin:shapes-editor"},
        "reward": {"release": "scaled-to-zero"},
        "config": {
            "resolution": 32,
            "iterations": 1,
            "cases_per_iteration": 2,
            "group_size": 4,
            "max_failed_fraction": 1.0,
            "max_iterations_without_signal": 0,
        },
    }
    lab.submit("grpo", "consumer", grpo)  # reads the model from the Deployment, which has no replica
    assert "consumer is succeeded" in lab.editr1("wait", "consumer", "--timeout", "150").stderr
    annotations = lab.get("deployment", "scaled-to-zero")["metadata"]["annotations"]
    record = load_record(lab.store(), "consumer")
    assert record is not None
    trained = record.stages["grpo"]
    assert trained.reward["model"] == annotations["editr1.dev/reward-model"]
    assert trained.reward["settings"]["max_new_tokens"] == 96
    result = load_result(lab.store(), "consumer", "grpo", trained.key)
    assert result is not None and trained.reward["model"] in lab.store().manifest(result.outputs["model"]).parents
    until("no replica again", lambda: lab.get("deployment", "scaled-to-zero")["spec"]["replicas"] == 0, 120)
    for release in ("consumer", "scaled-to-zero"):
        lab.editr1("cancel", release)
