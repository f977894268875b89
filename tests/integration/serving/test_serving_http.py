"""Client and server over real HTTP: readiness, overload, deadlines, draining, lost replicas, hostile input."""

from __future__ import annotations

import json

import signal
import socket
import struct
import threading
import time
import zlib
from base64 import b64encode
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from editr1.config.serve import ClientConfig
from editr1.data.types import FailureCause, Scored, ScoreFailure
from editr1.serving.api import encode_request
from editr1.serving.client import ModelMismatch, RewardClient
from editr1.shapes.tiny_verifier import build_tiny_verifier
from editr1.telemetry import Span, configure, span
from editr1.verifier.model import folder_digest

SLOW = {"golden_must_parse": "false", "max_tokens": 900, "max_batch": 4}
"""With random weights: every batch writes 900 tokens, seconds of work."""


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A verifier with random weights: it writes until it is cut off."""
    return build_tiny_verifier(tmp_path_factory.mktemp("babbler") / "verifier", words=("red",), seed=3)


def samples(url: str) -> dict[tuple[str, ...], float]:
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def wait_for(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def post(url: str, body: bytes, timeout: float = 60) -> httpx.Response:
    return httpx.post(f"{url}/v1/score", content=body, timeout=timeout, trust_env=False)


def test_scores_travel_whole_and_the_server_says_how_it_is(start_server, make_items, verifier) -> None:
    server = start_server()
    assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
    assert httpx.get(f"{server.url}/readyz", trust_env=False).text == "ready\n"
    with RewardClient([server.url], config=ClientConfig(batch_items=5)) as client:
        with pytest.raises(LookupError):
            client.model_digest()
        outcomes = client.score(make_items(12))
        assert client.model_digest() == folder_digest(verifier)
        for outcome in outcomes:
            assert isinstance(outcome, Scored), outcome
            assert outcome.score == 7.5
            assert outcome.verdicts[0].scores == (1, 0)
            assert outcome.verdicts[0].reasoning == "red seen, yes; rest kept, no;"
            assert outcome.completion_tokens > 5
            assert outcome.prompt_tokens > outcome.completion_tokens / 10
        several = client.score(make_items(2), traces=3, temperature=0.3)
        assert all(isinstance(o, Scored) and len(o.texts) == 3 for o in several)
        assert client.score([]) == []
    found = samples(server.url)
    assert found[("editr1_reward_in_flight",)] == 0
    assert found[("editr1_reward_items_total", "ok")] == 14
    assert found[("editr1_reward_requests_total", "200")] == 4
    assert server.stop() == 0


def test_a_bad_item_beside_good_ones_fails_alone(start_server, make_items) -> None:
    server = start_server()
    items = make_items(3)
    torn = items[1].edited.model_copy(update={"data": b"no picture"})
    items[1] = items[1].model_copy(update={"edited": torn})
    with RewardClient([server.url]) as client:
        outcomes = client.score(items)
    assert [o.ok for o in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], ScoreFailure)
    assert outcomes[1].cause is FailureCause.INVALID
    assert "not a picture" in outcomes[1].detail


def test_bombs_and_oversize_bodies_are_refused_before_anything_is_decoded(start_server, make_items) -> None:
    server = start_server(max_body_bytes=200_000, max_pixels=1_000_000)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = 8000  # 192 MB of pixels in 190 kB
    pixels = zlib.compress(b"\0" * (size * 3 + 1) * size, 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels[:100_000]) + chunk(b"IEND", b"")
    raw = json.loads(encode_request(make_items(2)))
    raw["items"][0]["edited"] = {"data": b64encode(bomb).decode()}
    start = time.monotonic()
    results = post(server.url, json.dumps(raw).encode()).json()["results"]
    assert "8000 x 8000" in results[0]["detail"]
    assert results[1]["ok"]
    assert time.monotonic() - start < 5

    large = post(server.url, b'{"items": ["' + b"a" * 300_000 + b'"]}')
    assert large.status_code == 413
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw_socket:
        raw_socket.sendall(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n{")
        assert raw_socket.recv(100).startswith(b"HTTP/1.1 413")
    assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200


def test_a_client_that_never_sends_its_body_is_cut_off(start_server) -> None:
    server = start_server(body_timeout_s=0.5)
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw_socket:
        raw_socket.sendall(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert raw_socket.recv(100).startswith(b"HTTP/1.1 408")


def test_a_full_queue_answers_429_and_the_client_waits_as_told(start_server, make_items, babbler) -> None:
    server = start_server(model=babbler, queue_items=4, max_items=4, **SLOW)
    body = encode_request(make_items(4))
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(post, server.url, body)
        wait_for(lambda: samples(server.url)[("editr1_reward_in_flight",)] == 4)
        refused = post(server.url, encode_request(make_items(1)))
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        with RewardClient([server.url]) as client:
            assert client.score(make_items(1), deadline_s=0.4)[0].cause is FailureCause.OVERLOADED  # type: ignore[union-attr]
            (outcome,) = client.score(make_items(1), deadline_s=60)
        assert isinstance(outcome, ScoreFailure)
        assert outcome.cause is FailureCause.UNPARSED  # it was run in the end
        assert held.result(60).status_code == 200
    assert samples(server.url)[("editr1_reward_requests_total", "429")] >= 2


def test_the_deadline_is_kept_while_the_engine_is_busy(start_server, make_items, babbler) -> None:
    server = start_server(model=babbler, **SLOW)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(post, server.url, encode_request(make_items(4)))
        wait_for(lambda: samples(server.url)[("editr1_reward_in_flight",)] == 4)
        start = time.monotonic()
        results = post(server.url, encode_request(make_items(2), deadline_ms=300)).json()["results"]
        assert time.monotonic() - start < 2
        assert [r["cause"] for r in results] == ["deadline", "deadline"]
        with RewardClient([server.url]) as client:
            start = time.monotonic()
            (outcome,) = client.score(make_items(1), deadline_s=0.5)
            assert time.monotonic() - start < 2
            assert isinstance(outcome, ScoreFailure)
            assert outcome.cause is FailureCause.DEADLINE
        assert held.result(60).status_code == 200


def test_work_of_a_client_that_left_is_dropped(start_server, make_items, babbler) -> None:
    server = start_server(model=babbler, **SLOW)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(post, server.url, encode_request(make_items(4)))
        wait_for(lambda: samples(server.url)[("editr1_reward_in_flight",)] == 4)
        with pytest.raises(httpx.ReadTimeout):
            post(server.url, encode_request(make_items(8)), timeout=0.5)
        held.result(60)
    wait_for(lambda: samples(server.url)[("editr1_reward_in_flight",)] == 0, 5)
    assert samples(server.url)[("editr1_reward_batch_size_sum",)] == 5  # the golden sample and the four


def test_sigterm_drains_and_loses_nothing(start_server, make_items) -> None:
    server = start_server(max_batch=2)
    with ThreadPoolExecutor(6) as pool:
        held = [pool.submit(post, server.url, encode_request(make_items(8, seed=k))) for k in range(6)]
        wait_for(lambda: samples(server.url)[("editr1_reward_in_flight",)] >= 40)
        server.popen.send_signal(signal.SIGTERM)
        answers = [h.result(60) for h in held]
    assert [a.status_code for a in answers] == [200] * 6
    assert all(r["score"] == 7.5 for a in answers for r in a.json()["results"])
    assert server.popen.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        post(server.url, b"{}")


def test_no_score_is_lost_when_a_replica_is_killed_under_load(start_server, make_items) -> None:
    servers = [start_server(max_batch=2), start_server(max_batch=2)]
    with RewardClient([s.url for s in servers], config=ClientConfig(batch_items=4, concurrency=8)) as client:
        future = client.submit(make_items(160))
        wait_for(lambda: samples(servers[0].url)[("editr1_reward_in_flight",)] >= 8)
        servers[0].popen.kill()
        outcomes = future.result(120)
        assert len(outcomes) == 160
        assert all(isinstance(o, Scored) and o.score == 7.5 for o in outcomes)
        assert all(o.ok for o in client.score(make_items(8)))


def test_load_is_spread_over_the_replicas(start_server, make_items) -> None:
    servers = [start_server(), start_server()]
    with RewardClient([s.url for s in servers], config=ClientConfig(batch_items=2, concurrency=8)) as client:
        assert all(o.ok for o in client.score(make_items(64)))
    shares = [samples(s.url)[("editr1_reward_items_total", "ok")] for s in servers]
    assert sum(shares) == 64
    assert min(shares) >= 10


def test_replicas_of_different_models_are_an_error(start_server, make_items, babbler) -> None:
    first = start_server()
    second = start_server(model=babbler, golden_must_parse="false", max_tokens=8)
    with RewardClient([first.url, second.url], config=ClientConfig(batch_items=1)) as client:
        with pytest.raises(ModelMismatch, match="sha256:"):
            client.score(make_items(16))
    with RewardClient([second.url], expected_digest="sha256:" + "0" * 64) as client, pytest.raises(ModelMismatch):
        client.score(make_items(1))


def test_an_absent_service_gives_failures_in_time_and_no_exception(make_items) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with RewardClient([url], config=ClientConfig(max_attempts=3, backoff_s=0.05)) as client:
            start = time.monotonic()
            outcomes = client.score(make_items(20), deadline_s=5)
            assert time.monotonic() - start < 8
    assert {o.cause for o in outcomes if isinstance(o, ScoreFailure)} == {FailureCause.UNREACHABLE}
    assert len(outcomes) == 20


def test_a_service_that_comes_up_late_is_found(start_server, make_items) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = ClientConfig(max_attempts=50, backoff_s=0.2)
    with RewardClient([f"http://127.0.0.1:{port}"], config=config) as client:
        future = client.submit(make_items(2), deadline_s=60)
        time.sleep(0.5)
        start_server(port=port)
        assert all(o.ok for o in future.result(60))


def test_host_names_are_looked_up_again(start_server, make_items) -> None:
    servers = [start_server(), start_server()]
    ports = [int(s.url.rsplit(":", 1)[1]) for s in servers]
    relay = _Relay(ports[0])
    asked: Counter[str] = Counter()

    def resolve(host: str, port: int) -> list[str]:
        asked[host] += 1
        return ["127.0.0.1"]

    with relay, RewardClient(
        [f"http://reward.example.test:{relay.port}"], config=ClientConfig(resolve_s=0.2), resolve=resolve
    ) as client:
        assert all(o.ok for o in client.score(make_items(2)))
        time.sleep(0.3)
        assert all(o.ok for o in client.score(make_items(2)))
    assert asked["reward.example.test"] >= 2


def test_one_trace_reaches_from_the_client_through_queue_batch_and_generation(
    start_server, make_items, tmp_path
) -> None:
    file = tmp_path / "server-spans.jsonl"
    server = start_server(env={"EDITR1_SPAN_FILE": str(file)})
    mine = tmp_path / "client-spans.jsonl"
    configure("test-client", mine)
    with RewardClient([server.url]) as client, span("test.root") as root:
        assert client.score(make_items(2))[0].ok
        trace = format(root.get_span_context().trace_id, "032x")
    server.stop()
    spans = [json.loads(line) for path in (mine, file) for line in path.read_text().splitlines()]
    named = {s["name"]: s for s in spans if s["trace"] == trace}
    chain = [Span.REWARD_REQUEST, Span.REWARD_SERVE, Span.REWARD_QUEUE, Span.REWARD_BATCH, Span.REWARD_GENERATE]
    assert set(chain) <= set(named)
    request, serve, queue, batch, generate = (named[name] for name in chain)
    assert request["parent"] == named["test.root"]["span"]
    assert serve["parent"] == request["span"]
    assert queue["parent"] == batch["parent"] == serve["span"]
    assert generate["parent"] == batch["span"]
    assert serve["start"] <= queue["start"] <= queue["end"] <= batch["start"] <= generate["start"] < generate["end"]
    assert generate["end"] <= batch["end"] <= serve["end"]


def test_a_model_that_cannot_score_ends_the_server_with_a_reason(start_server, babbler) -> None:
    with pytest.raises(AssertionError, match="golden sample was not scored: unparsed"):
        start_server(model=babbler, max_tokens=8)


def test_a_taken_port_ends_the_server_with_a_reason(start_server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(AssertionError, match="could not start there"):
            start_server(port=taken.getsockname()[1])


class _Relay:
    """Passes TCP connections on to a port; stands for the address behind a name."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> _Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            outer = socket.create_connection(("127.0.0.1", self._target))
            for a, b in ((inner, outer), (outer, inner)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    @staticmethod
    def _pump(a: socket.socket, b: socket.socket) -> None:
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            return


