"""Run the reward server in this process until it is stopped by a signal.

``python -m editr1.serving.run FOLDER [--golden golden.json] [--set port=0 ...]`` serves a verifier folder. The
``serve`` stage of a run calls :func:`serve` with the golden samples of its model, which must be scored before the
server is ready.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from editr1.artifacts.weights import check_model_folder
from editr1.config.loader import ConfigError, load_settings
from editr1.config.serve import ServeConfig
from editr1.data.types import ScoreItem
from editr1.errors import Editr1Error, ExitCode
from editr1.serving.api import Resolver
from editr1.serving.engines.base import Engine
from editr1.serving.golden import load_golden, load_golden_sample
from editr1.serving.server import create_app
from editr1.serving.service import RewardService
from editr1.telemetry import configure
from editr1.telemetry.log import configure_logging, requested_format
from editr1.verifier.trace_lengths import check_token_limit

log = logging.getLogger("editr1.serving")
_BACKLOG = 2048


class GoldenFailed(Editr1Error, RuntimeError):
    """No golden sample could be scored, so the server did not become ready. The message gives the reason."""

    exit_code = ExitCode.INPUT


class AddressUnavailable(Editr1Error, ConnectionError):
    """The server could not bind its address."""

    exit_code = ExitCode.TRANSIENT


def make_engine(config: ServeConfig, model: str | Path, *, model_digest: str | None = None) -> Engine:
    """Create the engine that ``config`` selects. ``model`` is a verifier folder or a name on the Hugging Face hub.

    The ``openai`` engine reads only the prompt template and the digest from the folder; the
    weights are loaded by the OpenAI-compatible server.

    Raises:
        UnusableModel: The folder has pickled files, or its weights are incomplete, damaged or not finite.
        ConfigError: ``max_new_tokens`` cuts off the traces that the verifier was trained on.
    """
    check_token_limit(model, config.max_new_tokens, "max_new_tokens", must_parse=config.golden_must_parse)
    if config.engine == "openai":
        from editr1.serving.engines.openai_engine import OpenAIEngine

        if Path(model).is_dir():
            check_model_folder(model)
        return OpenAIEngine.from_folder(config.openai, model, model_digest=model_digest)
    from editr1.serving.engines.transformers_engine import TransformersEngine

    return TransformersEngine.load(
        model, device=config.device, dtype=config.dtype, model_digest=model_digest, max_batch_size=config.max_batch_size
    )


def serve(
    engine: Engine,
    config: ServeConfig,
    golden: ScoreItem | Sequence[ScoreItem],
    *,
    resolver: Resolver | None = None,
    on_ready: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT arrives or ``should_stop`` (polled ten times per second) returns True, then drain.

    ``on_ready`` is called once with the base URL when a golden sample has been scored. While draining, the server
    accepts no new connections and completes accepted requests within ``config.drain_timeout_seconds``. Signals
    that the process ignores stay ignored. Outside the main thread, no signal handler is installed.

    Raises:
        GoldenFailed: No golden sample could be scored.
        AddressUnavailable: The server could not bind its address.
    """
    app = create_app(engine, config, golden, resolver=resolver)
    server = _Server(app, config, on_ready, should_stop)
    try:
        server.run(sockets=_listeners(config))
    except (SystemExit, OSError) as error:
        raise AddressUnavailable(_address_unavailable(config)) from error
    if server.failure is not None:
        raise GoldenFailed(server.failure)
    if not server.started:
        raise AddressUnavailable(_address_unavailable(config))


def _listeners(config: ServeConfig) -> list[socket.socket] | None:
    """Return the socket for all addresses, or None if the settings name an address, which uvicorn binds.

    uvicorn listens on one family only, but a cluster can give its pods IPv4 or IPv6 addresses.
    """
    if config.host != "*":
        return None
    if socket.has_dualstack_ipv6():
        family, both = socket.AF_INET6, True
    else:
        family, both = socket.AF_INET, False
    return [socket.create_server(("", config.port), family=family, dualstack_ipv6=both, backlog=_BACKLOG)]


def _address_unavailable(config: ServeConfig) -> str:
    return f"{config.host}:{config.port}: the server could not bind this address; choose another port"


class _Server(uvicorn.Server):
    """A uvicorn server that calls ``on_ready`` and does not re-raise the stop signal after draining."""

    def __init__(
        self,
        app: FastAPI,
        config: ServeConfig,
        on_ready: Callable[[str], None] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=config.host,
                port=config.port,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=max(1, round(config.drain_timeout_seconds)),
                timeout_keep_alive=75,
                backlog=_BACKLOG,
            )
        )
        self.failure: str | None = None
        self._service: RewardService = app.state.service
        self._serve_config = config
        self._on_ready = on_ready
        self._should_stop = should_stop

    async def on_tick(self, counter: int) -> bool:
        service = self._service
        if service.warm_up_error is not None and not self.should_exit:
            self.failure = service.warm_up_error
            self.should_exit = True
        elif self._on_ready is not None and service.not_ready_reason() is None:
            self._on_ready(self._url())
            self._on_ready = None
        if self._should_stop is not None and self._should_stop():
            self.should_exit = True
        if self.should_exit and not service.draining:
            service.draining = True
            log.info("draining")
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A launcher that handles Ctrl-C itself starts its children with SIGINT ignored, and the server must not
        # change this.
        handled = [n for n in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._stop) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.should_exit = True

    def _url(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        if self._serve_config.host == "*":
            host = "127.0.0.1"
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server with the given command-line arguments. Return 0 after draining, or the exit code of the error."""
    parser = argparse.ArgumentParser(
        prog="python -m editr1.serving.run", description="Run a reward server for a verifier."
    )
    parser.add_argument("model", help="folder of the verifier, or its name on the Hugging Face hub")
    parser.add_argument("--config", type=Path, help="YAML file of server settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set one server setting; overrides the file and the environment, and can be repeated",
    )
    parser.add_argument(
        "--golden",
        type=Path,
        help="JSON file of golden samples: items of a score request that are scored before the server is ready (default:"
        " editr1_golden.json in the folder of the verifier)",
    )
    parser.add_argument("--digest", help="model digest to return in responses (default: computed from the folder)")
    parser.add_argument(
        "--ready-file", type=Path, help="file to which the URL of the server is written once the server is ready"
    )
    parsed = parser.parse_args(arguments)
    configure_logging(requested_format())
    spans = os.environ.get("EDITR1_SPAN_FILE")
    configure("editr1-serve", Path(spans) if spans else None)
    try:
        config = load_settings(
            ServeConfig, file=parsed.config, env=os.environ, env_prefix="EDITR1_SERVE__", overrides=parsed.set
        )
        golden = load_golden(parsed.golden) if parsed.golden else load_golden_sample(parsed.model)
    except (ConfigError, OSError, ValueError) as error:
        log.error("%s", error)
        return ExitCode.CONFIG

    def ready(url: str) -> None:
        log.info("ready on %s", url)
        if parsed.ready_file:
            part = parsed.ready_file.with_suffix(".part")
            part.write_text(url, encoding="utf-8")
            part.replace(parsed.ready_file)

    try:
        serve(make_engine(config, parsed.model, model_digest=parsed.digest), config, golden, on_ready=ready)
    except Editr1Error as error:
        log.error("%s", error)
        return error.exit_code
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
