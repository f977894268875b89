"""The archive of ``editr1 bundle`` contains no secret, and what helps to find a fault stays."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from editr1.launch.kubernetes.redact import REDACTED, redacted, redacted_text

SECRET = "Zq8VtR2mWx1"


def variable(name: str) -> dict[str, Any]:
    return {"env": [{"name": name, "value": SECRET}]}


@pytest.mark.parametrize(
    "value",
    [
        *map(
            variable,
            ("HF_TOKEN", "WANDB_KEY", "SMTP_PASS", "REGISTRY_AUTH", "OTEL_EXPORTER_OTLP_HEADERS", "MY_SETTING"),
        ),
        {"env": {"MY_SETTING": SECRET}},
        {"args": ["--api-key", SECRET]},
        {"args": ["--model", "m", f"--api-key={SECRET}"]},
        {"extraArgs": ["-k", SECRET]},
        {"command": ["sh", "-x", SECRET]},
        {"annotations": {"example.com/note": SECRET}},
        {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": json.dumps(variable("A"))}},
        {"text": json.dumps({"inner": json.dumps(variable("A"))})},
        {"tokens": [SECRET]},
        {"secret": {"x": {"y": SECRET}}},
        {"kind": "Secret", "data": {"x": SECRET}},
        {"dbPassword": SECRET},
        {"url": f"https://user:{SECRET}@host/v1"},
    ],
)
def test_value_that_may_be_secret_is_hidden(value: Any) -> None:
    assert SECRET not in json.dumps(redacted(value))
    assert SECRET not in redacted_text(json.dumps(redacted(value)))


@pytest.mark.parametrize(
    "text",
    [
        f"Incorrect API key provided: sk-proj-{SECRET}abcdef",
        f"using hf_{SECRET}abcdefghijklmnop",
        f"https://account/?sv=1&sig={SECRET}",
        f"https://host/v1?key={SECRET}",
        f"https://user:{SECRET}@host/",
        f"('Authorization', 'Bearer {SECRET}')",
        f"Authorization: Basic {SECRET}",
        f"curl -H 'authorization: Bearer {SECRET}'",
        f'password: "two words {SECRET}"',
        f"SECRET_KEY='{SECRET}'",
        f'"api-key": "{SECRET}"',
        f"vllm serve model --api-key {SECRET} --port 8000",
        f"Set-Cookie: session={SECRET}; Path=/",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----",
        json.dumps(json.dumps(variable("MY_SETTING"))),
    ],
)
def test_usual_forms_of_secrets_in_text_are_hidden(text: str) -> None:
    assert SECRET not in redacted_text(text)


def test_what_helps_to_find_a_fault_stays() -> None:
    value = {
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}, {"name": "EDITR1_SFT__EPOCHS", "value": "3"}],
        "args": ["--model", "/models/m", "--max-model-len=4096", "serve"],
        "annotations": {"editr1.dev/run": "demo"},
        "config": {"max_tokens": 128, "api_key_env": "EDITR1_VLM_API_KEY", "endpoint": "http://vllm:8000/v1"},
        "secretName": "editr1-s3",
        "reason": "container OOMKilled with exit code 137",
    }
    assert redacted(value) == value
    line = "12:00:01 INFO editr1: 7 tokens: 5 of https://s3/b/k?X-Amz-Date=7&partNumber=2, hf_hub_download failed"
    assert redacted_text(line) == line


def test_hidden_values_are_marked() -> None:
    assert redacted({"password": "x", "args": ["--api-key=x"]}) == {
        "password": REDACTED,
        "args": [f"--api-key={REDACTED}"],
    }


def test_time_is_linear_in_the_length_of_a_log() -> None:
    def seconds(text: str) -> float:
        start = time.thread_time()
        redacted_text(text)
        return time.thread_time() - start

    for unit in (
        "secret",
        "key=",
        '"name": "',
        "a://",
        "--token ",
        "?a",
        "bearer ",
        "\\\\",
        "-----BEGIN PRIVATE KEY-----",
        " ",
    ):
        short, long = (min(seconds(unit * n) for _ in range(3)) for n in (2_000, 16_000))
        assert long < 30 * max(short, 1e-4), unit
