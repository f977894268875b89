"""Stage ``sft``: supervised fine-tuning of the verifier on reasoning traces."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from editr1.config.sft import SftConfig
from editr1.data.types import PreferencePair, ScoreFailure, ScoreItem, ScoreOutcome, SftRow, score_item
from editr1.seeding import derive_seed
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.entry import main
from editr1.stages.runtime.sealed import is_intact, seal
from editr1.training_signal import NoTrainingSignal

POLL_SECONDS = 0.5


def body(context: StageContext) -> dict[str, float]:
    """Train the input model, commit the trained model, and return the training metrics.

    The training rows are the input ``rows``. If the input ``pairs`` is given instead, the model samples traces for
    the pairs, and the traces whose scores agree best with the human preferences become the training rows.
    """
    from editr1.data.tables import count_rows, read_table
    from editr1.stages.runtime.golden_sample import save_golden_sample
    from editr1.verifier.sft import train_sft
    from editr1.verifier.trace_lengths import check_token_limit

    config = context.settings(SftConfig)
    context.check_inputs()
    out = context.output_folder("model")
    from_pairs = "pairs" in context.job.inputs
    if from_pairs:
        check_token_limit(context.input("model"), config.max_new_tokens, "max_new_tokens")
    rows = _best_of_n_rows(context, config) if from_pairs else context.table("rows")
    metrics = train_sft(config, model=context.input("model"), rows=rows, output_dir=out, hooks=context.hooks())
    if context.is_main:
        quadruple = next(iter(read_table(rows, SftRow))).quadruple
        save_golden_sample(out, score_item(quadruple.case, quadruple.candidate))
        context.commit("model", out, kind="verifier")
    return {**metrics, "best_of_n_rows": float(count_rows(rows))} if from_pairs else metrics


def _best_of_n_rows(context: StageContext, config: SftConfig) -> Path:
    """Return the path of a table with the best of N sampled traces for each image of each pair.

    The first process of each node writes the table. The other processes of the node wait for it. A table of an earlier attempt is
    used again if it is complete and unchanged.
    """
    rows = context.workdir / f"best-of-n-{context.job.key[:12]}.parquet"
    if context.distributed.is_local_main:
        if not is_intact(rows):
            _sample_rows(context, config, rows)
            seal(rows)
        return rows
    from editr1.telemetry import Interrupted

    while not is_intact(rows):
        if context.should_stop():
            raise Interrupted
        time.sleep(POLL_SECONDS)
    return rows


def _sample_rows(context: StageContext, config: SftConfig, rows: Path) -> None:
    from editr1.curation.preferred import preferred_rows
    from editr1.data.tables import read_column, read_table, write_table
    from editr1.serving.engines.base import Sampling
    from editr1.serving.engines.transformers_engine import TransformersEngine
    from editr1.serving.scoring import score_items
    from editr1.telemetry import Interrupted
    from editr1.verifier.prompt_length import check_pairs

    def on_batch(done: int) -> None:
        context.progress.step(done)
        if context.should_stop():
            raise Interrupted

    pairs = context.table("pairs")
    check_pairs(pairs, [context.input("model")])
    engine = TransformersEngine.load(context.input("model"), device=config.device, max_batch_size=256)
    # The mean score of an edit is not used, so one parsed trace is sufficient.
    sampling = Sampling(
        temperature=1.0, num_traces=config.best_of_n, max_tokens=config.max_new_tokens, min_parsed_fraction=0.0
    )
    calls = count()

    outcomes, failed = 0, list[str]()

    def score(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        nonlocal outcomes
        seed = derive_seed(config.seed, "pick", next(calls))
        scored = score_items(engine, items, sampling.model_copy(update={"seed": seed}))
        outcomes += len(scored)
        failed.extend(item.detail for item in scored if isinstance(item, ScoreFailure))
        return scored

    context.progress.phase("sampling traces for pairs", read_column(pairs, "label").count("winner"))
    selected = preferred_rows(read_table(pairs, PreferencePair), score, on_batch=on_batch)
    if write_table(rows, selected, SftRow) == 0:
        rows.unlink()
        raise NoTrainingSignal(
            "input pairs: no trace sampled from the model ranks a pair correctly, so there are no rows to train on:"
            f" {len(failed)} of {outcomes} edits could not be scored{f' (the first one: {failed[0]})' if failed else ''};"
            " use a better model, or raise best_of_n or max_new_tokens"
        )


if __name__ == "__main__":
    main(body, "editr1.stages.sft")
