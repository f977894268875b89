"""The HTTP routes, called in process: fuzzed bodies, error responses, deadlines, readiness and metrics."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from editr1.config.serve import ServeConfig
from editr1.data.images import encode_png
from editr1.data.types import EncodedImage
from editr1.serving.api import ScoreResponse, encode_request
from editr1.serving.engines.base import InvalidChat
from editr1.serving.server import create_app

Start = Callable[..., TestClient]


@pytest.fixture
def start(fake_engine, make_items) -> Iterator[Start]:
    """``start(**settings)`` returns a client of a ready server with ``fake_engine``."""
    with ExitStack() as stack:
        stack.callback(fake_engine.gate.set)

        def build(*, ready: bool = True, engine: object = fake_engine, **config: object) -> TestClient:
            app = create_app(engine, ServeConfig(**{"batch_wait_ms": 0, **config}), make_items(1, seed=9))
            client = stack.enter_context(TestClient(app, raise_server_exceptions=True))
            if ready:
                wait_until(lambda: client.get("/readyz").status_code == 200)
            fake_engine.batches.clear()
            return client

        yield build


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def score(client: TestClient, items, **more: object):
    return client.post("/v1/score", content=encode_request(items, **more))


def samples(client: TestClient) -> dict[tuple[str, ...], float]:
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


def test_results_are_aligned_with_items_and_contain_the_model_digest(start, make_items, fake_engine) -> None:
    answer = score(start(), make_items(3, red=[51, 0, 102]))
    assert answer.status_code == 200
    body = answer.json()
    assert body["model"] == fake_engine.model_digest
    assert body["request_id"] is None
    assert [r["ok"] for r in body["results"]] == [True, False, True]
    assert [r.get("score") for r in body["results"]] == [2.0, None, 4.0]
    assert body["results"][1]["cause"] == "engine"
    assert body["results"][0]["verdicts"][0]["scores"] == [1, 0]
    assert body["results"][0]["texts"][0].endswith("<score>2.0</score>")
    assert "score" not in body["results"][1]


def test_response_names_the_request_and_every_edited_image(start, make_items) -> None:
    items = make_items(4, red=[51, 0, 102, 51])
    raw = json.loads(encode_request(items, request_id="this one"))
    raw["items"][3]["instruction"] = ""
    body = start().post("/v1/score", json=raw).json()
    assert body["request_id"] == "this one"
    assert [r.get("cause") for r in body["results"]] == [None, "engine", None, "invalid"]
    assert [r["edited"] for r in body["results"][:3]] == [item.edited.digest for item in items[:3]]


@pytest.mark.parametrize("field", ["num_traces", "seed", "deadline_ms"])
@pytest.mark.parametrize("value", ["1", True])
def test_request_value_of_another_type_is_refused(start, make_items, field: str, value: object) -> None:
    answer = start().post("/v1/score", json=json.loads(encode_request(make_items(1))) | {field: value})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{field}: ")


def test_engine_that_confuses_or_omits_traces_gives_no_scores(start, make_items, fake_engine) -> None:
    client, original = start(), fake_engine.generate
    fake_engine.generate = lambda chats, sampling: [traces[:1] for traces in original(chats, sampling)]
    (result,) = score(client, make_items(1), num_traces=2).json()["results"]
    assert result["cause"] == "engine"
    assert "generated 1 of the 2 requested traces" in result["detail"]


def test_invalid_item_does_not_affect_other_items(start, make_items) -> None:
    raw = json.loads(encode_request(make_items(3, red=[51, 51, 51])))
    raw["items"][1]["edited"] = {"data": "AAAA"}
    body = start().post("/v1/score", json=raw).json()
    assert [r["ok"] for r in body["results"]] == [True, False, True]
    assert body["results"][1]["cause"] == "invalid"


def test_one_trace_is_greedy_and_several_are_sampled(start, make_items, fake_engine) -> None:
    client = start(temperature=0.7, top_p=0.9, max_new_tokens=99)
    score(client, make_items(1))
    score(client, make_items(1), num_traces=3)
    score(client, make_items(1), num_traces=3, temperature=1.3, seed=5)
    found = [sampling for _, sampling in fake_engine.batches]
    assert [(s.num_traces, s.temperature, s.top_p, s.seed, s.max_tokens) for s in found] == [
        (1, 0.0, 1.0, None, 99),
        (3, 0.7, 0.9, None, 99),
        (3, 1.3, 0.9, 5, 99),
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b"{}", "items"),
        (b"\xff\xfe", "body"),
        (b'{"items": [1, 2, 3, 4, 5]}', "at most 4"),
        (b'{"items": [1], "num_traces": 99}', "num_traces: 99"),
        (b'{"items": [1], "num_traces": 2, "temperature": 0}', "num_traces > 1"),
        (b'{"items": [1], "image_url": "http://x"}', "image_url"),
        (b"[" * 100_000, "body"),
        (b'{"items": [' + b"[" * 5000 + b"]" * 5000 + b"]}", "body"),
    ],
)
def test_malformed_request_returns_422_with_the_reason(start, body: bytes, reason: str) -> None:
    answer = start(max_request_items=4).post("/v1/score", content=body)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    assert answer.json()["cause"] == "invalid"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_image = st.one_of(
    _json,
    st.fixed_dictionaries({"data": st.text(max_size=20) | _json}),
    st.fixed_dictionaries({"digest": st.just("sha256:" + "a" * 64) | st.text(max_size=20)}),
    st.binary(max_size=40).map(lambda b: {"data": base64.b64encode(b).decode()}),
)
_item = st.fixed_dictionaries(
    {},
    optional={
        "source": _image,
        "edited": _image,
        "instruction": st.text(max_size=30) | _json,
        "principles": st.lists(
            st.fixed_dictionaries({"question": st.text(max_size=10), "category": st.just("Image Quality") | st.text()}),
            max_size=2,
        )
        | _json,
    },
)
_request = st.fixed_dictionaries(
    {"items": st.lists(_item | _json, max_size=3) | _json},
    optional={
        "num_traces": st.integers(-2, 20) | _json,
        "temperature": st.floats(-1, 3) | _json,
        "seed": st.integers() | _json,
        "deadline_ms": st.integers(-5, 100_000) | _json,
        "more": _json,
    },
)


@pytest.fixture(scope="module")
def fuzzed(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    from editr1.serving.golden import default_golden

    class SilentEngine:
        model_digest = "sha256:" + "1" * 64

        def __init__(self) -> None:
            from editr1.verifier.prompt import PromptTemplate

            self.template = PromptTemplate()

        def generate(self, chats, sampling):
            return [[] for _ in chats]

        def close(self) -> None:
            return None

    config = ServeConfig(batch_wait_ms=0, golden_must_parse=False, max_body_bytes=1 << 20)
    with TestClient(create_app(SilentEngine(), config, default_golden())) as client:
        yield client


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=_request | _json)
def test_arbitrary_json_never_causes_a_500(fuzzed: TestClient, body: object) -> None:
    answer = fuzzed.post("/v1/score", content=json.dumps(body).encode())
    assert answer.status_code in (200, 422)
    if answer.status_code == 200:
        assert isinstance(body, dict)
        assert len(ScoreResponse.model_validate_json(answer.content).results) == len(body["items"])
    else:
        assert answer.json()["detail"]


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=200))
def test_arbitrary_bytes_never_cause_a_500(fuzzed: TestClient, body: bytes) -> None:
    assert fuzzed.post("/v1/score", content=body).status_code in (200, 422)


def test_oversized_body_is_rejected_before_parsing(start) -> None:
    client = start(max_body_bytes=2048)
    answer = client.post("/v1/score", content=b'{"items": [' + b"1," * 3000)
    assert answer.status_code == 413
    assert "2048" in answer.json()["detail"]


def test_full_queue_returns_429_with_retry_after(start, make_items, fake_engine) -> None:
    client = start(max_queued_items=2, max_request_items=2)
    fake_engine.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(score, client, make_items(2))
        wait_until(lambda: samples(client)[("editr1_reward_in_flight",)] == 2)
        answer = score(client, make_items(1))
        fake_engine.gate.set()
        assert held.result(10).status_code == 200
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json()["cause"] == "overloaded"


def test_items_not_scored_by_the_deadline_fail_and_the_others_are_returned(start, make_items, fake_engine) -> None:
    client = start(max_batch_size=1)
    original = fake_engine.generate

    def hold_second_batch(chats, sampling):
        if fake_engine.batches:
            fake_engine.gate.clear()
        return original(chats, sampling)

    fake_engine.generate = hold_second_batch
    before = time.monotonic()
    body = score(client, make_items(3), deadline_ms=1500).json()
    assert time.monotonic() - before < 10
    fake_engine.gate.set()
    assert [r["ok"] for r in body["results"]] == [True, False, False]
    assert [r.get("cause") for r in body["results"]] == [None, "deadline", "deadline"]


def test_server_becomes_ready_when_the_golden_sample_is_scored(start, fake_engine) -> None:
    fake_engine.gate.clear()
    client = start(ready=False)
    assert client.get("/healthz").status_code == 200
    before = client.get("/readyz")
    assert before.status_code == 503
    assert "golden sample has not been scored yet" in before.text
    fake_engine.gate.set()
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/readyz").text == "ready\n"


def test_golden_sample_that_does_not_parse_keeps_the_server_unready(start, half_unparsed_engine) -> None:
    half_unparsed_engine._unparsed_every = 1
    client = start(ready=False, engine=half_unparsed_engine)
    wait_until(lambda: "unparsed" in client.get("/readyz").text)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "golden sample was not scored: unparsed" in answer.text


def test_invalid_items_do_not_change_the_readiness(start, make_items, fake_engine) -> None:
    """An item that the engine cannot process because of its content says nothing about the engine."""
    client, original = start(), fake_engine.generate
    slim = EncodedImage(data=encode_png(Image.new("RGB", (1, 300))))
    fake_engine.generate = lambda chats, sampling: [InvalidChat("the prompt needs 5000 tokens") for _ in chats]
    for item in [*make_items(4), *(item.model_copy(update={"edited": slim}) for item in make_items(4))]:
        [result] = score(client, [item]).json()["results"]
        assert result["cause"] == "invalid"
    assert client.get("/readyz").status_code == 200
    fake_engine.generate = original
    for item in make_items(3, red=[0] * 3):
        score(client, [item])
        fake_engine.generate = lambda chats, sampling: [InvalidChat("too long") for _ in chats]
        score(client, make_items(1))
        fake_engine.generate = original
    assert client.get("/readyz").status_code == 503, "invalid items do not hide that the engine fails"


@pytest.mark.parametrize("temperature", [1e-300, 0.005, 2.5])
def test_temperature_that_cannot_be_sampled_is_refused(start, make_items, temperature: float) -> None:
    client = start()
    body = json.loads(encode_request(make_items(1))) | {"temperature": temperature}
    answer = client.post("/v1/score", content=json.dumps(body))
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("temperature: ")
    assert client.post("/v1/score", content=json.dumps(body | {"temperature": 0.01})).status_code == 200


def test_server_is_not_ready_while_the_engine_generates_nothing(start, make_items, fake_engine) -> None:
    client = start()
    for _ in range(3):
        assert not score(client, make_items(1, red=[0])).json()["results"][0]["ok"]
    assert client.get("/readyz").status_code == 503
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert client.get("/readyz").status_code == 200


def test_metrics_count_requests_items_batches_and_tokens(start, make_items, fake_engine) -> None:
    client = start()
    score(client, make_items(3, red=[51, 0, 51]))
    client.post("/v1/score", content=b"{}")
    fake_engine.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(score, client, make_items(2))
        wait_until(lambda: samples(client)[("editr1_reward_in_flight",)] == 2)
        assert samples(client)[("editr1_reward_in_flight",)] == 2
        fake_engine.gate.set()
        held.result(10)
    found = samples(client)
    assert found[("editr1_reward_in_flight",)] == 0
    assert found[("editr1_reward_requests_total", "200")] == 2
    assert found[("editr1_reward_requests_total", "422")] == 1
    assert found[("editr1_reward_items_total", "ok")] == 4
    assert found[("editr1_reward_items_total", "engine")] == 1
    assert found[("editr1_reward_batch_size_count",)] == 3  # one batch of the golden sample and two of the requests
    assert found[("editr1_reward_batch_size_sum",)] == 6
    assert found[("editr1_reward_tokens_total", "completion")] == 50
    assert found[("editr1_reward_queue_seconds_count",)] == 2
    assert found[("editr1_reward_generate_seconds_count",)] == 3


def test_score_requests_are_traced_but_probes_are_not(start, make_items, monkeypatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    client = start()
    for path in ("/healthz", "/readyz", "/metrics"):
        assert client.get(path).status_code == 200
    assert score(client, make_items(1)).status_code == 200
    requests = {item.name for item in exporter.get_finished_spans() if item.parent is None}
    assert requests == {"POST /v1/score"}


def test_engine_is_closed_after_draining(make_items, fake_engine) -> None:
    app = create_app(fake_engine, ServeConfig(), make_items(1))
    with TestClient(app) as client:
        assert client.get("/healthz").status_code == 200
    assert fake_engine.closed
    assert not app.state.service.alive


def test_openapi_document_describes_the_request(start) -> None:
    document = start().get("/openapi.json").json()
    schema = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"request_id", "items", "num_traces", "temperature", "seed", "deadline_ms"}
