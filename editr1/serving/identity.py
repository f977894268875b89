"""Identity of a reward model: its digest, and the server settings that affect its scores.

The identity is part of the key of every stage that uses the model as its reward. It does not depend on how the model
is deployed: addresses, ports, numbers of replicas, batch sizes and time limits are not part of it.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from editr1.config.loader import ConfigError
from editr1.config.serve import ServeConfig
from editr1.errors import ExitCode
from editr1.serving.http import reward_http_client
from editr1.verifier.prompt import PromptTemplate

INFO_PATH: Final = "/v1/info"
"""Path at which a reward server returns its :class:`ServiceInfo` as JSON."""
DIGEST_PATTERN: Final = r"^(sha256:[0-9a-f]{64}|hub:[\w.-]+/[\w.-]+@[0-9a-f]{40})$"
"""Regular expression of a model digest.

A hub model name without a commit is not a digest, because the files of the model can change.
"""
OPERATIONAL: Final = frozenset(
    {
        "host",
        "port",
        "device",
        "max_batch_size",
        "batch_wait_ms",
        "max_queued_items",
        "max_request_items",
        "max_traces",
        "max_body_bytes",
        "max_pixels",
        "deadline_seconds",
        "body_timeout_seconds",
        "drain_timeout_seconds",
        "golden_must_parse",
    }
)
"""Settings of the reward server that are not part of the identity.

Every setting that is not listed here is part of the identity.
"""
OPERATIONAL_OPENAI: Final = frozenset(
    {"base_url", "api_key_env", "concurrency", "timeout_seconds", "max_retries", "length_parameter"}
)
"""Settings in the section ``openai`` that are not part of the identity."""
_IN_PROCESS: Final = frozenset({"dtype"})
"""Settings that only apply if the engine runs in the server's own process."""
_TIMEOUT_S: Final = 5.0
_PAUSE_S: Final = 1.0


class RewardUnreachable(ConfigError):
    """No reward server responded in time. A later attempt may succeed."""

    exit_code = ExitCode.TRANSIENT


class RewardsDiffer(ConfigError):
    """The reward servers of a stage serve different models, or a model other than the expected model."""

    exit_code = ExitCode.INPUT


class RewardIdentity(BaseModel):
    """Identity of a reward model."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """Digest of the model."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Server settings that affect the scores; empty if only the digest is known."""

    def differences(self, other: RewardIdentity) -> list[str]:
        """Return one line ``name: value -> value of other`` for each field in which the two identities differ."""
        parts: list[tuple[str, Any, Any]] = [("model", self.model, other.model)]
        names = sorted(self.settings.keys() | other.settings.keys())
        parts += [(name, self.settings.get(name), other.settings.get(name)) for name in names]
        return [f"{name}: {ours} -> {theirs}" for name, ours, theirs in parts if ours != theirs]


class ServiceInfo(RewardIdentity):
    """Body of the response of ``GET /v1/info``: the identity of the reward model, and what the service's scores contain."""

    verdicts: bool = True
    """Whether every score has verdicts. A service that declares false may return scores without verdicts and traces; such
    scores cannot be checked against anything."""


def gives_verdicts(content: bytes) -> bool:
    """Return False if the body of a response of ``GET /v1/info`` declares that scores have no verdicts."""
    try:
        return _Declaration.model_validate_json(content).verdicts
    except ValidationError:
        return True


class _Declaration(BaseModel):
    """The part of :class:`ServiceInfo` that is read from a service whose response has no valid identity."""

    verdicts: StrictBool = True


def reward_identity(model: str, config: ServeConfig | Mapping[str, Any]) -> RewardIdentity:
    """Return the identity of a served model from its digest and the complete settings of its server."""
    checked = config if isinstance(config, ServeConfig) else ServeConfig.model_validate(config)
    settings = checked.model_dump(mode="json", exclude=set(OPERATIONAL))
    openai = settings.pop("openai")
    if checked.engine == "openai":
        settings = {name: value for name, value in settings.items() if name not in _IN_PROCESS}
        settings |= {f"openai.{name}": value for name, value in openai.items() if name not in OPERATIONAL_OPENAI}
    # A model folder contains its prompt template, which is therefore part of the digest. Folders without a template
    # use the default.
    settings["default_prompt"] = hashlib.sha256(PromptTemplate().model_dump_json().encode()).hexdigest()[:16]
    return RewardIdentity(model=model, settings=settings)


def is_model_digest(text: str) -> bool:
    """Return True if ``text`` identifies the files of a model: ``sha256:<hex>`` or ``hub:<name>@<commit>``."""
    return re.fullmatch(DIGEST_PATTERN, text) is not None


def ask_identity(
    urls: Sequence[str], seconds: float, *, where: str = "reward", should_stop: Callable[[], bool] = lambda: False
) -> RewardIdentity:
    """Return the identity that the reward servers at ``urls`` report.

    Requests to servers that do not respond are retried for up to ``seconds``. One response is sufficient.

    Args:
        urls: base URLs of the servers.
        seconds: maximum time to wait for a response; with 0, one request is sent to each server.
        where: name of the setting with the addresses, for error messages.
        should_stop: polled while waiting. If it returns True, RewardUnreachable is raised.

    Raises:
        ConfigError: a server responded, but does not report the digest of its model.
        RewardsDiffer: two servers report different identities.
        RewardUnreachable: no server responded.
    """
    deadline = time.monotonic() + seconds
    with reward_http_client(urls, timeout=_TIMEOUT_S) as http:
        while True:
            answers = {url: _ask(http, url, where) for url in urls}
            found = {url: answer for url, answer in answers.items() if isinstance(answer, RewardIdentity)}
            if found:
                return _only(found, where)
            if time.monotonic() + _PAUSE_S > deadline or should_stop():
                tried = "; ".join(f"{url}{INFO_PATH}: {answer}" for url, answer in answers.items())
                raise RewardUnreachable(
                    f"{where}: no reward server responded within {seconds:g} s, so the reward model is unknown; "
                    f"tried: {tried}. Start the server, correct the address, or raise reward_ready_timeout_seconds"
                )
            time.sleep(_PAUSE_S)


def _ask(http: httpx.Client, url: str, where: str) -> RewardIdentity | str:
    """Return the identity that a server reports, or the reason why it has not responded yet."""
    try:
        response = http.get(f"{url.rstrip('/')}{INFO_PATH}")
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    quoted = f"HTTP status {response.status_code}, {response.text.strip()[:200]!r}"
    if response.status_code >= 500 or response.status_code in (408, 429):
        return quoted
    try:
        if response.status_code == 200:
            info = ServiceInfo.model_validate_json(response.content, strict=True)
            if is_model_digest(info.model):
                return RewardIdentity(model=info.model, settings=info.settings)
            quoted = f"the model is {info.model!r}"
    except ValidationError:
        pass
    raise ConfigError(
        f"{where}: {url}{INFO_PATH} does not report the digest of its model ({quoted}); set reward_digest to the digest of the"
        " model (sha256:<64 hex digits> or hub:<name>@<commit>)"
    )


def _only(found: Mapping[str, RewardIdentity], where: str) -> RewardIdentity:
    first, *others = found
    for url in others:
        if lines := found[first].differences(found[url]):
            raise RewardsDiffer(
                "\n".join(
                    f"{where}: {first} and {url} differ: {line}; serve one model at all addresses" for line in lines
                )
            )
    return found[first]
