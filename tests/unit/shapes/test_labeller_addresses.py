"""The addresses on which the labelling server listens."""

from __future__ import annotations

import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["*", "::"])
def test_all_addresses_are_ipv4_and_ipv6(host: str) -> None:
    command = [sys.executable, "-m", "editr1.shapes.labeller_server", "--host", host, "--port", "0", "--remote"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().rpartition(":")[2].split("/")[0]
        for address in ("127.0.0.1", "[::1]"):
            with urlopen(f"http://{address}:{port}/healthz", timeout=10) as response:
                assert response.status == 200
    finally:
        process.terminate()
        process.wait(10)
