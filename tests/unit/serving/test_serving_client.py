"""The reward client with HTTP servers in threads of this process, and failures to start a server."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

from editr1.config.serve import ClientConfig, ServeConfig
from editr1.data.types import FailureCause, Scored, ScoreFailure
from editr1.serving.client import RewardClient
from editr1.serving.model_of_run import ModelMismatch
from editr1.serving.replicas import Replica, Replicas
from editr1.serving.run import AddressUnavailable, GoldenFailed, serve

StartServer = Callable[..., "tuple[str, Callable[[], None]]"]


@pytest.fixture
def start_server(make_items) -> Iterator[StartServer]:
    """``start_server(engine, **settings)`` returns the URL of a ready server and a function that stops it."""
    stops: list[Callable[[], None]] = []

    def start(engine: object, **config: object) -> tuple[str, Callable[[], None]]:
        urls: list[str] = []
        ready, stopping = threading.Event(), threading.Event()

        def on_ready(url: str) -> None:
            urls.append(url)
            ready.set()

        settings = ServeConfig(**{"port": 0, "batch_wait_ms": 0, **config})
        thread = threading.Thread(
            target=serve,
            args=(engine, settings, make_items(1)),
            kwargs={"on_ready": on_ready, "should_stop": stopping.is_set},
            daemon=True,
        )
        thread.start()
        assert ready.wait(30)

        def stop() -> None:
            stopping.set()
            thread.join(30)
            assert not thread.is_alive()

        stops.append(stop)
        return urls[0], stop

    yield start
    for stop in stops:
        stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_long_calls_are_split_and_results_keep_their_order(start_server, fake_engine, make_items) -> None:
    url, _ = start_server(fake_engine)
    red = [k % 250 + 1 for k in range(50)]
    with RewardClient([url], config=ClientConfig(max_request_items=7)) as client:
        outcomes = client.score(make_items(50, red=red))
        assert client.model_digest() == fake_engine.model_digest
        assert client.score([]) == []
    assert [o.score for o in outcomes if isinstance(o, Scored)] == [round(r / 25.5, 1) for r in red]


def test_requests_are_split_by_size_in_bytes(start_server, fake_engine, make_items) -> None:
    url, _ = start_server(fake_engine, max_body_bytes=20_000)  # two images of 3 kB per item
    with RewardClient([url], config=ClientConfig(max_request_bytes=14_000)) as client:
        assert all(o.ok for o in client.score(make_items(10)))


def test_threads_can_share_a_client(start_server, fake_engine, make_items) -> None:
    url, _ = start_server(fake_engine)
    with RewardClient([url], config=ClientConfig(max_request_items=3)) as client, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.score, make_items(5, seed=k, red=[k * 10 + 1] * 5)) for k in range(16)]
        for k, call in enumerate(calls):
            assert [o.score for o in call.result(60)] == [round((k * 10 + 1) / 25.5, 1)] * 5


def test_item_that_fails_in_the_engine_is_retried_once(start_server, fake_engine, make_items) -> None:
    url, _ = start_server(fake_engine)
    with RewardClient([url]) as client:
        outcomes = client.score(make_items(3, red=[51, 0, 51]))
    assert [o.ok for o in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], ScoreFailure)
    assert outcomes[1].cause is FailureCause.ENGINE
    assert sum(size == 1 for size, _ in fake_engine.batches) >= 1


def test_replicas_with_different_models_raise_an_error(
    start_server, fake_engine, half_unparsed_engine, make_items
) -> None:
    half_unparsed_engine.model_digest = "sha256:" + "b" * 64
    first, _ = start_server(fake_engine)
    second, _ = start_server(half_unparsed_engine)
    both = RewardClient([first, second], config=ClientConfig(max_request_items=1))
    with both as client, pytest.raises(ModelMismatch, match=r"sha256:[0b]{64}"):
        client.score(make_items(32))
    with RewardClient([first], expected_digest="sha256:" + "c" * 64) as client, pytest.raises(ModelMismatch):
        client.score(make_items(1))


def test_load_is_balanced_over_the_replicas(start_server, fake_engine, half_unparsed_engine, make_items) -> None:
    urls = [start_server(engine)[0] for engine in (fake_engine, half_unparsed_engine)]
    with RewardClient(urls, config=ClientConfig(max_request_items=2, concurrency=8)) as client:
        assert all(o.ok for o in client.score(make_items(80)))
    items_per_replica = [sum(size for size, _ in engine.batches) for engine in (fake_engine, half_unparsed_engine)]
    assert sum(items_per_replica) == 82  # including the two golden samples
    assert min(items_per_replica) >= 12


def test_no_item_is_lost_when_a_replica_stops(start_server, fake_engine, half_unparsed_engine, make_items) -> None:
    (first, stop), (second, _) = start_server(fake_engine), start_server(half_unparsed_engine)
    with RewardClient([first, second], config=ClientConfig(max_request_items=2, concurrency=4)) as client:
        future = client.submit(make_items(120))
        stop()
        assert all(o.ok for o in future.result(60))
        assert all(o.ok for o in client.score(make_items(4)))


@pytest.mark.parametrize("wait", [True, False])
def test_unreachable_service_yields_failures_within_the_deadline(make_items, wait) -> None:
    config = ClientConfig(max_attempts=3, backoff_seconds=0.02, wait_unreachable=wait)
    started = time.monotonic()
    with RewardClient([f"http://127.0.0.1:{free_port()}"], config=config) as client:
        outcomes = client.score(make_items(20), deadline_seconds=2)
    assert time.monotonic() - started < 5
    assert {o.cause for o in outcomes if isinstance(o, ScoreFailure)} == {FailureCause.UNREACHABLE}
    assert len(outcomes) == 20


def test_client_waits_for_a_service_that_starts_late(start_server, fake_engine, make_items) -> None:
    port = free_port()
    with RewardClient([f"http://127.0.0.1:{port}"], config=ClientConfig(max_attempts=1, backoff_seconds=0.1)) as client:
        future = client.submit(make_items(2), deadline_seconds=60)
        wait_until(lambda: failures(client) >= 2)
        start_server(fake_engine, port=port)
        assert all(o.ok for o in future.result(60))


def test_invalid_response_is_retried_and_reported(make_items) -> None:
    port = free_port()
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"] * 9
    config = ClientConfig(max_attempts=2, backoff_seconds=0.01)
    with scripted_server(answers, port), RewardClient([f"http://127.0.0.1:{port}"], config=config) as client:
        (outcome,) = client.score(make_items(1), deadline_seconds=10)
    assert isinstance(outcome, ScoreFailure)
    assert outcome.cause is FailureCause.BAD_RESPONSE
    assert 9 - len(answers) == 2


def test_client_waits_for_the_replacement_of_a_draining_server(start_server, fake_engine, make_items) -> None:
    port = free_port()
    answers = [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"] * 3
    config = ClientConfig(max_attempts=1, backoff_seconds=0.02)
    with scripted_server(answers, port) as server, RewardClient([f"http://127.0.0.1:{port}"], config=config) as client:
        future = client.submit(make_items(2), deadline_seconds=60)
        wait_until(lambda: not server.is_alive())
        start_server(fake_engine, port=port)
        assert all(o.ok for o in future.result(60))


def test_stopping_process_does_not_wait_for_an_unreachable_service(make_items) -> None:
    stop = threading.Event()
    url = f"http://127.0.0.1:{free_port()}"
    with RewardClient([url], config=ClientConfig(deadline_seconds=60), should_stop=stop.is_set) as client:
        future = client.submit(make_items(4))
        wait_until(lambda: failures(client) >= 1)
        assert not future.done()
        stop.set()
        outcomes = future.result(10)
        assert {o.cause for o in outcomes if isinstance(o, ScoreFailure)} == {FailureCause.UNREACHABLE}
        stop.clear()
        before = failures(client)
        last = client.submit(make_items(4))
        wait_until(lambda: failures(client) > before)
        started = time.monotonic()
    assert time.monotonic() - started < 10, "close must not wait for the service"
    assert not any(o.ok for o in last.result(1))


def test_stopping_process_does_not_wait_for_a_host_name_that_cannot_be_resolved(make_items) -> None:
    lookups: list[str] = []

    def fail_to_resolve(host: str, _port: int) -> list[str]:
        lookups.append(host)
        raise OSError("no such name")

    stop = threading.Event()
    config = ClientConfig(deadline_seconds=60)
    with RewardClient(
        ["http://reward:8000"], config=config, should_stop=stop.is_set, resolve=fail_to_resolve
    ) as client:
        future = client.submit(make_items(1))
        wait_until(lambda: len(lookups) >= 2)
        assert not future.done()
        stop.set()
        assert not any(o.ok for o in future.result(10))


def test_calls_do_not_wait_after_another_call_reached_its_deadline_in_the_same_outage(
    start_server, fake_engine, make_items
) -> None:
    port = free_port()
    with RewardClient([f"http://127.0.0.1:{port}"], config=ClientConfig(backoff_seconds=0.1)) as client:
        assert not any(o.ok for o in client.score(make_items(1), deadline_seconds=0.8))
        started = time.monotonic()
        assert not any(o.ok for o in client.score(make_items(1), deadline_seconds=60))
        assert time.monotonic() - started < 20
        start_server(fake_engine, port=port)
        wait_until(lambda: all(o.ok for o in client.score(make_items(1), deadline_seconds=1)))
        assert all(o.ok for o in client.score(make_items(1)))


def test_calls_wait_again_in_a_second_outage(start_server, fake_engine, half_unparsed_engine, make_items) -> None:
    port = free_port()
    config = ClientConfig(backoff_seconds=0.05)
    with RewardClient([f"http://127.0.0.1:{port}"], config=config) as client:
        assert not any(o.ok for o in client.score(make_items(1), deadline_seconds=0.3))
        _, stop = start_server(fake_engine, port=port)
        wait_until(lambda: all(o.ok for o in client.score(make_items(1), deadline_seconds=1)))
        stop()
        before = failures(client)
        future = client.submit(make_items(1), deadline_seconds=60)
        wait_until(lambda: failures(client) > before)
        start_server(half_unparsed_engine, port=port)
        assert all(o.ok for o in future.result(60))


def test_slow_response_is_aborted_at_the_deadline(make_items) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    port = free_port()
    with (
        scripted_server([(head, *[b" "] * 200)], port, pause_s=0.05),
        RewardClient([f"http://127.0.0.1:{port}"]) as client,
    ):
        started = time.monotonic()
        (outcome,) = client.score(make_items(1), deadline_seconds=0.5)
    assert isinstance(outcome, ScoreFailure)
    assert time.monotonic() - started < 2.5


def test_pause_after_failures_is_bounded() -> None:
    replicas = _replicas(lambda host, port: ["10.0.0.1"])
    (one,) = replicas.current()
    for _ in range(3000):
        replicas.record_failure(one)
    assert 6.0 < one.available_at - time.monotonic() <= 10.0


def test_invalid_arguments_are_rejected(make_items) -> None:
    for urls in ([], ["ftp://x"], ["http://"], ["http://user:key@x"], ["x:80"]):
        with pytest.raises(ValueError, match="url"):
            RewardClient(urls)
    with RewardClient(["http://127.0.0.1:1"]) as client, pytest.raises(ValueError, match="temperature above 0"):
        client.score(make_items(1), num_traces=2, temperature=0)


@contextmanager
def scripted_server(answers: list, port: int, pause_s: float = 0.0) -> Iterator[threading.Thread]:
    """Run a server that sends one of ``answers`` per connection, with pauses between the parts, and stops after the last."""

    def serve() -> None:
        while answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.recv(1 << 20)
                given = answers.pop(0)
                for part in [given] if isinstance(given, bytes) else given:
                    connection.sendall(part)
                    time.sleep(pause_s)
        listener.close()

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield thread


def wait_until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def failures(client: RewardClient) -> int:
    """Return the number of consecutive failures of the only replica of ``client``."""
    return sum(replica.failures for replica in client._replicas.current())


def _replicas(resolve, **more) -> Replicas:
    return Replicas(
        ["http://reward:8000"], **{"resolve_interval_seconds": 0.05, "backoff_seconds": 0.1, **more}, resolve=resolve
    )


def test_every_address_of_a_host_is_a_replica_and_hosts_are_resolved_again(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("editr1.serving.replicas.time.monotonic", lambda: now[0])
    answers = [["10.0.0.1", "10.0.0.2"], OSError("no answer"), ["10.0.0.2", "fd00::3"]]
    lookups = []

    def resolve(host: str, port: int) -> list[str]:
        lookups.append((host, port))
        answer = answers[min(len(lookups), len(answers)) - 1]
        if isinstance(answer, OSError):
            raise answer
        return answer

    replicas = _replicas(resolve)
    assert sorted(r.url for r in replicas.current()) == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    assert {r.host for r in replicas.current()} == {"reward:8000"}
    assert len(lookups) == 1
    now[0] += 0.06
    assert len(replicas.current()) == 2, "the addresses are kept if they cannot be resolved"
    now[0] += 0.06
    assert sorted(r.url for r in replicas.current()) == ["http://10.0.0.2:8000", "http://[fd00::3]:8000"]
    assert lookups[0] == ("reward", 8000)


def test_untried_replicas_come_first_then_the_least_loaded() -> None:
    replicas = _replicas(lambda host, port: ["10.0.0.1", "10.0.0.2"], resolve_interval_seconds=60)
    first = replicas.acquire(5, ())
    second = replicas.acquire(1, ())
    assert isinstance(first, Replica)
    assert isinstance(second, Replica)
    assert first is not second
    assert replicas.acquire(1, ()) is second
    assert replicas.acquire(1, (second,)) is first
    replicas.release(first, 6)
    assert replicas.acquire(1, ()) is first


def test_failed_and_busy_replicas_are_paused(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("editr1.serving.replicas.time.monotonic", lambda: now[0])
    replicas = _replicas(lambda host, port: ["10.0.0.1", "10.0.0.2"], resolve_interval_seconds=60, backoff_seconds=0.1)
    first, second = replicas.current()
    replicas.record_failure(first)
    assert replicas.acquire(1, ()) is second
    replicas.record_busy(second, 5.0)
    wait = replicas.acquire(1, ())
    assert isinstance(wait, float)
    assert 0 < wait <= 0.125
    now[0] += 0.13
    assert replicas.acquire(1, ()) is first


def test_https_host_name_is_kept_for_the_certificate() -> None:
    replicas = Replicas(
        ["https://reward/api"], resolve_interval_seconds=9, backoff_seconds=1, resolve=lambda host, port: ["10.0.0.1"]
    )
    (replica,) = replicas.current()
    assert (replica.url, replica.tls_name, replica.host) == ("https://10.0.0.1:443/api", "reward", "reward")


def test_model_that_cannot_score_stops_the_server_with_the_reason(half_unparsed_engine, make_items) -> None:
    half_unparsed_engine._unparsed_every = 1
    with pytest.raises(GoldenFailed, match="golden sample was not scored: unparsed"):
        serve(half_unparsed_engine, ServeConfig(port=0), make_items(1))


def test_port_in_use_stops_the_server_with_the_reason(fake_engine, make_items) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(AddressUnavailable, match="could not bind this address"),
    ):
        serve(fake_engine, ServeConfig(port=taken.getsockname()[1]), make_items(1))
