"""Exit codes of commands that follow releases."""

import pytest

from editr1.cli.follow import exit_code_of_releases
from editr1.launch.kubernetes.overview import StageOverview
from editr1.launch.kubernetes.state import Phase, StageState
from editr1.launch.kubernetes.views import JobView, PodView, ReleaseView

NOW = 1000.0


def stage(phase: Phase, *, code: int | None = None, service: bool = False, pod: str = "Succeeded") -> StageOverview:
    job = JobView(name="r-sft", run="r", stage="sft", kind="serve" if service else "sft", created=0.0, service=service)
    pods = (PodView(name="r-sft-0", uid="u", phase=pod, created=0.0),)
    release = ReleaseView(name="r-sft", namespace="lab", job=job, pods=pods, events=())
    return StageOverview(job, release, StageState(phase, exit_code=code))


@pytest.mark.parametrize(
    ("stages", "code"),
    [
        ([], None),
        ([stage(Phase.RUNNING)], None),
        ([stage(Phase.SUCCEEDED)], 0),
        ([stage(Phase.SUCCEEDED, pod="Running")], None),
        ([stage(Phase.READY, service=True)], 0),
        ([stage(Phase.FAILED, code=3)], 3),
        ([stage(Phase.FAILED)], 1),
        ([stage(Phase.FAILED, code=3), stage(Phase.RUNNING)], None),
        ([stage(Phase.SUCCEEDED), stage(Phase.FAILED, code=5), stage(Phase.FAILED, code=4)], 5),
    ],
)
def test_exit_code_is_set_once_every_release_has_ended(stages: list[StageOverview], code: int | None) -> None:
    assert exit_code_of_releases(stages, NOW) == code
