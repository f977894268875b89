"""The golden sample in the folder of a verifier."""

from __future__ import annotations

from pathlib import Path

import pytest

from editr1.data.types import ScoreItem
from editr1.errors import ExitCode
from editr1.serving import run
from editr1.serving.golden import GOLDEN_FILE, default_golden, save_golden


def test_server_reads_the_golden_sample_of_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = default_golden()[0].model_copy(update={"instruction": "Turn the image grey."})
    save_golden(tmp_path / GOLDEN_FILE, [item])
    served: list[ScoreItem] = []
    monkeypatch.setattr(run, "make_engine", lambda *_a, **_k: None)
    monkeypatch.setattr(run, "serve", lambda _e, _c, golden, **_k: served.extend(golden))
    assert run.main([str(tmp_path)]) == ExitCode.DONE
    assert [one.instruction for one in served] == ["Turn the image grey."]


def test_invalid_golden_sample_is_refused_with_its_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / GOLDEN_FILE).write_text("{")
    assert run.main([str(tmp_path)]) == ExitCode.CONFIG
    assert GOLDEN_FILE in caplog.text + capfd.readouterr().err
