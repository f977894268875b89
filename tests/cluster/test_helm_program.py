"""The helm program installs stages, and lists the releases that the package installs without it."""

import json
import os
import subprocess

from tests.cluster.conftest import REGISTRY, ROOT, SMALL_CURATION, TAG, Lab, until


def run_helm(lab: Lab, *arguments: str, storage: str = "secret") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HELM_DRIVER": storage}
    return subprocess.run(["helm", *arguments, "-n", lab.namespace], capture_output=True, text=True, env=environment)


def helm(lab: Lab, *arguments: str, storage: str = "secret") -> str:
    done = run_helm(lab, *arguments, storage=storage)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_stage_runs_as_a_plain_helm_release(lab: Lab) -> None:
    values = {
        **lab.settings["values"],
        "image": {"repository": f"{REGISTRY}/curate", "tag": TAG},
        "config": SMALL_CURATION,
        "seed": 7,
    }
    notes = helm(lab, "install", "by-hand", str(ROOT / "charts/curate"), "-f", lab.file("by-hand.yaml", values))
    assert "editr1 status by-hand" in notes
    assert "by-hand is succeeded" in lab.editr1("wait", "by-hand", "--timeout", "120").stderr
    assert "curate" in lab.editr1("status", "by-hand").stdout
    assert "stage curate is done" in lab.editr1("logs", "by-hand").stdout
    shown = json.loads(lab.editr1("runs", "show", "by-hand", "--store", "s3://editr1/runs", "--json").stdout)
    assert shown["state"] == "done" and "rows" in shown["stages"]["curate"]["outputs"]
    assert "Succeeded" in helm(lab, "test", "by-hand")
    helm(lab, "uninstall", "by-hand")
    until("its objects are deleted", lambda: not [item for item in lab.release_objects() if "by-hand" in item], 60)


def test_submit_needs_no_helm_program(lab: Lab) -> None:
    """The release that the package installs without the helm program is listed by that program."""
    values = lab.file("library.yaml", {"config": SMALL_CURATION})
    submit = ("submit", "curate", "-f", values, "--name", "library")
    lab.editr1(*submit, "--follow")
    listed = json.loads(helm(lab, "list", "-o", "json", storage="configmap"))
    assert "library" in [release["name"] for release in listed]
    again = lab.editr1(*submit)
    assert "attached to" in again.stdout + again.stderr
    assert "library" in lab.editr1("list").stdout
    lab.editr1("cancel", "library")
    until("its objects are deleted", lambda: not [item for item in lab.release_objects() if "library" in item], 60)


def test_upgrade_that_changes_the_job_of_a_stage_is_refused(lab: Lab) -> None:
    chart, values = str(ROOT / "charts/curate"), lab.file("upgraded.yaml", {**lab.settings["values"], "suspend": True})
    helm(lab, "install", "upgraded", chart, "-f", values, "--set", "key=" + "b" * 64)
    before = lab.get("configmap", "upgraded")["data"]
    helm(lab, "upgrade", "upgraded", chart, "-f", values, "--set", "key=" + "b" * 64)
    for field, change in (
        ("config", "config.shapes.cases=30"),
        ("seed", "seed=1"),
        ("runtime", "heartbeatTimeoutSeconds=77"),
    ):
        refused = run_helm(lab, "upgrade", "upgraded", chart, "-f", values, "--set", f"key={'b' * 64},{change}")
        assert refused.returncode != 0
        assert f"{field} of this stage differs from that of the installed release" in refused.stderr
        assert "helm uninstall upgraded" in refused.stderr
    assert lab.get("configmap", "upgraded")["data"] == before
    helm(lab, "uninstall", "upgraded")
