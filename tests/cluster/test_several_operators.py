"""Several releases of the operator's chart in one cluster, and names that the EditRun resource refuses."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.conftest import ROOT, Lab
from tests.cluster.operator_process import edit_run, install_crd

CRD = "editruns.editr1.dev"
STAGE = {"name": "curate", "kind": "curate"}


def helm(*arguments: str) -> str:
    environment = {**os.environ, "HELM_DRIVER": "configmap"}
    done = subprocess.run(["helm", *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def install(release: str, namespace: str, watched: str) -> str:
    # No node has the label, so that the operators do not start and do not act on the runs of other tests.
    values = ("--set", f"namespaces={{{watched}}}", "--set-string", "nodeSelector.editr1\\.dev/none=true")
    return helm("install", release, str(ROOT / "charts/operator"), "-n", namespace, *values)


@pytest.fixture
def namespaces(lab: Lab) -> Iterator[tuple[str, str]]:
    """Create two namespaces, and delete them and the objects outside them at the end. Restore the absence of the CRD."""
    known = bool(lab.kubectl("get", "crd", CRD, "-o", "name", "--ignore-not-found"))
    token = secrets.token_hex(3)
    names = (f"editr1-one-{token}", f"editr1-two-{token}")
    for name in names:
        lab.kubectl("create", "namespace", name)
    yield names
    for name in names:
        for release in helm("list", "-n", name, "-q").split():
            helm("uninstall", release, "-n", name)
        lab.kubectl("delete", "namespace", name, "--wait=false")
    if not known:
        lab.kubectl("delete", "crd", CRD, "--ignore-not-found")


def test_several_operators_are_installed_without_conflict(lab: Lab, namespaces: tuple[str, str]) -> None:
    one, two = namespaces
    install("operator", one, lab.namespace)
    before = lab.get("crd", CRD)["metadata"]["uid"]
    notes = install("operator", two, lab.namespace)  # the same release name, and the same watched namespace
    assert "already exists in the cluster and belongs to" in notes
    roles = lab.kubectl("get", "roles,rolebindings", "-o", "name").split()
    for kind in ("role", "rolebinding"):
        for name in namespaces:
            assert f"{kind}.rbac.authorization.k8s.io/operator.{name}" in roles
    helm("uninstall", "operator", "-n", one)
    assert lab.get("crd", CRD)["metadata"]["uid"] == before, "the CRD stays when an operator is uninstalled"
    install("another", one, lab.namespace)
    assert lab.get("crd", CRD)["metadata"]["uid"] == before
    helm("upgrade", "operator", str(ROOT / "charts/operator"), "-n", two, "--reuse-values")


@pytest.fixture
def crd(lab: Lab) -> Iterator[None]:
    known = install_crd(lab)
    yield
    if not known:
        lab.kubectl("delete", "crd", CRD)


def refusal(lab: Lab, body: dict[str, Any]) -> str:
    command = ["kubectl", "-n", lab.namespace, "apply", "--dry-run=server", "-f", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(body), capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def test_resource_refuses_names_that_kubernetes_or_pods_cannot_have(lab: Lab, crd: None) -> None:
    for name in ("2-run", "a.b", "r" * 46):
        assert "metadata.name" in refusal(lab, edit_run(name, [STAGE])), name
    for name in ("2-stage", "a.b", "Stage", "s" * 46):
        assert "spec.stages[0].name" in refusal(lab, edit_run("named", [{**STAGE, "name": name}])), name
    assert "at most 44 characters together" in refusal(lab, edit_run("r" * 39, [STAGE]))
    assert refusal(lab, edit_run("r" * 38, [STAGE])) == ""
