"""Validation of store URLs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from editr1.config.store import StoreConfig


def test_file_url_is_parsed_as_a_folder() -> None:
    config = StoreConfig(url="file:///data/my%20store")
    assert config.folder == Path("/data/my store")


def test_s3_url_is_parsed_as_bucket_and_prefix() -> None:
    config = StoreConfig(url="s3://bucket/a/b/")
    assert (config.folder, config.bucket, config.prefix) == (None, "bucket", "a/b")
    assert StoreConfig(url="s3://bucket").prefix == ""


@pytest.mark.parametrize(
    "url",
    [
        "", "/data", "file://host/data", "file:data", "http://bucket/x", "s3:///x", "s3://key:secret@bucket/x",
        "s3://bucket/a/../b", "file:///data/../etc", "file:///a/%2e%2e/b", "s3://bucket/x?versions",
    ],
)  # fmt: skip
def test_invalid_url_is_rejected(url: str) -> None:
    with pytest.raises(ValidationError, match="must"):
        StoreConfig(url=url)


def test_missing_ca_bundle_and_invalid_endpoint_are_rejected() -> None:
    with pytest.raises(ValidationError, match=r"no/such\.pem: file not found"):
        StoreConfig(url="s3://b/p", ca_bundle=Path("/no/such.pem"))
    with pytest.raises(ValidationError, match="endpoint"):
        StoreConfig(url="s3://b/p", endpoint="http://host/path")


def test_no_field_contains_a_secret() -> None:
    assert {name for name in StoreConfig.model_fields if "key" in name} == {"access_key_env", "secret_key_env"}
