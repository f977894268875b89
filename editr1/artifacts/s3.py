"""Object store in a bucket of an S3-compatible server, accessed with the minio client.

minio's ``put_object`` cannot send the header ``If-None-Match``, because it converts unknown headers to user metadata
(``X-Amz-Meta-If-None-Match``). Conditional writes therefore send this header in a request to a presigned URL:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import SplitResult, urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.providers import AWSConfigProvider, EnvAWSProvider, Provider, StaticProvider
from minio.error import S3Error
from minio.helpers import check_bucket_name
from urllib3.util import Retry, Timeout

from editr1.artifacts.errors import AccessDenied, AlreadyExists, ArtifactNotFound, StoreUnreachable
from editr1.artifacts.hashing import CHUNK, VerifiedReader, opened_to_read
from editr1.artifacts.objects import checked_key
from editr1.artifacts.s3_errors import S3Errors
from editr1.artifacts.s3_identity import pod_identity, proxy_pool
from editr1.config.loader import ConfigError
from editr1.config.proxies import proxy_for
from editr1.config.store import StoreConfig

_CONNECT_S = 10.0
_READ_S = 60.0
_MAX_PARTS = 9_000  # S3 allows 10,000 parts per upload
_MD5 = re.compile("[0-9a-f]{32}")


class S3Objects:
    """``ObjectStore`` in the bucket ``config.bucket``, which must exist. All keys start with ``config.prefix``."""

    def __init__(self, config: StoreConfig) -> None:
        host, secure = _endpoint(config)
        self._http = _http_pool(config, proxy_for(f"{'https' if secure else 'http'}://{host}"))
        try:
            self._client = Minio(
                host,
                credentials=_credentials(config),
                secure=secure,
                region=config.region,
                http_client=self._http,
            )
        except ValueError as error:
            raise ConfigError(f"S3 endpoint {config.endpoint!r}: {error}; correct the setting") from None
        try:
            check_bucket_name(config.bucket)
        except ValueError as error:
            raise ConfigError(f"store {config.url!r}: {error}; correct the name of the bucket") from None
        self._config = config
        self._bucket = config.bucket
        self._prefix = f"{config.prefix}/" if config.prefix else ""
        endpoint = f"{'https' if secure else 'http'}://{host}"
        self.url = f"{config.url} at {endpoint}"
        self._errors = S3Errors(config, endpoint, self.url, self._reject_code)
        self._etag_is_md5 = True

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        """Write an object. With ``once``, send ``If-None-Match: *``, so that the server does not overwrite an existing object."""
        if once:
            self._put_once(key, data)
            return
        with self._errors.translated(key):
            self._client.put_object(self._bucket, self._name(key), io.BytesIO(data), len(data))

    def put_file(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Upload a file, in parts if it is larger than ``part_bytes``.

        If the file changed since it was hashed, raise DigestMismatch and store nothing.
        """
        part = max(self._config.part_bytes, -(-size // _MAX_PARTS))
        with opened_to_read(path) as file, self._errors.translated(key):
            reader = VerifiedReader(file, path, size, sha256)
            self._client.put_object(
                self._bucket, self._name(key), cast(BinaryIO, reader), size, part_size=part, num_parallel_uploads=3
            )

    def get_bytes(self, key: str) -> bytes:
        """Return the content of an object. If it does not match the ETag, it is read again."""
        data, etag = self._get(key)
        if not self._etag_is_md5 or _matches(data, etag):
            return data
        again, etag = self._get(key)
        if _matches(again, etag):
            return again
        if again != data:
            raise StoreUnreachable(f"{self.url}: cannot read {key}: two responses have different contents; try again")
        # Some servers encrypt objects or compute other ETags, which are not the MD5 digest of the content.
        self._etag_is_md5 = False
        return data

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the content of an object in chunks, starting at byte ``offset``."""
        with self._errors.translated(key):
            response = self._client.get_object(self._bucket, self._name(key), offset=offset)
            try:
                yield from response.stream(CHUNK)
            finally:
                response.close()
                response.release_conn()

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if the object does not exist."""
        try:
            with self._errors.translated(key):
                size = self._client.stat_object(self._bucket, self._name(key)).size
                if size is None:
                    raise ValueError("the header Content-Length is missing")
                return int(size)
        except ArtifactNotFound:
            return None

    def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        with self._errors.translated(key):
            self._client.remove_object(self._bucket, self._name(key))

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with ``prefix``, sorted."""
        with self._errors.translated(prefix):
            for item in self._client.list_objects(self._bucket, prefix=self._prefix + prefix, recursive=True):
                if not item.is_dir:
                    yield str(item.object_name).removeprefix(self._prefix)

    def _reject_code(self) -> str:
        """Return the code with which the server rejects a listing, or an empty string. A rejected HEAD request has no code."""
        try:
            next(iter(self._client.list_objects(self._bucket, prefix=self._prefix)), None)
        except S3Error as error:
            return error.code or ""
        except Exception:  # Only the code of a rejection matters here.
            return ""
        return ""

    def _get(self, key: str) -> tuple[bytes, str]:
        with self._errors.translated(key):
            response = self._client.get_object(self._bucket, self._name(key))
            try:
                return response.read(), str(response.headers.get("ETag", ""))
            finally:
                response.close()
                response.release_conn()

    def _put_once(self, key: str, data: bytes) -> None:
        with self._errors.translated(key):
            url = self._client.get_presigned_url("PUT", self._bucket, self._name(key), expires=timedelta(minutes=5))
            headers = {"If-None-Match": "*", "Content-Type": "application/json"}
            response = self._http.request("PUT", url, body=data, headers=headers)
            if response.status == 412:
                raise AlreadyExists(f"{self.url}: {key} already exists and cannot be overwritten")
            if response.status in (200, 201, 204):
                return
            if response.data.lstrip().startswith(b"<"):
                raise S3Error.fromxml(cast(Any, response))
            raise self._errors.of_status(key, response.status)

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)


def _http_pool(config: StoreConfig, proxy: str | None) -> urllib3.PoolManager:
    """Return a connection pool for the server, which uses ``proxy`` if it is not None."""
    settings: dict[str, Any] = {
        "timeout": Timeout(connect=_CONNECT_S, read=_READ_S),
        "maxsize": 4 * config.transfers,
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": str(config.ca_bundle or certifi.where()),
        # Failed requests are repeated by editr1.artifacts.reliable, which can wait and be interrupted.
        "retries": Retry(total=None, connect=0, read=0, redirect=3, status=0, other=0),
    }
    if proxy is None:
        return urllib3.PoolManager(**settings)
    return proxy_pool(proxy, settings)


def _endpoint(config: StoreConfig) -> tuple[str, bool]:
    named = config.endpoint or "https://s3.amazonaws.com"
    parts = urlsplit(named if "://" in named else f"{'https' if config.secure else 'http'}://{named}")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/") or not _valid_port(parts):
        raise ConfigError(f"S3 endpoint {named!r}: must be host[:port] or http(s)://host[:port]; correct the setting")
    return parts.netloc, parts.scheme == "https"


def _valid_port(parts: SplitResult) -> bool:
    try:
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _credentials(config: StoreConfig) -> Provider:
    access, secret = os.environ.get(config.access_key_env), os.environ.get(config.secret_key_env)
    if access and secret:
        return StaticProvider(access, secret)
    if access or secret:
        missing = config.secret_key_env if access else config.access_key_env
        raise AccessDenied(f"{config.url}: {missing} is not set; access key and secret key must be set together")
    sources: list[Provider] = [EnvAWSProvider(), AWSConfigProvider()]
    for source in sources:
        try:
            source.retrieve()
        except Exception:  # Credential providers raise different exceptions if they find no credentials.
            continue
        return source
    if identity := pod_identity(config):
        return identity
    raise AccessDenied(
        f"{config.url}: no credentials; set {config.access_key_env} and {config.secret_key_env} "
        "(or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a shared AWS credentials file, or the identity of a pod)"
    )


def _matches(data: bytes, etag: str) -> bool:
    """Return True if an ETag is the MD5 digest of ``data``, or not an MD5 digest, which is the case after a multipart upload."""
    tag = etag.strip('"').lower()
    return _MD5.fullmatch(tag) is None or tag == hashlib.md5(data, usedforsecurity=False).hexdigest()
