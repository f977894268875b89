"""Address of an artifact store and options for access to it.

Access keys are not part of the settings; they are read from the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, field_validator, model_validator

from editr1.config.base import Settings
from editr1.config.loader import validate

ENDPOINT_VARIABLE = "EDITR1_S3_ENDPOINT"
REGION_VARIABLE = "EDITR1_S3_REGION"
CA_BUNDLE_VARIABLE = "EDITR1_S3_CA_BUNDLE"
OUTAGE_VARIABLE = "EDITR1_STORE_OUTAGE_SECONDS"
_VARIABLES = {"endpoint": ENDPOINT_VARIABLE, "region": REGION_VARIABLE, "ca_bundle": CA_BUNDLE_VARIABLE}


class StoreConfig(Settings):
    """Settings of an artifact store: a local folder, or a bucket of an S3-compatible server."""

    url: str
    """Address of the store: ``file:///absolute/path`` or ``s3://bucket/prefix``. The prefix may be empty."""

    endpoint: Annotated[str | None, Field(pattern=r"^(https?://)?[A-Za-z0-9.\-\[\]:]+$")] = None
    """Address of the S3 server, as ``host[:port]`` or ``http(s)://host[:port]``. Defaults to AWS S3."""

    region: Annotated[str | None, Field(pattern=r"^[a-z0-9-]+$")] = None
    """S3 region of the bucket. If unset, the region is requested from the S3 server."""

    secure: bool = True
    """Use HTTPS if ``endpoint`` does not specify http:// or https://."""

    ca_bundle: Path | None = None
    """PEM file of certificate authorities to trust. Defaults to the certificate authorities of certifi."""

    access_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] = "EDITR1_S3_ACCESS_KEY"
    """Name of the environment variable that contains the S3 access key. If the variable is unset, both S3 keys are read
    from the AWS environment variables, or else from the shared AWS credentials file."""

    secret_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] = "EDITR1_S3_SECRET_KEY"
    """Name of the environment variable that contains the S3 secret key."""

    part_bytes: Annotated[int, Field(ge=5 << 20, le=5 << 30)] = 16 << 20
    """Part size of an S3 multipart upload, in bytes (S3 allows 5 MiB to 5 GiB). Files smaller than one part are
    uploaded in one request."""

    transfers: Annotated[int, Field(ge=1, le=64)] = 4
    """Maximum number of concurrent file transfers."""

    outage_seconds: Annotated[float, Field(ge=0)] = 1800
    """Time in seconds for which an outage of the store is tolerated. During an outage, training continues, and reads
    and commits wait. With 0, an operation fails after a few quick retries."""

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, url: str) -> str:
        parts = urlsplit(url)
        folder = parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/")
        bucket = parts.scheme == "s3" and parts.netloc and "@" not in parts.netloc
        if not (folder or bucket) or parts.query or parts.fragment:
            raise ValueError("must be file:///absolute/path or s3://bucket/prefix")
        if any(part in (".", "..") for part in unquote(parts.path).split("/")):
            raise ValueError("must not contain the path segments '.' or '..'; write the resolved path")
        return url

    @model_validator(mode="after")
    def _ca_bundle_exists(self) -> Self:
        if self.ca_bundle is not None and not self.ca_bundle.is_file():
            raise ValueError(f"ca_bundle: {self.ca_bundle}: file not found; set it to an existing PEM file")
        return self

    @property
    def folder(self) -> Path | None:
        """Folder of a ``file://`` store, or None for an S3 store."""
        parts = urlsplit(self.url)
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    @property
    def bucket(self) -> str:
        """Name of the bucket of an ``s3://`` store."""
        return urlsplit(self.url).netloc

    @property
    def prefix(self) -> str:
        """Key prefix of an ``s3://`` store, without leading and trailing slashes."""
        return unquote(urlsplit(self.url).path).strip("/")


def options_from_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Read the options of an S3 store from environment variables. Variables that are unset or empty are ignored.

    ``EDITR1_S3_ENDPOINT`` contains the option ``endpoint``, ``EDITR1_S3_REGION`` contains ``region``, and
    ``EDITR1_S3_CA_BUNDLE`` contains ``ca_bundle``. The argument ``env`` defaults to the environment of this process.
    """
    env = os.environ if env is None else env
    return {name: env[variable] for name, variable in _VARIABLES.items() if env.get(variable)}


def store_at(
    url: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    secure: bool = True,
    outage_seconds: float | None = None,
    env: Mapping[str, str] | None = None,
) -> StoreConfig:
    """Return the settings of the store at ``url``.

    For an S3 store, options that are not passed as arguments are read from environment variables (see
    :func:`options_from_environment`). For every store, ``outage_seconds`` is read from ``EDITR1_STORE_OUTAGE_SECONDS``.
    Raises ConfigError if ``url`` is not the address of a store, or if the value of a variable is invalid.
    """
    found: dict[str, object] = {"endpoint": endpoint, "region": region}
    sources: dict[tuple[str, ...], str] = {}
    if outage_seconds is not None:
        found["outage_seconds"] = outage_seconds
    elif text := (os.environ if env is None else env).get(OUTAGE_VARIABLE):
        found["outage_seconds"] = _number(text)
        sources["outage_seconds",] = f"environment variable {OUTAGE_VARIABLE}"
    if url.startswith("s3://"):
        for name, value in options_from_environment(env).items():
            if not found.get(name):
                found[name] = value
                sources[name,] = f"environment variable {_VARIABLES[name]}"
    return validate(StoreConfig, {"url": url, "secure": secure, **found}, where="store", sources=sources)


def _number(text: str) -> float | str:
    """Convert ``text`` to a number. If it is not a number, return it unchanged, so that the validation reports it."""
    try:
        return float(text)
    except ValueError:
        return text
