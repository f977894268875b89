"""A curate stage with a labelling server that refuses some requests until it is repaired."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from editr1.artifacts import open_store
from editr1.cli.view import RunView
from editr1.config.store import store_at
from editr1.launch.single_stage import run_single_stage
from editr1.runs.record import RunRecord, State, load_record
from editr1.runs.spec import StageSpec
from editr1.shapes.labeller_server import labeller_server

NUM_REFUSED = 3


class _Proxy(ThreadingHTTPServer):
    """Forwards requests to ``target``. While ``is_broken``, it refuses the first ``NUM_REFUSED`` requests to the decomposer."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = target
        self.is_broken = True
        self.refused: set[str] = set()
        self.seen: list[str] = []
        self.lock = threading.Lock()

    def refuses(self, body: bytes) -> bool:
        text = json.dumps(json.loads(body)["messages"])
        with self.lock:
            self.seen.append(text)
            if self.is_broken and json.loads(body)["model"] == "shapes-oracle" and len(self.refused) < NUM_REFUSED:
                self.refused.add(text)
            return self.is_broken and text in self.refused


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.refuses(body):
            status, data = 400, b'{"error": {"message": "this image is not allowed"}}'
        else:
            reply = httpx.post(f"{self.server.target}/chat/completions", content=body)
            status, data = reply.status_code, reply.content
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def proxy() -> Iterator[_Proxy]:
    with labeller_server() as url:
        server = _Proxy(url)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
        server.server_close()


def curate(proxy: _Proxy, folder: Path) -> RunRecord:
    """Run the same stage command, and return the record of its run."""
    proxy.seen.clear()
    principles = {"total": [6, 6], "follow": [1, 2], "keep": [3, 4], "quality": [1, 1]}
    endpoint = {"base_url": f"http://127.0.0.1:{proxy.server_address[1]}/v1", "concurrency": 4}
    config = {
        "curation": {"endpoints": {"default": endpoint}, "principles": principles, "num_traces": 1},
        "shapes": {"cases": 6, "candidates": 1, "pairs": 4, "test_pairs": 4, "rl_cases": 4, "test_cases": 4},
    }
    stage = StageSpec(name="curate", kind="curate", config=config)
    run_single_stage(
        stage,
        seed=0,
        folder=folder,
        store=None,
        command="editr1 curate",
        observer=RunView(),
        should_stop=lambda: False,
    )
    record = load_record(open_store(store_at((folder / "store").as_uri())), folder.name)
    assert record is not None and record.state is State.DONE
    return record


def test_command_asks_again_only_for_refused_items_until_all_are_answered(
    proxy: _Proxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "labels"
    partial = curate(proxy, folder).stages["curate"]
    assert partial.missing.causes == {"decompose: RequestRefused": NUM_REFUSED}
    assert (
        f"curate: {NUM_REFUSED} of {partial.missing.total} items have no usable model answer" in capsys.readouterr().err
    )

    same = curate(proxy, folder).stages["curate"]
    assert set(proxy.seen) == proxy.refused and len(proxy.seen) == NUM_REFUSED
    assert (same.outputs, same.missing) == (partial.outputs, partial.missing.model_copy(update={"asked": 2}))
    assert "they were requested in 2 invocations with the same outcome" in capsys.readouterr().err

    proxy.is_broken = False
    repaired = curate(proxy, folder).stages["curate"]
    assert proxy.refused <= set(proxy.seen)
    assert not repaired.missing
    assert repaired.metrics["cases"] == partial.metrics["cases"] + NUM_REFUSED
    new_rows = repaired.metrics["rows"] - partial.metrics["rows"]
    # Each new row needs the traces of one member and the gold verdicts.
    assert len(proxy.seen) == NUM_REFUSED + 2 * new_rows

    attempts = len(repaired.attempts)
    assert len(curate(proxy, folder).stages["curate"].attempts) == attempts and not proxy.seen
