"""The identity of a reward model: what it depends on, and how it is asked for."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi.testclient import TestClient

from editr1.config.loader import ConfigError
from editr1.config.serve import OpenAIEngineConfig, ServeConfig
from editr1.errors import ExitCode
from editr1.serving.identity import (
    OPERATIONAL,
    OPERATIONAL_OPENAI,
    RewardIdentity,
    RewardsDiffer,
    RewardUnreachable,
    ServiceInfo,
    ask_identity,
    is_model_digest,
    reward_identity,
)
from editr1.serving.server import create_app

MODEL = "sha256:" + "a" * 64
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """``serve(status, body)`` returns the URL of a server that answers every GET request like this."""
    servers = []

    def start(*answers: tuple[int, object]) -> str:
        waiting = list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "change",
    [{"max_new_tokens": 7}, {"temperature": 0.5}, {"top_p": 0.9}, {"engine": "openai"}, {"dtype": "float16"}],
)
def test_identity_changes_with_settings_that_change_scores(change: dict[str, object]) -> None:
    assert reward_identity(MODEL, ServeConfig()) != reward_identity(MODEL, ServeConfig.model_validate(change))


def test_identity_does_not_depend_on_address_load_and_limits() -> None:
    changed = ServeConfig(host="0.0.0.0", port=9, max_batch_size=3, max_queued_items=400, drain_timeout_seconds=3)
    assert reward_identity(MODEL, ServeConfig()) == reward_identity(MODEL, changed)
    addresses = [ServeConfig(engine="openai", openai={"base_url": f"http://h:{port}/v1"}) for port in (1, 2)]
    assert reward_identity(MODEL, addresses[0]) == reward_identity(MODEL, addresses[1])
    named = ServeConfig(engine="openai", openai={"model": "other"})
    assert reward_identity(MODEL, addresses[0]) != reward_identity(MODEL, named)


def test_operational_settings_exist() -> None:
    assert set(ServeConfig.model_fields) >= OPERATIONAL
    assert set(OpenAIEngineConfig.model_fields) >= OPERATIONAL_OPENAI


def test_server_reports_the_identity_of_its_model_and_settings(fake_engine, make_items) -> None:
    config = ServeConfig(max_new_tokens=77, port=1)
    with TestClient(create_app(fake_engine, config, make_items(1, seed=9))) as client:
        reported = ServiceInfo.model_validate(client.get("/v1/info").json())
    assert reported.verdicts
    assert RewardIdentity(**reported.model_dump(exclude={"verdicts"})) == reward_identity(
        fake_engine.model_digest, config
    )
    assert reported.settings["max_new_tokens"] == 77


def test_identity_is_asked_for_until_a_server_answers(serve: Serve) -> None:
    reported = reward_identity(MODEL, ServeConfig())
    url = serve((503, "loading"), (200, reported.model_dump()))
    assert ask_identity(["http://127.0.0.1:1", url], 20) == reported


def test_message_names_every_address_that_was_tried(serve: Serve) -> None:
    url = serve((503, "loading weights"))
    with pytest.raises(RewardUnreachable) as caught:
        ask_identity(["http://127.0.0.1:1", url], 0, where="stage grpo, reward")
    assert caught.value.exit_code == ExitCode.TRANSIENT
    for part in ("stage grpo, reward", "http://127.0.0.1:1/v1/info: ConnectError", url, "503", "loading weights"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "answer", [(404, "Not Found"), (200, "<html>"), (200, {"model": "mine"}), (200, {"model": "hub:a/b"}), (401, "no")]
)
def test_server_without_a_digest_requires_reward_digest(serve: Serve, answer: tuple[int, object]) -> None:
    with pytest.raises(ConfigError, match=r"does not report the digest.*set reward_digest") as caught:
        ask_identity([serve(answer)], 20)
    assert caught.value.exit_code == ExitCode.CONFIG


def test_servers_with_different_settings_are_refused(serve: Serve) -> None:
    urls = [serve((200, reward_identity(MODEL, ServeConfig(max_new_tokens=n)).model_dump())) for n in (10, 20)]
    with pytest.raises(RewardsDiffer, match="max_new_tokens: 10 -> 20") as caught:
        ask_identity(urls, 0)
    assert caught.value.exit_code == ExitCode.INPUT


def test_name_on_the_hub_is_a_digest_only_with_a_commit() -> None:
    assert is_model_digest(f"hub:a/b@{'1' * 40}") and is_model_digest(MODEL)
    assert not is_model_digest("hub:a/b") and not is_model_digest("hub:a/b@main")
