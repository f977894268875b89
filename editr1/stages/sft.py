"""Stage ``sft``: the verifier learns to write verified traces."""

from __future__ import annotations

from editr1.config.sft import SftConfig
from editr1.data.types import SftRow, score_item
from editr1.stages.context import StageContext
from editr1.stages.entry import main


def body(context: StageContext) -> dict[str, float]:
    """Train on the input rows and commit the model."""
    from editr1.data.tables import read_table
    from editr1.stages.golden import put_golden
    from editr1.verifier.sft import train_sft

    config = context.settings(SftConfig)
    out = context.output_folder("model")
    rows = context.table("rows")
    metrics = train_sft(config, model=context.input("model"), rows=rows, output_dir=out, hooks=context.hooks())
    if context.is_main:
        quadruple = next(iter(read_table(rows, SftRow))).quadruple
        put_golden(out, score_item(quadruple.case, quadruple.candidate))
        context.commit("model", out, kind="verifier")
    return metrics


if __name__ == "__main__":
    main(body, "editr1.stages.sft")
