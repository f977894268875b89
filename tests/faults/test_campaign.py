"""A campaign of faults: no wrong result, no hang, no unclear error, no lost work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.classify import Outcome
from tests.faults.command import run_command
from tests.faults.table import bad, read_results

COUNT = "EDITR1_TEST_FAULTS"
"""Environment variable with the number of faults."""
OUT = "EDITR1_TEST_FAULTS_OUT"
"""Environment variable with the folder of the campaign, in which an interrupted one is continued."""


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_campaign_has_no_bad_outcome(tmp_path: Path) -> None:
    count = int(os.environ.get(COUNT, "1000"))
    out = Path(os.environ.get(OUT, str(tmp_path)))
    done = run_command(out, "--count", str(count), timeout=6 * 3600 - 60)
    results = read_results(out / "results.jsonl")
    met = [result for result in results if result["outcome"] in list(Outcome) and result["outcome"] != Outcome.NOT_MET]
    assert len(met) >= count, done.stderr[-3000:]
    assert bad(results) == [], done.stdout
