"""Stage ``sft``: the verifier learns to write verified traces."""

from __future__ import annotations

from editr1.config.sft import SftConfig
from editr1.stages.context import StageContext
from editr1.stages.entry import main


def body(context: StageContext) -> dict[str, float]:
    """Train on the input rows and commit the model."""
    from editr1.verifier.sft import train_sft

    config = context.settings(SftConfig)
    out = context.output_folder("model")
    metrics = train_sft(
        config, model=context.input("model"), rows=context.table("rows"), output_dir=out, hooks=context.hooks()
    )
    if context.is_main:
        context.commit("model", out, kind="verifier")
    return metrics


if __name__ == "__main__":
    main(body, "editr1.stages.sft")
