"""Stage ``gcpo``: train the verifier with GCPO on preference pairs."""

from __future__ import annotations

from editr1.config.gcpo import GcpoConfig
from editr1.data.types import PreferencePair, score_item
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.entry import main


def body(context: StageContext) -> dict[str, float]:
    """Train the input model on the input pairs, commit the trained model, and return the training metrics."""
    from editr1.data.tables import read_table
    from editr1.stages.runtime.golden_sample import save_golden_sample
    from editr1.verifier.gcpo import train_gcpo

    config = context.settings(GcpoConfig)
    out = context.output_folder("model")
    pairs = context.table("pairs")
    metrics = train_gcpo(config, model=context.input("model"), pairs=pairs, output_dir=out, hooks=context.hooks())
    if context.is_main:
        first = next(pair for pair in read_table(pairs, PreferencePair) if pair.label != "same")
        save_golden_sample(out, score_item(first.case, first.winner))
        context.commit("model", out, kind="verifier")
    return metrics


if __name__ == "__main__":
    main(body, "editr1.stages.gcpo")
