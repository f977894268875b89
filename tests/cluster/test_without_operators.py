"""The commands doctor and submit report a missing training-operator or KEDA, and jobs run once it is installed.

The tests delete CustomResourceDefinitions temporarily, which deletes every job in the cluster. They run only if
EDITR1_TEST_DISPOSABLE_CLUSTER is set, which declares that nobody else uses the cluster.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.conftest import SMALL_CURATION, Lab, until

pytestmark = pytest.mark.skipif(
    not os.environ.get("EDITR1_TEST_DISPOSABLE_CLUSTER"),
    reason="deletes CRDs; set EDITR1_TEST_DISPOSABLE_CLUSTER if nobody else uses the cluster",
)


@contextmanager
def without(lab: Lab, crd: str, path: str) -> Iterator[None]:
    """Delete a CustomResourceDefinition and create it again afterwards."""
    saved: dict[str, Any] = json.loads(lab.kubectl("get", "crd", crd, "-o", "json"))
    saved.pop("status")
    saved["metadata"] = {key: saved["metadata"].get(key) or {} for key in ("name", "labels", "annotations")}
    lab.kubectl("delete", "crd", crd)
    try:
        until(f"{crd} is deleted", lambda: path not in lab.kubectl("api-resources", "-o", "name"), 30)
        yield
    finally:
        lab.kubectl("create", "-f", "-", stdin=json.dumps(saved))
        lab.wait_established(crd)
        until(f"{crd} is served", lambda: path in lab.kubectl("api-resources", "-o", "name"), 30)


def test_missing_keda_is_reported(lab: Lab) -> None:
    values = {"inputs": {"model": "builtin:shapes-verifier"}, "autoscaling": {"mode": "keda"}}
    with without(lab, "scaledobjects.keda.sh", "scaledobjects.keda.sh"):
        done = lab.editr1("doctor", check=False)
        assert done.returncode == 0, "no stage requires KEDA"
        assert "only the autoscaling modes hpa and none are available" in " ".join(done.stdout.split())
        output = lab.submit("reward", "unscaled", values, check=False)
        assert "install KEDA 2.19 or newer, or set autoscaling.mode to hpa or none" in output
        assert not lab.kubectl(
            "get", "deployments,configmaps", "-l", "app.kubernetes.io/instance=unscaled", "-o", "name"
        )


def test_missing_training_operator_is_reported(lab: Lab) -> None:
    with without(lab, "pytorchjobs.kubeflow.org", "pytorchjobs.kubeflow.org"):
        done = lab.editr1("doctor", check=False)
        assert done.returncode == 1
        assert "install Kubeflow's training-operator 1.9" in " ".join(done.stdout.split())
        output = lab.submit("curate", "untrained", {"config": SMALL_CURATION}, check=False)
        assert "install Kubeflow's training-operator 1.9" in output
        assert not lab.kubectl("get", "configmaps", "-l", "app.kubernetes.io/instance=untrained", "-o", "name")
    lab.submit("curate", "untrained", {"config": SMALL_CURATION}, "--follow")
    lab.editr1("cancel", "untrained")
