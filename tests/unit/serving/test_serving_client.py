"""The client against servers in threads of this process, over real HTTP, and the drained life of a server."""

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
from editr1.serving.client import ModelMismatch, RewardClient
from editr1.serving.replicas import Replica, Replicas
from editr1.serving.run import GoldenFailed, PortTaken, serve

Host = Callable[..., "tuple[str, Callable[[], None]]"]


@pytest.fixture
def host(make_items) -> Iterator[Host]:
    """``host(engine, **settings)``: (URL, stop) of a ready server."""
    stops: list[Callable[[], None]] = []

    def start(engine: object, **config: object) -> tuple[str, Callable[[], None]]:
        urls: list[str] = []
        ready, leave = threading.Event(), threading.Event()

        def on_ready(url: str) -> None:
            urls.append(url)
            ready.set()

        settings = ServeConfig(**{"port": 0, "batch_wait_ms": 0, **config})
        thread = threading.Thread(
            target=serve,
            args=(engine, settings, make_items(1)),
            kwargs={"on_ready": on_ready, "should_stop": leave.is_set},
            daemon=True,
        )
        thread.start()
        assert ready.wait(30)

        def stop() -> None:
            leave.set()
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


def test_long_calls_are_split_and_come_back_in_order(host, rule_engine, make_items) -> None:
    url, _ = host(rule_engine)
    red = [k % 250 + 1 for k in range(50)]
    with RewardClient([url], config=ClientConfig(max_request_items=7)) as client:
        outcomes = client.score(make_items(50, red=red))
        assert client.model_digest() == rule_engine.model_digest
        assert client.score([]) == []
    assert [o.score for o in outcomes if isinstance(o, Scored)] == [round(r / 25.5, 1) for r in red]


def test_requests_are_split_by_bytes_too(host, rule_engine, make_items) -> None:
    url, _ = host(rule_engine, max_body_bytes=20_000)  # two pictures of 3 kB an item
    with RewardClient([url], config=ClientConfig(max_request_bytes=14_000)) as client:
        assert all(o.ok for o in client.score(make_items(10)))


def test_many_threads_share_a_client(host, rule_engine, make_items) -> None:
    url, _ = host(rule_engine)
    with RewardClient([url], config=ClientConfig(max_request_items=3)) as client, ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(client.score, make_items(5, seed=k, red=[k * 10 + 1] * 5)) for k in range(16)]
        for k, call in enumerate(calls):
            assert [o.score for o in call.result(60)] == [round((k * 10 + 1) / 25.5, 1)] * 5


def test_an_item_that_the_engine_fails_on_is_tried_once_more_and_then_final(host, rule_engine, make_items) -> None:
    url, _ = host(rule_engine)
    with RewardClient([url]) as client:
        outcomes = client.score(make_items(3, red=[51, 0, 51]))
    assert [o.ok for o in outcomes] == [True, False, True]
    assert isinstance(outcomes[1], ScoreFailure)
    assert outcomes[1].cause is FailureCause.ENGINE
    assert sum(size == 1 for size, _ in rule_engine.batches) >= 1


def test_replicas_of_different_models_are_an_error(host, rule_engine, half_mute_engine, make_items) -> None:
    half_mute_engine.model_digest = "sha256:" + "b" * 64
    first, _ = host(rule_engine)
    second, _ = host(half_mute_engine)
    both = RewardClient([first, second], config=ClientConfig(max_request_items=1))
    with both as client, pytest.raises(ModelMismatch, match=r"sha256:[0b]{64}"):
        client.score(make_items(32))
    with RewardClient([first], expected_digest="sha256:" + "c" * 64) as client, pytest.raises(ModelMismatch):
        client.score(make_items(1))


def test_load_is_spread_over_the_replicas(host, rule_engine, half_mute_engine, make_items) -> None:
    urls = [host(engine)[0] for engine in (rule_engine, half_mute_engine)]
    with RewardClient(urls, config=ClientConfig(max_request_items=2, concurrency=8)) as client:
        assert all(o.ok for o in client.score(make_items(80)))
    shares = [sum(size for size, _ in engine.batches) for engine in (rule_engine, half_mute_engine)]
    assert sum(shares) == 82  # with the two golden samples
    assert min(shares) >= 12


def test_a_stopped_replica_is_left_and_nothing_is_lost(host, rule_engine, half_mute_engine, make_items) -> None:
    (first, stop), (second, _) = host(rule_engine), host(half_mute_engine)
    with RewardClient([first, second], config=ClientConfig(max_request_items=2, concurrency=4)) as client:
        future = client.submit(make_items(120))
        stop()
        assert all(o.ok for o in future.result(60))
        assert all(o.ok for o in client.score(make_items(4)))


@pytest.mark.parametrize("patient", [True, False])
def test_an_absent_service_gives_failures_in_time_and_no_exception(make_items, patient) -> None:
    config = ClientConfig(max_attempts=3, backoff_seconds=0.02, wait_unreachable=patient)
    began = time.monotonic()
    with RewardClient([f"http://127.0.0.1:{free_port()}"], config=config) as client:
        outcomes = client.score(make_items(20), deadline_seconds=2)
    assert time.monotonic() - began < 5
    assert {o.cause for o in outcomes if isinstance(o, ScoreFailure)} == {FailureCause.UNREACHABLE}
    assert len(outcomes) == 20


def test_a_service_that_comes_up_late_is_found(host, rule_engine, make_items) -> None:
    port = free_port()
    with RewardClient([f"http://127.0.0.1:{port}"], config=ClientConfig(max_attempts=1, backoff_seconds=0.1)) as client:
        future = client.submit(make_items(2), deadline_seconds=60)
        time.sleep(0.6)
        host(rule_engine, port=port)
        assert all(o.ok for o in future.result(60))


def test_an_answer_that_is_no_answer_is_retried_and_reported(make_items) -> None:
    port = free_port()
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"] * 9
    config = ClientConfig(max_attempts=2, backoff_seconds=0.01)
    with answering(answers, port), RewardClient([f"http://127.0.0.1:{port}"], config=config) as client:
        (outcome,) = client.score(make_items(1), deadline_seconds=10)
    assert isinstance(outcome, ScoreFailure)
    assert outcome.cause in (FailureCause.ENGINE, FailureCause.UNREACHABLE)
    assert 9 - len(answers) == 2


def test_a_draining_server_is_asked_again_until_another_takes_its_place(host, rule_engine, make_items) -> None:
    port = free_port()
    answers = [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"] * 3
    config = ClientConfig(max_attempts=1, backoff_seconds=0.02)
    with answering(answers, port) as server, RewardClient([f"http://127.0.0.1:{port}"], config=config) as client:
        future = client.submit(make_items(2), deadline_seconds=60)
        until(lambda: not server.is_alive())
        host(rule_engine, port=port)
        assert all(o.ok for o in future.result(60))


def test_a_process_that_ends_waits_for_no_service_that_is_away(make_items) -> None:
    stop = threading.Event()
    url = f"http://127.0.0.1:{free_port()}"
    with RewardClient([url], config=ClientConfig(deadline_seconds=60), should_stop=stop.is_set) as client:
        future = client.submit(make_items(4))
        time.sleep(0.3)
        assert not future.done()
        stop.set()
        outcomes = future.result(10)
        assert {o.cause for o in outcomes if isinstance(o, ScoreFailure)} == {FailureCause.UNREACHABLE}
        stop.clear()
        left = client.submit(make_items(4))
        time.sleep(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 10, "closing waits for no service either"
    assert not any(o.ok for o in left.result(1))


def test_a_service_of_no_address_is_not_waited_for_either_by_a_process_that_ends(make_items) -> None:
    def nowhere(_host: str, _port: int) -> list[str]:
        raise OSError("no such name")

    stop = threading.Event()
    config = ClientConfig(deadline_seconds=60)
    with RewardClient(["http://reward:8000"], config=config, should_stop=stop.is_set, resolve=nowhere) as client:
        future = client.submit(make_items(1))
        time.sleep(0.3)
        assert not future.done()
        stop.set()
        assert not any(o.ok for o in future.result(10))


def test_calls_after_one_that_waited_in_vain_do_not_wait_until_somebody_answers(host, rule_engine, make_items) -> None:
    port = free_port()
    with RewardClient([f"http://127.0.0.1:{port}"], config=ClientConfig(backoff_seconds=0.1)) as client:
        assert not any(o.ok for o in client.score(make_items(1), deadline_seconds=0.8))
        began = time.monotonic()
        assert not any(o.ok for o in client.score(make_items(1), deadline_seconds=60))
        assert time.monotonic() - began < 20
        host(rule_engine, port=port)
        time.sleep(1.0)
        until(lambda: all(o.ok for o in client.score(make_items(1), deadline_seconds=1)))
        assert all(o.ok for o in client.score(make_items(1)))


def test_an_answer_that_dribbles_ends_with_the_deadline(make_items) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    port = free_port()
    with (
        answering([(head, *[b" "] * 200)], port, pause_s=0.05),
        RewardClient([f"http://127.0.0.1:{port}"]) as client,
    ):
        began = time.monotonic()
        (outcome,) = client.score(make_items(1), deadline_seconds=0.5)
    assert isinstance(outcome, ScoreFailure)
    assert time.monotonic() - began < 2.5


def test_a_replica_that_is_gone_for_hours_costs_no_more_than_a_pause() -> None:
    replicas = _replicas(lambda host, port: ["10.0.0.1"])
    (one,) = replicas.current()
    for _ in range(3000):
        replicas.failed(one)
    assert one.free_at - time.monotonic() <= 10.0


def test_settings_that_make_no_sense_are_refused(make_items) -> None:
    for urls in ([], ["ftp://x"], ["http://"], ["http://user:key@x"], ["x:80"]):
        with pytest.raises(ValueError, match="url"):
            RewardClient(urls)
    with RewardClient(["http://127.0.0.1:1"]) as client, pytest.raises(ValueError, match="temperature above 0"):
        client.score(make_items(1), num_traces=2, temperature=0)


@contextmanager
def answering(answers: list, port: int, pause_s: float = 0.0) -> Iterator[threading.Thread]:
    """A server that gives each connection the next of ``answers`` (bytes, or parts with a pause between), then is gone."""

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


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


def _replicas(resolve, **more) -> Replicas:
    return Replicas(
        ["http://reward:8000"], **{"resolve_interval_seconds": 0.05, "backoff_seconds": 0.1, **more}, resolve=resolve
    )


def test_every_address_behind_a_name_is_a_replica_and_names_are_looked_up_again() -> None:
    answers = [["10.0.0.1", "10.0.0.2"], OSError("no answer"), ["10.0.0.2", "fd00::3"]]
    asked = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, OSError):
            raise answer
        return answer

    replicas = _replicas(resolve)
    assert sorted(r.url for r in replicas.current()) == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    assert {r.host for r in replicas.current()} == {"reward:8000"}
    time.sleep(0.06)
    assert len(replicas.current()) == 2  # the look-up failed: what was known stays
    time.sleep(0.06)
    assert sorted(r.url for r in replicas.current()) == ["http://10.0.0.2:8000", "http://[fd00::3]:8000"]
    assert asked[0] == ("reward", 8000)


def test_the_least_loaded_replica_is_taken_untried_ones_first() -> None:
    replicas = _replicas(lambda host, port: ["10.0.0.1", "10.0.0.2"], resolve_interval_seconds=60)
    first = replicas.take(5, ())
    second = replicas.take(1, ())
    assert isinstance(first, Replica)
    assert isinstance(second, Replica)
    assert first is not second
    assert replicas.take(1, ()) is second
    assert replicas.take(1, (second,)) is first
    replicas.give_back(first, 6)
    assert replicas.take(1, ()) is first


def test_failed_and_busy_replicas_are_left_alone_for_a_while(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("editr1.serving.replicas.time.monotonic", lambda: now[0])
    replicas = _replicas(lambda host, port: ["10.0.0.1", "10.0.0.2"], resolve_interval_seconds=60, backoff_seconds=0.1)
    first, second = replicas.current()
    replicas.failed(first)
    assert replicas.take(1, ()) is second
    replicas.busy(second, 5.0)
    wait = replicas.take(1, ())
    assert isinstance(wait, float)
    assert 0 < wait <= 0.125
    now[0] += 0.13
    assert replicas.take(1, ()) is first


def test_an_https_name_keeps_its_name_for_the_certificate() -> None:
    replicas = Replicas(
        ["https://reward/api"], resolve_interval_seconds=9, backoff_seconds=1, resolve=lambda host, port: ["10.0.0.1"]
    )
    (replica,) = replicas.current()
    assert (replica.url, replica.tls_name, replica.host) == ("https://10.0.0.1:443/api", "reward", "reward")


def test_a_model_that_cannot_score_ends_the_server_with_a_reason(half_mute_engine, make_items) -> None:
    half_mute_engine._mute_every = 1
    with pytest.raises(GoldenFailed, match="golden sample was not scored: unparsed"):
        serve(half_mute_engine, ServeConfig(port=0), make_items(1))


def test_a_taken_port_ends_the_server_with_a_reason(rule_engine, make_items) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken, match="could not start there"):
        serve(rule_engine, ServeConfig(port=taken.getsockname()[1]), make_items(1))
