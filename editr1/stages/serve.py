"""Stage ``serve``: run a reward server with a verifier until the stage is stopped."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from editr1.config.serve import ServeConfig
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.entry import main

log = logging.getLogger("editr1.stage")


def body(context: StageContext) -> dict[str, float]:
    """Load the verifier and serve it until SIGTERM is received. Then complete the accepted requests, and return.

    When the server is ready, its URL and the digest of its model are written to ``service.json`` in the working
    directory.
    """
    from editr1.serving.golden import load_golden_sample
    from editr1.serving.run import make_engine, serve

    config = context.settings(ServeConfig)
    context.progress.phase("loading", 1)
    model = context.input("model")
    engine = make_engine(config, model, model_digest=context.job.inputs["model"])
    context.progress.step()

    def ready(url: str) -> None:
        log.info("ready at %s", url)
        _publish(context.workdir / "service.json", url, engine.model_digest)

    serve(engine, config, load_golden_sample(model), on_ready=ready, should_stop=context.should_stop)
    return {}


def _publish(path: Path, url: str, digest: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"urls": [url], "digest": digest}), encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main(body, "editr1.stages.serve")
