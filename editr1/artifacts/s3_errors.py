"""Translate exceptions of the S3 client, its HTTP library and its XML parser to store errors.

This is the only module that decides whether such an error is temporary.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Final

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, NameResolutionError

from editr1.artifacts.errors import (
    AccessDenied,
    ArtifactNotFound,
    KeysNoLongerAccepted,
    StoreError,
    StoreMisconfigured,
    StoreUnreachable,
)
from editr1.config.store import StoreConfig

_MISSING: Final = ("NoSuchKey", "NoSuchObject", "NotFound", "ResourceNotFound")
_DENIED: Final = (
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
)
_REJECTED_KEYS: Final = ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch")
ACCEPTED_VARIABLE: Final = "EDITR1_STORE_KEYS_ACCEPTED"
"""Environment variable that the launcher of a process sets if the store has accepted the same credentials."""
_WRONG_SETTINGS: Final = (
    "AuthorizationHeaderMalformed",  # the region is wrong
    "IllegalLocationConstraintException",
    "InvalidBucketName",
    "PermanentRedirect",
)
_FULL: Final = ("InsufficientStorage", "QuotaExceeded", "XMinioStorageFull")
_PARSE_ERRORS: Final = (ValueError, SyntaxError, AttributeError, TypeError, LookupError)
"""Exceptions of the client for a response that is incomplete XML (``ParseError`` is a SyntaxError) or has unexpected
elements."""


class S3Errors:
    """Translator for the errors of one S3 store.

    Attributes:
        answered: set when the server has responded to a request, which shows that its host name is correct.
        accepted: set when a request has succeeded, which shows that the credentials were valid.
    """

    def __init__(self, config: StoreConfig, endpoint: str, url: str, reject_code: Callable[[], str]) -> None:
        """``reject_code`` makes a request and returns the code with which it is rejected, or an empty string."""
        self._config, self._endpoint, self._url, self._reject_code = config, endpoint, url, reject_code
        self.answered = False
        self.accepted = bool(os.environ.get(ACCEPTED_VARIABLE))

    @contextmanager
    def translated(self, key: str) -> Iterator[None]:
        """Context manager that translates exceptions of the client during an access to ``key`` to store errors."""
        try:
            yield
        except StoreError:
            raise
        except (MinioException, HTTPError, HTTPException, OSError, *_PARSE_ERRORS) as error:
            raise self.of(key, error) from error
        else:
            self.answered = self.accepted = True

    def of(self, key: str, error: Exception) -> StoreError:
        """Return the store error for an exception of the client during an access to ``key``."""
        if isinstance(error, S3Error):
            return self._of_answer(key, error)
        access = f"{self._url}: cannot access {key}"
        if isinstance(error, InvalidResponseError | ServerError):
            status = getattr(error, "_code", None) or getattr(error, "status_code", None)
            return self.of_status(key, int(status or 0))
        if isinstance(error, (MinioException, HTTPException, *_PARSE_ERRORS)) and not isinstance(
            error, (OSError, HTTPError)
        ):
            text = str(error).splitlines()[0] if str(error) else "no message"
            return StoreUnreachable(
                f"{access}: the server's response is incomplete or invalid ({type(error).__name__}: {text})"
            )
        causes = [*_causes(error)]
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
            return StoreMisconfigured(
                f"{access}, because the server is not reachable: {_describe(error)}; set EDITR1_S3_CA_BUNDLE to "
                "the PEM file of the server's certificate authority"
            )
        if any(_is_unknown_host(cause) for cause in causes) and not self.answered:
            return StoreError(
                f"{access}: the host of {self._endpoint} is unknown; check the endpoint in EDITR1_S3_ENDPOINT and the name server"
            )
        return StoreUnreachable(f"{access}, because the server is not reachable: {_describe(error)}")

    def of_status(self, key: str, status: int) -> StoreError:
        """Return the store error for a response without an S3 error code, for example from a proxy."""
        access = f"{self._url}: cannot access {key}: HTTP status {status}"
        if status in (401, 403):
            return AccessDenied(f"{access}; {self._check_credentials()}")
        if status == 507:
            return StoreError(f"{access}: the disk of the server is full; free some space, and try again")
        return StoreUnreachable(access)

    def _of_answer(self, key: str, error: S3Error) -> StoreError:
        self.answered = True
        code = error.code or ""
        status = int(getattr(error.response, "status", 0) or 0)
        access = f"{self._url}: cannot access {key}: {code}: {error.message}"
        if code in _MISSING:
            return ArtifactNotFound(f"{self._url}: object {key} does not exist")
        if code == "NoSuchBucket":
            return StoreMisconfigured(
                f"{self._endpoint}: bucket {self._config.bucket!r} does not exist; create it first"
            )
        if code == "RequestTimeTooSkewed":
            return StoreMisconfigured(f"{access}; set the clock of this machine")
        if self.accepted and code in _DENIED:
            exact = self._reject_code() if code == "AccessDenied" else code
            if exact in _REJECTED_KEYS:
                return KeysNoLongerAccepted(
                    f"{self._url}: access to {key} is denied ({exact}), but the same credentials were accepted before, so they were "
                    "replaced or have expired; the stage can be started again with the current ones"
                )
        if code in _DENIED or (status in (401, 403) and not code):
            return AccessDenied(f"{self._url}: access to {key} is denied ({code}); {self._check_credentials()}")
        if code in _WRONG_SETTINGS:
            return StoreMisconfigured(f"{access}; check the region and the bucket name")
        if code in _FULL or status == 507:
            return StoreError(f"{access}: the disk of the server is full; free some space, and try again")
        return StoreUnreachable(access)

    def _check_credentials(self) -> str:
        access, secret = self._config.access_key_env, self._config.secret_key_env
        return f"check the credentials in {access} and {secret}, and their permissions for the bucket"


def _is_unknown_host(error: BaseException) -> bool:
    if isinstance(error, NameResolutionError):
        return any(isinstance(cause, socket.gaierror) and _is_unknown_host(cause) for cause in _causes(error.__cause__))
    return isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield ``error`` and the exceptions that caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        reason = getattr(error, "reason", None)
        error = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__


def _describe(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error
    return f"{type(cause).__name__}: {cause}"
