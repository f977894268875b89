"""Object store in a bucket of an S3-compatible server, accessed with the minio client.

minio's ``put_object`` cannot send the header ``If-None-Match``, because it turns every header that it does not know into
user metadata (``X-Amz-Meta-If-None-Match``). Conditional writes therefore send this header to a URL that the client
presigns:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import SplitResult, unquote, urlsplit

import certifi
import urllib3
from minio import Minio
from minio.credentials.providers import AWSConfigProvider, EnvAWSProvider, IamAwsProvider, Provider, StaticProvider
from minio.error import MinioException, S3Error
from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_attempt, wait_exponential
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from editr1.artifacts.errors import AccessDenied, AlreadyExists, ArtifactNotFound, StoreError
from editr1.artifacts.hashing import CHUNK, VerifiedReader
from editr1.artifacts.objects import checked_key
from editr1.config.loader import ConfigError
from editr1.config.proxies import proxy_for
from editr1.config.store import StoreConfig

_CONNECT_S = 10.0
_READ_S = 60.0
_MAX_PARTS = 9_000  # S3 allows 10,000 parts per upload
_READ_ATTEMPTS = 3
_WRITE_ATTEMPTS = 5
_RETRIED_STATUSES = (409, 503)  # 409: another conditional write of the key is in progress
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_MISSING = ("NoSuchKey", "NoSuchObject", "NotFound", "ResourceNotFound")


class _TruncatedResponse(StoreError):
    """The connection failed after the first bytes of a response were received."""


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
        self._config = config
        self._bucket = config.bucket
        self._prefix = f"{config.prefix}/" if config.prefix else ""
        self._endpoint = f"{'https' if secure else 'http'}://{host}"
        self.url = f"{config.url} at {self._endpoint}"

    def put_bytes(self, key: str, data: bytes, *, once: bool = False) -> None:
        """Write an object. With ``once``, send ``If-None-Match: *``, so that the server does not overwrite an existing object."""
        if once:
            self._put_once(key, data)
            return
        with self._errors(key):
            self._client.put_object(self._bucket, self._name(key), io.BytesIO(data), len(data))

    def put_file(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Upload a file, in parts if it is larger than ``part_bytes``.

        If the file changed since it was hashed, raise DigestMismatch and store nothing.
        """
        part = max(self._config.part_bytes, -(-size // _MAX_PARTS))
        with path.open("rb") as file, self._errors(key):
            reader = VerifiedReader(file, path, size, sha256)
            self._client.put_object(
                self._bucket, self._name(key), cast(BinaryIO, reader), size, part_size=part, num_parallel_uploads=3
            )

    def get_bytes(self, key: str) -> bytes:
        """Return the content of an object. Truncated responses are retried here, because minio does not retry them."""
        retrying = Retrying(
            retry=retry_if_exception_type(_TruncatedResponse), stop=stop_after_attempt(_READ_ATTEMPTS), reraise=True
        )
        return retrying(lambda: b"".join(self.stream(key)))

    def stream(self, key: str, offset: int = 0) -> Iterator[bytes]:
        """Yield the content of an object in chunks, starting at byte ``offset``."""
        started = False
        try:
            with self._errors(key):
                response = self._client.get_object(self._bucket, self._name(key), offset=offset)
                try:
                    for chunk in response.stream(CHUNK):
                        started = True
                        yield chunk
                finally:
                    response.close()
                    response.release_conn()
        except StoreError as error:
            raise _TruncatedResponse(str(error)) if started else error from None

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes, or None if the object does not exist."""
        try:
            with self._errors(key):
                return int(self._client.stat_object(self._bucket, self._name(key)).size)
        except ArtifactNotFound:
            return None

    def delete(self, key: str) -> None:
        """Remove an object, if it exists."""
        with self._errors(key):
            self._client.remove_object(self._bucket, self._name(key))

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with ``prefix``, sorted."""
        with self._errors(prefix):
            for item in self._client.list_objects(self._bucket, prefix=self._prefix + prefix, recursive=True):
                if not item.is_dir:
                    yield str(item.object_name).removeprefix(self._prefix)

    def _put_once(self, key: str, data: bytes) -> None:
        retrying = Retrying(
            retry=retry_if_result(lambda response: response.status in _RETRIED_STATUSES),
            wait=wait_exponential(multiplier=0.2),
            stop=stop_after_attempt(_WRITE_ATTEMPTS),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        with self._errors(key):
            response = retrying(self._put_if_absent, key, data)
            if response.status == 412:
                raise AlreadyExists(f"{self.url}: {key} already exists and cannot be overwritten")
            if response.status not in (200, 201, 204):
                raise self._write_error(key, response)

    def _put_if_absent(self, key: str, data: bytes) -> urllib3.BaseHTTPResponse:
        # Do not retry after a lost response: the retry would fail on the object that the first request wrote.
        retries = Retry(total=4, connect=4, read=0, status=0, other=0, redirect=0, backoff_factor=0.2)
        url = self._client.get_presigned_url("PUT", self._bucket, self._name(key), expires=timedelta(minutes=5))
        headers = {"If-None-Match": "*", "Content-Type": "application/json"}
        return self._http.request("PUT", url, body=data, headers=headers, retries=retries)

    def _write_error(self, key: str, response: urllib3.BaseHTTPResponse) -> StoreError:
        if response.data.lstrip().startswith(b"<"):
            return self._translated(key, S3Error.fromxml(cast(Any, response)))
        return StoreError(f"{self.url}: cannot write {key}: HTTP status {response.status}")

    def _name(self, key: str) -> str:
        return self._prefix + checked_key(key)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except S3Error as error:
            raise self._translated(key, error) from error
        except HTTPError as error:
            raise StoreError(
                f"{self.url}: cannot access {key}, because the server is not reachable: {_cause(error)}"
            ) from error
        except (MinioException, OSError, ValueError) as error:
            raise StoreError(f"{self.url}: cannot access {key}: {error}") from error

    def _translated(self, key: str, error: S3Error) -> StoreError:
        if error.code in _MISSING:
            return ArtifactNotFound(f"{self.url}: object {key} does not exist")
        if error.code == "NoSuchBucket":
            return StoreError(f"{self._endpoint}: bucket {self._bucket!r} does not exist; create it first")
        if error.code in _DENIED:
            return AccessDenied(
                f"{self.url}: access to {key} is denied ({error.code}); check the credentials in "
                f"{self._config.access_key_env} and {self._config.secret_key_env}, and their permissions for the bucket"
            )
        return StoreError(f"{self.url}: cannot access {key}: {error.code}: {error.message}")


def _http_pool(config: StoreConfig, proxy: str | None) -> urllib3.PoolManager:
    """Return the connections to the server, through ``proxy`` if there is one."""
    settings: dict[str, Any] = {
        "timeout": Timeout(connect=_CONNECT_S, read=_READ_S),
        "maxsize": 4 * config.transfers,
        "cert_reqs": "CERT_REQUIRED",
        "ca_certs": str(config.ca_bundle or certifi.where()),
        "retries": Retry(total=4, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
    }
    if proxy is None:
        return urllib3.PoolManager(**settings)
    login = urllib3.util.parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=unquote(login)) if login else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **settings)


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
    if os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") or os.environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        sources.append(IamAwsProvider())
    for source in sources:
        try:
            source.retrieve()
        except Exception:  # providers raise different errors if they have no credentials
            continue
        return source
    raise AccessDenied(
        f"{config.url}: no credentials; set {config.access_key_env} and {config.secret_key_env} "
        "(or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a shared AWS credentials file)"
    )


def _cause(error: HTTPError) -> str:
    cause = getattr(error, "reason", None) or error
    return f"{type(cause).__name__}: {cause}"
