"""Settings of the operator's process, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Options(BaseSettings):
    """Environment of the operator's process; the chart sets it."""

    model_config = SettingsConfigDict(env_prefix="EDITR1_OPERATOR_")

    namespaces: Annotated[str, NoDecode] = ""
    """Namespaces to watch, separated by commas; empty watches all."""
    cluster_file: Path | None = None
    """File with the settings that the stages of every run share (editr1.config.cluster)."""
    stores: Annotated[str, NoDecode] = ""
    """Artifact stores (s3://bucket/prefix) that it may open, separated by commas; empty allows any."""
    workers: Annotated[int, Field(ge=1, le=64)] = 8
    """Number of runs that are reconciled at the same time."""
    liveness_port: int = 8080
    """Port of /healthz."""
    metrics_port: int = 9090
    """Port of /metrics; 0 disables it."""
    notify_url: str = ""
    """Webhook that is notified of changes; empty for none."""
    notify_token: SecretStr = SecretStr("")
    """Bearer token for the webhook."""
    kopf_level: str = "WARNING"
    """Log level of kopf."""

    def namespace_list(self) -> list[str]:
        """Return the namespaces to watch; empty for all."""
        return _split(self.namespaces)

    def store_list(self) -> list[str]:
        """Return the artifact stores that may be opened; empty for any."""
        return _split(self.stores)


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
