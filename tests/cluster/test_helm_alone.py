"""A stage with Helm and a values file alone: no submit, no record written beforehand."""

import json
import subprocess

from tests.cluster.conftest import REGISTRY, ROOT, SMALL_WORLD, TAG, Lab, until


def helm(lab: Lab, *arguments: str) -> str:
    done = subprocess.run(["helm", *arguments, "-n", lab.namespace], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_stage_is_installed_followed_and_uninstalled_with_helm(lab: Lab) -> None:
    values = {
        **lab.settings["values"],
        "image": {"repository": f"{REGISTRY}/curate", "tag": TAG},
        "config": SMALL_WORLD,
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
    until("nothing left", lambda: not [item for item in lab.left() if "by-hand" in item], 60)
