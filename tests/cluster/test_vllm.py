"""A reward server generates through its vLLM sidecar.

The test needs an image with the CPU build of vLLM (see vllm.Containerfile). EDITR1_TEST_VLLM_IMAGE is the image's name.
"""

import os
import subprocess

import pytest

from tests.cluster.conftest import Lab
from tests.cluster.test_reward_service import Load, completed

IMAGE = os.environ.get("EDITR1_TEST_VLLM_IMAGE", "")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not IMAGE, reason="EDITR1_TEST_VLLM_IMAGE is not set; see tests/cluster/vllm.Containerfile"),
]
RELEASE = "sidecar"
VALUES = {
    "inputs": {"model": "builtin:shapes-verifier"},
    "config": {"max_new_tokens": 96, "golden_must_parse": False},
    "preStopSeconds": 3,
    "startupTimeoutSeconds": 300,
    "vllm": {
        "enabled": True,
        "image": IMAGE,
        "args": [
            *("--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "32", "--dtype", "float32"),
            *("--limit-mm-per-prompt", '{"image":2,"video":0}'),
        ],
        "env": [
            {"name": "TORCH_COMPILE_DISABLE", "value": "1"},
            {"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"},
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "3Gi"}},
    },
}


def test_reward_pod_scores_through_its_vllm_sidecar(lab: Lab) -> None:
    output = lab.submit("reward", RELEASE, VALUES, "--follow")
    assert f"{RELEASE} is ready" in output
    (pod,) = lab.get("pods", "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]
    assert {item["name"] for item in pod["status"]["initContainerStatuses"] if item.get("started")} == {"vllm"}
    found = Load(lab, "load-vllm", f"http://{RELEASE}.{lab.namespace}.svc:8000", 20, 4).result()
    assert completed(found) > 10
    served = lab.kubectl("logs", pod["metadata"]["name"], "-c", "vllm")
    assert served.count("POST /v1/chat/completions") >= completed(found)
    done = subprocess.run(
        ["helm", "test", RELEASE, "-n", lab.namespace],
        capture_output=True,
        text=True,
        env={**lab.environment, "HELM_DRIVER": "configmap"},
    )
    assert done.returncode == 0 and "Succeeded" in done.stdout, done.stdout + done.stderr
    lab.editr1("cancel", RELEASE)
