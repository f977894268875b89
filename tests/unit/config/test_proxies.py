"""Choice of the proxy for a URL."""

from __future__ import annotations

import pytest

from editr1.config.loader import ConfigError
from editr1.config.proxies import proxy_for

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
def test_outside_server_is_reached_through_the_proxy(monkeypatch, name) -> None:
    monkeypatch.setenv(name, PROXY)
    assert proxy_for("http://models.example/v1") == PROXY


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "a.localhost", "[::1]", "0.0.0.0"])
def test_server_on_this_machine_is_reached_directly(monkeypatch, name, host) -> None:
    monkeypatch.setenv(name, PROXY)
    assert proxy_for(f"http://{host}:8100/v1") is None


@pytest.mark.parametrize(
    "host", ["rrm.editr1.svc", "rrm.editr1.svc.cluster.local", "RRM.EDITR1.SVC", "rrm.editr1.svc."]
)
def test_service_in_a_cluster_is_reached_directly(monkeypatch, host) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    assert proxy_for(f"http://{host}:8000") is None


@pytest.mark.parametrize(
    ("excluded", "url", "proxy"),
    [
        ("models.example", "http://models.example/v1", None),
        (".example", "http://models.example/v1", None),
        ("*", "http://models.example/v1", None),
        ("other.example", "http://models.example/v1", PROXY),
        ("models.example:81", "http://models.example:80/v1", PROXY),
        ("models.example:80", "http://models.example:80/v1", None),
        ("10.0.0.0/8", "http://10.1.2.3:8000", None),
        ("192.168.0.0/16, 10.0.0.0/8", "http://10.1.2.3:8000", None),
        ("192.168.0.0/16", "http://10.1.2.3:8000", PROXY),
    ],
)
def test_no_proxy_excludes_names_and_networks(monkeypatch, excluded, url, proxy) -> None:
    monkeypatch.setenv("http_proxy", PROXY)
    monkeypatch.setenv("no_proxy", excluded)
    assert proxy_for(url) == proxy


def test_proxy_depends_on_the_scheme_and_may_lack_one(monkeypatch) -> None:
    monkeypatch.setenv("https_proxy", "proxy.example:3128")
    assert proxy_for("https://models.example/v1") == PROXY
    assert proxy_for("http://models.example/v1") is None


def test_proxy_of_another_type_is_refused_without_its_password(monkeypatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:secret@proxy.example:1080")
    with pytest.raises(ConfigError, match="'socks5'; set http_proxy to an http or https proxy") as caught:
        proxy_for("http://models.example/v1")
    assert "secret" not in str(caught.value)
    assert proxy_for("http://127.0.0.1:8100/v1") is None
