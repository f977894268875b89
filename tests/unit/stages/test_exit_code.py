"""The exit code of a stage shows whether a retry may succeed."""

import errno
import importlib
import inspect
import logging
import pkgutil
import re
from pathlib import Path

import pytest

import editr1
from editr1.artifacts import AccessDenied, ArtifactNotFound, DigestMismatch, StoreError, UnusableFolder
from editr1.config.loader import ConfigError
from editr1.config.store import StoreConfig
from editr1.data.errors import TableError
from editr1.errors import Editr1Error, ExitCode, is_retryable
from editr1.launch.orchestrator import StageFailed
from editr1.runs.job import StageJob
from editr1.runs.resolve import HubUnreachable
from editr1.stages.runtime import entry
from editr1.stages.runtime.entry import exit_code


def errors():
    from torch.distributed import DistNetworkError

    from editr1.curation.errors import CurationError
    from editr1.editor.reward import RewardBudgetExceeded, RewardModelChanged, RewardUnreachable
    from editr1.evaluation.benchmarks import BenchmarkError
    from editr1.llm.errors import EndpointUnavailable
    from editr1.serving.model_of_run import ModelMismatch

    return [
        (ConfigError("x"), ExitCode.CONFIG),
        (TableError("rows.parquet", 3, "instruction", "", "empty"), ExitCode.DATA),
        (BenchmarkError("row 0: no text"), ExitCode.DATA),
        (ArtifactNotFound("sha256:0"), ExitCode.INPUT),
        (DigestMismatch("sha256:0"), ExitCode.INPUT),
        (AccessDenied("the keys are wrong"), ExitCode.CONFIG),
        (UnusableFolder("it contains no files"), ExitCode.CONFIG),
        (StoreError("the bucket cannot be reached"), ExitCode.TRANSIENT),
        (EndpointUnavailable("no answer"), ExitCode.TRANSIENT),
        (CurationError("too many requests failed"), ExitCode.CONFIG),
        (RewardUnreachable(3, 10, 0.1, {"unreachable": 3}), ExitCode.TRANSIENT),
        (ModelMismatch("two models"), ExitCode.INPUT),
        (RewardModelChanged("two verifiers"), ExitCode.INPUT),
        (RewardBudgetExceeded(3, 10, 0.1, {"deadline": 3}), ExitCode.REWARD_BUDGET),
        (ConnectionError("gone"), ExitCode.TRANSIENT),
        (HubUnreachable("the hub does not respond"), ExitCode.TRANSIENT),
        (OSError(errno.ENOSPC, "No space left on device", "/work/x"), ExitCode.TRANSIENT),
        (OSError(errno.EIO, "Input/output error"), ExitCode.UNEXPECTED),
        (DistNetworkError("Connection reset by peer"), ExitCode.TRANSIENT),
        (RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer"), ExitCode.TRANSIENT),
        (RuntimeError("shapes differ"), ExitCode.UNEXPECTED),
        (ZeroDivisionError("a bug"), ExitCode.UNEXPECTED),
    ]


@pytest.mark.parametrize(("error", "code"), errors(), ids=lambda value: type(value).__name__)
def test_each_error_maps_to_its_exit_code(error, code):
    assert exit_code(error) == code
    assert is_retryable(code) == (code is ExitCode.TRANSIENT)


def subclasses(base: type[Editr1Error]) -> set[type[Editr1Error]]:
    return {base}.union(*(subclasses(child) for child in base.__subclasses__()))


def test_every_error_class_has_a_documented_exit_code():
    for module in pkgutil.walk_packages(editr1.__path__, "editr1."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    documented = dict(re.findall(r'    (\w+) = \d+\n    """(.+)"""', inspect.getsource(ExitCode)))
    assert set(documented) == {code.name for code in ExitCode}
    found = {error for error in subclasses(Editr1Error) if error.__module__.startswith("editr1.")} - {Editr1Error}
    assert len(found) > 20
    for error in found:
        assert ExitCode(error.exit_code).name in documented
        if not issubclass(error, StageFailed):  # each instance has the exit code of its stage process
            assert error.exit_code not in (ExitCode.DONE, ExitCode.UNEXPECTED), error


@pytest.mark.parametrize(
    ("missing", "code", "message"),
    [
        (
            "aiohttp",
            ExitCode.CONFIG,
            "package 'aiohttp' is not installed; a curate stage needs: pip install 'editr1[curate]'",
        ),
        ("editr1.nowhere", ExitCode.UNEXPECTED, ""),
    ],
)
def test_missing_extra_is_reported_with_the_install_command(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    missing: str,
    code: int,
    message: str,
) -> None:
    def body(_context: object) -> dict[str, float]:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    store = StoreConfig(url=(tmp_path / "store").as_uri())
    job = StageJob(run="r", stage="c", kind="curate", key="a" * 64, seed=0, store=store, workdir=tmp_path)
    (tmp_path / "job.json").write_text(job.model_dump_json())
    monkeypatch.setenv("EDITR1_CONFIG", str(tmp_path / "job.json"))
    monkeypatch.setattr(entry, "end_with_parent", lambda: None)
    monkeypatch.setattr(entry, "configure_logging", lambda *_: None)
    monkeypatch.setattr(entry.signal, "signal", lambda *_: None)
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as ended:
        entry.main(body, "editr1.stages.curate")
    assert ended.value.code == code
    assert message in caplog.text


def test_job_file_of_another_kind_of_stage_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = StoreConfig(url=(tmp_path / "store").as_uri())
    job = StageJob(run="r", stage="c", kind="curate", key="a" * 64, seed=0, store=store, workdir=tmp_path)
    (tmp_path / "job.json").write_text(job.model_dump_json())
    monkeypatch.setenv("EDITR1_CONFIG", str(tmp_path / "job.json"))
    monkeypatch.setattr(entry, "end_with_parent", lambda: None)
    monkeypatch.setattr(entry, "configure_logging", lambda *_: None)
    with caplog.at_level(logging.ERROR), pytest.raises(SystemExit) as ended:
        entry.main(lambda _: {}, "editr1.stages.evaluate")
    assert ended.value.code == ExitCode.CONFIG
    assert "belongs to stage c of kind curate, but this process runs editr1.stages.evaluate" in caplog.text
