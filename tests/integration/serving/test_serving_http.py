"""Client and server over HTTP: readiness, overload, deadlines, draining, killed replicas and malicious input."""

from __future__ import annotations

import json
import signal
import socket
import struct
import time
import zlib
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from editr1.config.serve import ClientConfig
from editr1.data.types import FailureCause, Scored, ScoreFailure
from editr1.serving.api import encode_request
from editr1.serving.client import RewardClient
from editr1.telemetry import Span, configure, span
from editr1.verifier.model import folder_digest

LIMITS = {"max_body_bytes": 200_000, "max_pixels": 1_000_000, "body_timeout_seconds": 2}


@pytest.fixture(scope="module")
def server(start_server):
    """A server with small limits, shared by tests that do not change its state."""
    return start_server(**LIMITS)


@pytest.fixture(scope="module")
def busy(start_server, untrained):
    """A server that holds at most twelve items and takes several seconds per batch (four items of 900 tokens each)."""
    settings = {
        "golden_must_parse": "false",
        "max_new_tokens": 900,
        "max_batch_size": 4,
        "max_queued_items": 12,
        "max_request_items": 12,
    }
    return start_server(model=untrained, **settings)


@pytest.fixture
def held(busy, make_items):
    """``held(n)`` keeps ``n`` items running or queued on ``busy``, which are completed after the test."""
    with ThreadPoolExecutor(4) as pool:
        posts = []

        def hold(n: int) -> None:
            posts.append(pool.submit(post, busy.url, encode_request(make_items(n))))
            wait_for(lambda: samples(busy.url)[("editr1_reward_in_flight",)] >= n)

        yield hold
        assert all(p.result(120).status_code == 200 for p in posts)
    wait_for(lambda: samples(busy.url)[("editr1_reward_in_flight",)] == 0)


def samples(url: str) -> dict[tuple[str, ...], float]:
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    families = text_string_to_metric_families(text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def wait_for(condition, seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition was not met in time"
        time.sleep(0.02)


def test_server_listens_on_all_ipv4_and_ipv6_addresses(start_server) -> None:
    port = start_server(host="*").url.rpartition(":")[2]
    for host in ["127.0.0.1", "[::1]"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]:
        assert httpx.get(f"http://{host}:{port}/readyz", trust_env=False).text == "ready\n"


def post(url: str, body: bytes, timeout: float = 60) -> httpx.Response:
    return httpx.post(f"{url}/v1/score", content=body, timeout=timeout, trust_env=False)


def test_ready_server_scores_items_and_reports_readiness_and_metrics(server, make_items, verifier) -> None:
    assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200
    assert httpx.get(f"{server.url}/readyz", trust_env=False).text == "ready\n"
    with RewardClient([server.url], config=ClientConfig(max_request_items=5)) as client:
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
        several = client.score(make_items(2), num_traces=3, temperature=0.3)
        assert all(isinstance(o, Scored) and len(o.texts) == 3 for o in several)
        assert client.score([]) == []
    found = samples(server.url)
    assert found[("editr1_reward_in_flight",)] == 0
    assert found[("editr1_reward_items_total", "ok")] == 14
    assert found[("editr1_reward_requests_total", "200")] == 4


def test_invalid_item_does_not_affect_other_items(server, make_items) -> None:
    items = make_items(3)
    broken = items[1].edited.model_copy(update={"data": b"not an image"})
    items[1] = items[1].model_copy(update={"edited": broken})
    with RewardClient([server.url]) as client:
        outcomes = client.score(items)
    assert [o.ok for o in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], ScoreFailure)
    assert outcomes[1].cause is FailureCause.INVALID
    assert "not an image" in outcomes[1].detail


def test_decompression_bombs_and_oversized_bodies_are_rejected_without_decoding(server, make_items) -> None:

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = 8000  # 192 MB of pixels in 190 kB
    pixels = zlib.compress(b"\0" * (size * 3 + 1) * size, 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels[:100_000]) + chunk(b"IEND", b"")
    raw = json.loads(encode_request(make_items(2)))
    raw["items"][0]["edited"] = {"data": b64encode(bomb).decode()}
    results = post(server.url, json.dumps(raw).encode()).json()["results"]
    assert "8000 x 8000" in results[0]["detail"]
    assert results[1]["ok"]

    large = post(server.url, b'{"items": ["' + b"a" * 300_000 + b'"]}')
    assert large.status_code == 413
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw_socket:
        raw_socket.sendall(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n{")
        assert raw_socket.recv(100).startswith(b"HTTP/1.1 413")
    assert httpx.get(f"{server.url}/healthz", trust_env=False).status_code == 200


def test_client_that_does_not_send_its_body_is_disconnected(server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw_socket:
        raw_socket.sendall(b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert raw_socket.recv(100).startswith(b"HTTP/1.1 408")


def test_client_waits_when_a_full_queue_returns_429(busy, held, make_items) -> None:
    held(12)
    refused = post(busy.url, encode_request(make_items(1)))
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    with RewardClient([busy.url]) as client:
        (late,) = client.score(make_items(1), deadline_seconds=0.4)
        assert isinstance(late, ScoreFailure)
        assert late.cause is FailureCause.OVERLOADED
        (outcome,) = client.score(make_items(1), deadline_seconds=120)
    assert isinstance(outcome, ScoreFailure)
    assert outcome.cause is FailureCause.UNPARSED  # the item is scored after the wait
    assert samples(busy.url)[("editr1_reward_requests_total", "429")] >= 2


def test_deadlines_apply_while_the_engine_is_busy(busy, held, make_items) -> None:
    held(8)
    results = post(busy.url, encode_request(make_items(2), deadline_ms=300)).json()["results"]
    assert [r["cause"] for r in results] == ["deadline", "deadline"]
    with RewardClient([busy.url]) as client:
        (outcome,) = client.score(make_items(1), deadline_seconds=2.0)
    assert isinstance(outcome, ScoreFailure)
    assert outcome.cause is FailureCause.DEADLINE
    assert samples(busy.url)[("editr1_reward_in_flight",)] > 0  # the engine still runs the first or the second batch


def test_queued_items_of_a_disconnected_client_are_dropped(busy, held, make_items) -> None:
    before = samples(busy.url)[("editr1_reward_batch_size_sum",)]
    held(4)
    with pytest.raises(httpx.ReadTimeout):
        post(busy.url, encode_request(make_items(4)), timeout=0.5)
    wait_for(lambda: samples(busy.url)[("editr1_reward_in_flight",)] == 0, 60)
    assert samples(busy.url)[("editr1_reward_batch_size_sum",)] == before + 4


def test_one_opentelemetry_trace_covers_client_queue_batch_and_generation(start_server, make_items, tmp_path) -> None:
    file = tmp_path / "server-spans.jsonl"
    server = start_server(env={"EDITR1_SPAN_FILE": str(file)})
    client_file = tmp_path / "client-spans.jsonl"
    configure("test-client", client_file)
    with RewardClient([server.url]) as client, span("test.root") as root:
        assert client.score(make_items(2))[0].ok
        trace = format(root.get_span_context().trace_id, "032x")
    server.stop()
    spans = [json.loads(line) for path in (client_file, file) for line in path.read_text().splitlines()]
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


def test_sigterm_drains_all_accepted_requests(start_server, make_items) -> None:
    server = start_server(max_batch_size=1)
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(post, server.url, encode_request(make_items(10, seed=k))) for k in range(8)]
        wait_for(lambda: samples(server.url)[("editr1_reward_in_flight",)] >= 65)
        server.popen.send_signal(signal.SIGTERM)
        answers = [h.result(60) for h in held]
    assert [a.status_code for a in answers] == [200] * 8
    assert all(r["score"] == 7.5 for a in answers for r in a.json()["results"])
    assert server.popen.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        post(server.url, b"{}")


def test_no_score_is_lost_when_a_replica_is_killed_under_load(start_server, make_items) -> None:
    servers = [start_server(max_batch_size=1), start_server(max_batch_size=1)]
    with RewardClient([s.url for s in servers], config=ClientConfig(max_request_items=4, concurrency=8)) as client:
        future = client.submit(make_items(160))
        wait_for(lambda: samples(servers[0].url)[("editr1_reward_in_flight",)] >= 8)
        servers[0].popen.kill()
        outcomes = future.result(120)
        assert len(outcomes) == 160
        assert all(isinstance(o, Scored) and o.score == 7.5 for o in outcomes)
        assert all(o.ok for o in client.score(make_items(8)))
