"""Request the keys of an S3 store with the identity that a cloud gives to a pod."""

from __future__ import annotations

import ipaddress
import os
from typing import Any, Final
from urllib.parse import unquote

import urllib3
from minio.credentials import Credentials, IamAwsProvider, Provider
from urllib3.util import Retry, Timeout, parse_url

from editr1.artifacts.errors import AccessDenied, StoreError, StoreUnreachable
from editr1.artifacts.s3_errors import ACCEPTED_VARIABLE
from editr1.config.loader import ConfigError
from editr1.config.proxies import proxy_for
from editr1.config.store import StoreConfig

_WEB_IDENTITY: Final = "AWS_WEB_IDENTITY_TOKEN_FILE"
_FULL_URI: Final = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_IDENTITIES: Final = (_WEB_IDENTITY, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", _FULL_URI)
"""Environment variables that give a pod an identity: IAM roles for service accounts, ECS, and EKS Pod Identity. The
client uses the first that is set."""
_NODE_ADDRESSES: Final = ("169.254.170.2", "169.254.170.23", "fd00:ec2::23")
"""Addresses of the agents of ECS and of EKS Pod Identity, which AWS libraries also reach without TLS."""
_CONNECT_S: Final = 2.0
_READ_S: Final = 10.0
_TEMPORARY: Final = (408, 429, 500, 502, 503, 504)


class PodIdentity(Provider):  # type: ignore[misc]  # minio has no type hints
    """Provider that requests the keys of the pod's identity, and requests new ones before they expire.

    The token of the identity is read from its file for every request, because Kubernetes replaces it.
    """

    def __init__(self, config: StoreConfig, variable: str) -> None:
        """``variable`` is the environment variable that gives the identity.

        Raises:
            ConfigError: the variable contains an address to which the token must not be sent.
        """
        if variable == _FULL_URI:
            _check_full_uri(os.environ[variable])
        self._text = f"{config.url}: no credentials from the identity in {variable}"
        self._provider = IamAwsProvider(http_client=_pool(variable))
        self._accepted = bool(os.environ.get(ACCEPTED_VARIABLE))

    def retrieve(self) -> Credentials:
        """Return the current keys.

        Raises:
            StoreUnreachable: there is no response, or the identity was accepted before and is rejected now.
            AccessDenied: the identity is rejected and was not accepted before.
        """
        try:
            keys = self._provider.retrieve()
        except FileNotFoundError as error:
            raise AccessDenied(
                f"{self._text}: {error.filename} does not exist; mount the file with the token"
            ) from None
        except (OSError, urllib3.exceptions.HTTPError) as error:
            raise StoreUnreachable(f"{self._text}, because its server is not reachable: {error}") from error
        except Exception as error:  # Providers raise different exceptions for a response without credentials.
            # The message of http.client about a line break in a header contains the token.
            text = (
                "the token contains a line break; write the file without it" if "header value" in str(error) else error
            )
            raise self._refused(str(text)) from None
        self._accepted = True
        return keys

    def _refused(self, text: str) -> StoreError:
        return (StoreUnreachable if self._accepted else AccessDenied)(f"{self._text}: {text}")


def pod_identity(config: StoreConfig) -> Provider | None:
    """Return the provider for the identity of this pod, or None if the environment gives it none.

    Raises:
        ConfigError, StoreUnreachable, AccessDenied: as :class:`PodIdentity`; the keys are requested at once.
    """
    variable = next((name for name in _IDENTITIES if os.environ.get(name)), None)
    if variable is None:
        return None
    provider = PodIdentity(config, variable)
    provider.retrieve()
    return provider


def _pool(variable: str) -> urllib3.PoolManager:
    """Return a connection pool that sends the token to no other address, and does not wait for a silent server."""
    settings: dict[str, Any] = {
        "timeout": Timeout(connect=_CONNECT_S, read=_READ_S),
        "retries": Retry(
            total=2, redirect=False, backoff_factor=0.2, status_forcelist=_TEMPORARY, respect_retry_after_header=False
        ),
    }
    region = os.environ.get("AWS_REGION")
    # The agents of ECS and EKS are on the node. Only the token service of AWS can be behind a proxy.
    proxy = proxy_for(f"https://sts.{region}.amazonaws.com" if region else "https://sts.amazonaws.com")
    if variable != _WEB_IDENTITY or proxy is None:
        return urllib3.PoolManager(**settings)
    return proxy_pool(proxy, settings)


def proxy_pool(proxy: str, settings: dict[str, Any]) -> urllib3.ProxyManager:
    """Return a connection pool for requests through ``proxy``, whose URL can contain a user name and a password."""
    login = parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=unquote(login)) if login else None
    return urllib3.ProxyManager(proxy, proxy_headers=headers, **settings)


def _check_full_uri(uri: str) -> None:
    r"""Raise ConfigError unless the URI is one to which AWS libraries send the token: HTTPS, or an address of the node itself.

    The URI is parsed as the HTTP client parses it. Other parsers find another host in ``http://a\@b/``.
    """
    try:
        parts = parse_url(uri)
        scheme, host = parts.scheme, (parts.host or "").strip("[]")
    except ValueError:
        scheme, host = None, ""
    if host and (scheme == "https" or (scheme == "http" and _is_on_node(host))):
        return
    raise ConfigError(
        f"{_FULL_URI}={uri!r}: must be an https address, or an http address of this node (loopback or {', '.join(_NODE_ADDRESSES)})"
    )


def _is_on_node(host: str) -> bool:
    try:
        return host == "localhost" or host in _NODE_ADDRESSES or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
