"""A service can be restarted after it has ended; a completed stage does nothing."""

from pathlib import Path

import pytest

from editr1.artifacts import open_store
from editr1.config.store import StoreConfig
from editr1.runs.job import StageJob
from editr1.runs.kinds import Kind
from editr1.runs.record import load_result
from editr1.stages.runtime import entry
from editr1.stages.runtime.context import StageContext


def job(kind: Kind, folder: Path) -> StageJob:
    (folder / "work").mkdir()
    made = StageJob(
        run="r",
        stage="s",
        kind=kind,
        key="a" * 64,
        seed=0,
        store=StoreConfig(url=(folder / "store").as_uri()),
        workdir=folder / "work",
    )
    made.progress_file.write_text("")
    return made


@pytest.mark.parametrize(("kind", "starts"), [(Kind.SERVE, 2), (Kind.CURATE, 1)])
def test_only_services_restart_after_completion(
    kind: Kind, starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)
    started = []

    def body(context: StageContext) -> dict[str, float]:
        started.append(context.job.stage)
        return {}

    made = job(kind, tmp_path)
    assert [entry._run(body, made), entry._run(body, made)] == [0, 0]
    assert len(started) == starts
    result = load_result(open_store(made.store), "r", "s", made.key)
    assert (result is None) == (kind is Kind.SERVE)
