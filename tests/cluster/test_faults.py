"""The commands submit, explain, wait and doctor report the cause of faults in a cluster."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import SMALL_CURATION, Lab, make_lab, until

VALUES = {"config": SMALL_CURATION}


@pytest.fixture
def submitted(lab: Lab) -> Iterator[list[str]]:
    """A list to which a test adds the releases that it submits; they are cancelled after the test."""
    names: list[str] = []
    yield names
    for name in names:
        lab.editr1("cancel", name, check=False)


def assert_explained(lab: Lab, name: str, message: str) -> None:
    until(f"explain prints {message!r}", lambda: message in lab.editr1("explain", name).stdout, 60)


def test_missing_image_is_explained(lab: Lab, submitted: list[str]) -> None:
    submitted.append("no-image")
    lab.submit("curate", "no-image", {**VALUES, "image": {"tag": "no-such-tag"}})
    assert_explained(lab, "no-image", "cannot pull its image")
    done = lab.editr1("wait", "no-image", "--timeout", "4", check=False)
    assert done.returncode == 124 and "no-such-tag" in done.stderr


def test_missing_secret_or_key_is_explained(lab: Lab, submitted: list[str]) -> None:
    submitted.append("no-secret")
    lab.submit("curate", "no-secret", {**VALUES, "store": {"secretName": "nowhere"}})
    assert_explained(lab, "no-secret", "the Secret 'nowhere' does not exist; create it, or set store.secretName")
    submitted.append("no-key")
    lab.submit("curate", "no-key", {**VALUES, "store": {"accessKey": "nothing"}})
    assert_explained(lab, "no-key", "has no key 'nothing'")


def test_request_for_too_many_gpus_is_explained(lab: Lab, submitted: list[str]) -> None:
    submitted.append("no-gpu")
    lab.submit("curate", "no-gpu", {**VALUES, "gpus": 64})
    assert_explained(lab, "no-gpu", "not enough nvidia.com/gpu is free")


def test_missing_bucket_fails_the_submission(lab: Lab, submitted: list[str]) -> None:
    output = lab.submit("curate", "no-bucket", {**VALUES, "store": {"url": "s3://nowhere/x"}}, check=False)
    assert "bucket 'nowhere' does not exist; create it first" in output
    assert "no-bucket" not in lab.kubectl("get", "pytorchjobs", "-o", "name")


def test_invalid_local_store_credentials_are_reported(lab: Lab) -> None:
    done = lab.editr1("doctor", check=False, EDITR1_S3_SECRET_KEY="wrong")
    assert done.returncode == 1 and "SignatureDoesNotMatch" in done.stdout


def test_exhausted_quota_is_explained(lab: Lab, submitted: list[str]) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "tight"},
        "spec": {"hard": {"pods": "1"}},
    }
    lab.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(quota))
    try:
        until("the quota is in effect", lambda: "used" in lab.get("resourcequota", "tight").get("status", {}), 30)
        submitted.append("over")
        lab.submit("curate", "over", VALUES)
        assert_explained(lab, "over", "the namespace's quota is exhausted")
        done = lab.editr1("doctor", check=False)
        assert done.returncode == 1 and "quota tight" in done.stdout
    finally:
        lab.kubectl("delete", "resourcequota", "tight")


def test_doctor_passes_on_a_complete_cluster(lab: Lab) -> None:
    done = lab.editr1("doctor")
    for what in ("training-operator", "permissions", "store: conditional put"):
        assert what in done.stdout
    assert "missing" not in done.stdout


def test_second_submission_attaches_or_is_refused_if_it_differs(lab: Lab, submitted: list[str]) -> None:
    submitted.append("once")
    assert "submitted once" in lab.submit("curate", "once", VALUES)
    assert "attached to once" in lab.submit("curate", "once", VALUES)
    output = lab.submit("curate", "once", VALUES, "--set", "seed=5", check=False)
    assert "runs another job; choose another --name, or cancel that job with: editr1 cancel once" in output
    assert len(lab.get("pytorchjobs", "-l", "editr1.dev/run=once")["items"]) == 1
    lab.editr1("cancel", "once")
    output = lab.submit("curate", "once", VALUES, "--set", "seed=5", check=False)
    assert "seed: 0 -> 5" in output and "--replace" in output
    assert "submitted once" in lab.submit("curate", "once", VALUES, "--set", "seed=5", "--replace")


def test_dry_run_prints_the_objects_and_creates_nothing(lab: Lab) -> None:
    text = lab.submit("curate", "dry", VALUES, "--dry-run")
    kinds = [item["kind"] for item in yaml.safe_load_all(text[text.index("---") :])]
    assert sorted(kinds) == ["ConfigMap", "PyTorchJob", "ServiceAccount"]
    assert "dry" not in lab.kubectl("get", "pytorchjobs,configmaps", "-o", "name")


def test_suspended_job_continues_after_resume(lab: Lab, curated: str, submitted: list[str]) -> None:
    submitted.append("paused")
    values = {
        "inputs": {"rows": f"run:{curated}/curate/rows", "model": "builtin:shapes-verifier"},
        "config": {"max_steps": 40, "checkpoint_every": 5, "batch_size": 8},
    }
    lab.submit("sft", "paused", values)
    until("a checkpoint", lambda: [k for k in lab.store().list_records("runs/paused/") if "/checkpoints/" in k], 120)
    lab.editr1("suspend", "paused")
    until("its pods are deleted", lambda: not lab.get("pods", "-l", "app.kubernetes.io/instance=paused")["items"], 60)
    assert "suspended; use editr1 resume to continue" in lab.editr1("explain", "paused").stdout
    lab.editr1("resume", "paused")
    assert "paused is succeeded" in lab.editr1("wait", "paused", "--timeout", "180").stderr


def user_kubeconfig(lab: Lab, name: str) -> str:
    """Create a ServiceAccount and return the path of a kubeconfig for it."""
    lab.kubectl("create", "serviceaccount", name)
    token = lab.kubectl("create", "token", name).strip()
    done = subprocess.run(
        ["kubectl", "config", "view", "--minify", "--raw", "-o", "json"], capture_output=True, text=True, check=True
    )
    config: dict[str, Any] = yaml.safe_load(done.stdout)
    config["users"] = [{"name": name, "user": {"token": token}}]
    config["contexts"][0]["context"] |= {"user": name, "namespace": lab.namespace}
    return lab.file(f"{name}.kubeconfig", config)


def test_missing_permissions_of_a_user_are_listed(lab: Lab) -> None:
    kubeconfig = user_kubeconfig(lab, "nobody")
    file = lab.file("nobody.yaml", VALUES)
    done = lab.editr1("submit", "curate", "-f", file, "--name", "refused", check=False, KUBECONFIG=kubeconfig)
    assert done.returncode == 2 and "forbidden" in done.stderr and "nobody" in done.stderr
    done = lab.editr1("doctor", check=False, KUBECONFIG=kubeconfig)
    assert done.returncode == 1 and "create pytorchjobs" in done.stdout


def test_role_editr1_user_allows_submit_follow_and_cancel(lab: Lab) -> None:
    kubeconfig = user_kubeconfig(lab, "alice")
    subject = f"--serviceaccount={lab.namespace}:alice"
    lab.kubectl("create", "rolebinding", "alice", "--role=editr1-user", subject)
    file = lab.file("alice.yaml", VALUES)
    lab.editr1("doctor", KUBECONFIG=kubeconfig)
    lab.editr1("submit", "curate", "-f", file, "--name", "by-alice", "--follow", KUBECONFIG=kubeconfig)
    assert "stage curate is done" in lab.editr1("logs", "by-alice", KUBECONFIG=kubeconfig).stdout
    lab.editr1("cancel", "by-alice", KUBECONFIG=kubeconfig)


def test_bundle_contains_logs_and_findings_but_no_secret(lab: Lab, curated: str, tmp_path: Path) -> None:
    import tarfile

    archive = tmp_path / "bundle.tar.gz"
    lab.editr1("bundle", curated, "-o", str(archive))
    with tarfile.open(archive) as found:
        members = {name: found.extractfile(name) for name in found.getnames()}
        texts = {name: member.read().decode() for name, member in members.items() if member is not None}
    assert {"curated/doctor.txt", "curated/explain.txt", "curated/curated/job.json"} <= set(texts)
    assert any("stage curate is done" in text for text in texts.values())
    assert not any(lab.environment["EDITR1_S3_SECRET_KEY"] in text for text in texts.values())


def test_cancel_deletes_all_objects_in_its_namespace_only(
    lab: Lab, curated: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    generator = make_lab(tmp_path_factory.mktemp("other"))
    other = next(generator)
    try:
        other.submit("curate", curated, VALUES, "--follow")
        assert curated in lab.editr1("list").stdout
        other.editr1("cancel", curated)
        until("everything is deleted", lambda: other.release_objects() == [], 60)
        assert "no runs or stages of Edit-R1" in other.editr1("list").stdout
        assert "succeeded" in lab.editr1("status", curated).stdout
    finally:
        with pytest.raises(StopIteration):
            next(generator)
