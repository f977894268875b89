"""Spans of several runs in one process are written to separate files."""

import subprocess
import sys
from pathlib import Path

CODE = """
import sys
from pathlib import Path
from editr1.telemetry import configure, span
for name in ("one", "two"):
    configure("editr1-run", Path(sys.argv[1]) / f"{name}.jsonl")
    with span(name):
        with span(f"{name}-inner"):
            pass
"""


def test_spans_go_to_the_file_of_the_current_run(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for name, other in (("one", "two"), ("two", "one")):
        text = (tmp_path / f"{name}.jsonl").read_text()
        assert len(text.splitlines()) == 2
        assert f'"{name}-inner"' in text
        assert other not in text
