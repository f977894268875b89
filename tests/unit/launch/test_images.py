"""Build arguments of the images in the Makefile match the Containerfiles."""

import re
import subprocess
from pathlib import Path

import pytest

from editr1.launch.kubernetes.values import chart_of
from editr1.runs.kinds import KINDS, Kind

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def builds() -> dict[str, str]:
    """Return the build arguments in ``make images`` by image name."""
    plan = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "images", "BUILD=build", "PYTHON=python"],
        cwd=ROOT, text=True, capture_output=True, check=True,
    )  # fmt: skip
    script = plan.stdout[plan.stdout.index("for stage in") :]
    run = subprocess.run(
        ["bash", "-c", f'build() {{ echo "$@"; }}\n{script}'], cwd=ROOT, text=True, capture_output=True, check=True
    )
    return {re.search(r"-t docker\.io/editr1/(\S+):dev", line)[1]: line for line in run.stdout.splitlines()}  # type: ignore[index]


@pytest.mark.parametrize("kind", list(Kind))
def test_stage_image_is_built_with_kind_and_extras_of_its_stage(kind: Kind, builds: dict[str, str]) -> None:
    arguments = dict(re.findall(r"--build-arg (\w+)=(\S*)", builds[chart_of(kind)]))
    assert arguments["KIND"] == kind
    assert arguments["TITLE"] == f"editr1/{chart_of(kind)}"
    assert set(KINDS[kind].extras) <= set(arguments["EXTRAS"].split(","))
    assert builds[chart_of(kind)].endswith("-f images/stage/Containerfile .")


def test_operator_image_has_its_own_containerfile(builds: dict[str, str]) -> None:
    assert builds["operator"].endswith("-f images/operator/Containerfile .")
    assert set(builds) == {chart_of(kind) for kind in Kind} | {"operator"}


def test_build_arguments_match_the_arguments_of_the_containerfile(builds: dict[str, str]) -> None:
    for arguments in builds.values():
        text = (ROOT / arguments.split("-f ")[1].split()[0]).read_text()
        assert set(re.findall(r"--build-arg (\w+)=", arguments)) == set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
