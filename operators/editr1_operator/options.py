"""Settings of the operator process, which are read from environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Options(BaseSettings):
    """Settings of the operator process. The operator's chart sets the variables ``EDITR1_OPERATOR_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="EDITR1_OPERATOR_")

    namespaces: Annotated[str, NoDecode] = ""
    """Namespaces to watch, separated by commas. Empty watches all namespaces."""
    cluster_file: Path | None = None
    """Cluster settings file (:mod:`editr1.config.cluster`), which applies to the stages of every run."""
    stores: Annotated[str, NoDecode] = ""
    """Artifact stores that the operator may open, as s3://bucket/prefix, separated by commas. Empty allows every store."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Number of runs that are reconciled at the same time."""
    liveness_port: int = 8080
    """Port of the endpoints /healthz (the process is alive) and /readyz (the operator handles events)."""
    metrics_port: int = 9090
    """Port of the metrics endpoint /metrics. 0 disables it."""
    notify_url: str = ""
    """Address of a webhook that is notified when the state of a run changes. Empty disables notifications."""
    notify_token: SecretStr = SecretStr("")
    """Bearer token that is sent to the webhook."""
    kopf_level: str = "WARNING"
    """Log level of kopf, the operator framework."""

    def namespace_list(self) -> list[str]:
        """Return the namespaces to watch. An empty list means all namespaces."""
        return _split(self.namespaces)

    def store_list(self) -> list[str]:
        """Return the artifact stores that the operator may open. An empty list means any store."""
        return _split(self.stores)


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
