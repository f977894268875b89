"""Stage ``evaluate``: accuracy of the verifiers on held-out pairs, quality of the editors on held-out cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING, Final, Literal

from editr1.config.evaluate import EvaluateConfig
from editr1.config.loader import ConfigError
from editr1.seeding import derive_seed
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.entry import main

if TYPE_CHECKING:
    from PIL.Image import Image

    from editr1.data.types import EditCase, PreferencePair, ScoreItem, ScoreOutcome
    from editr1.evaluation.editor_eval import EditRow
    from editr1.evaluation.pairs import PairScores
    from editr1.evaluation.report.model import ReportData
    from editr1.evaluation.scoring import Scorer, Truth
    from editr1.stages.runtime.public_sets import Edit
    from editr1.telemetry import Progress

VERIFIERS: Final[dict[str, Literal["sft", "rl"]]] = {"SFT-RRM": "sft", "RL-RRM": "rl"}
EDITORS: Final[dict[str, Literal["before", "after"]]] = {"editor before RL": "before", "editor after RL": "after"}
"""Inputs by the title under which the report shows them."""


def body(context: StageContext) -> dict[str, float]:
    """Measure what the inputs name, and commit it.

    ``evaluation.json`` is a ReportData without the run around it; ``pairs.jsonl`` and ``edits.jsonl`` hold the items
    behind its figures (see editr1.evaluation.items).
    """
    from editr1.data.tables import read_table
    from editr1.data.types import EditCase, PreferencePair
    from editr1.evaluation.editor_eval import editor_figures, gallery
    from editr1.evaluation.items import EDITS_FILE, PAIRS_FILE, edit_items, pair_items, write_items
    from editr1.evaluation.metrics import Bootstrap
    from editr1.evaluation.pairs import compare, first_pairs, verifier_figures
    from editr1.evaluation.report.model import ReportData, RunHeader, VerifierGain
    from editr1.runs.report import EVALUATION_FILE
    from editr1.stages.runtime.public_sets import public_tables

    config = context.settings(EvaluateConfig)
    context.check_inputs()
    if (
        config.ground_truth == "none"
        and set(EDITORS.values()) & context.job.inputs.keys()
        and "rl" not in context.job.inputs
    ):
        raise ConfigError("inputs: without a known truth the verifier rl judges the editors, and it is missing")
    bootstrap = Bootstrap(samples=config.bootstrap_samples, confidence=config.confidence, seed=config.seed)
    truth = _truth(config)
    judged = "pairs" in context.job.inputs
    names = {title: role for title, role in VERIFIERS.items() if judged and role in context.job.inputs}
    pairs = first_pairs(list(read_table(context.table("pairs"), PreferencePair)), config.max_pairs) if judged else []
    scored = {role: _judge(context, config, role, title, pairs) for title, role in names.items()}
    verifiers = [verifier_figures(title, role, scored[role], truth, bootstrap) for title, role in names.items()]
    both = len(scored) == 2 and all(figures.accuracy is not None for figures in verifiers)
    gain = compare(scored["rl"], scored["sft"], bootstrap) if both else VerifierGain()

    editors = {title: role for title, role in EDITORS.items() if role in context.job.inputs}
    cases = list(islice(read_table(context.table("cases"), EditCase), config.max_cases)) if editors else []
    edited = {role: _edit(context, config, role, title, cases, truth) for title, role in editors.items()}
    judge: Literal["truth", "verifier"] = "truth" if truth else "verifier"
    pair = (edited["before"], edited["after"]) if len(edited) == 2 and cases else None

    data = ReportData(
        run=RunHeader(name=context.job.run, state="running"),
        truth=config.ground_truth,
        verifiers=tuple(verifiers),
        verifier_gain=gain,
        editor=editor_figures(*pair, judge, bootstrap=bootstrap) if pair else None,
        gallery=gallery(*pair, config.gallery_size, config.seed) if pair else (),
        benchmarks=public_tables(
            context,
            config,
            bootstrap,
            {title: partial(_scorer, context, config, role) for title, role in names.items()},
            {title: partial(_editor, context, config, role) for title, role in editors.items()},
        ),
    )
    folder = context.output_folder("evaluation")
    (folder / EVALUATION_FILE).write_text(data.model_dump_json(indent=1), encoding="utf-8")
    write_items(folder / PAIRS_FILE, [item for role, scores in scored.items() for item in pair_items(role, scores)])
    write_items(folder / EDITS_FILE, [item for role, rows in edited.items() for item in edit_items(role, rows)])
    context.commit("evaluation", folder, kind="evaluation")
    return _figures(data)


def _truth(config: EvaluateConfig) -> Truth | None:
    if config.ground_truth == "none":
        return None
    from editr1.shapes.truth import true_score

    return lambda case, image: true_score(case.source, case.instruction, image)


def _judge(
    context: StageContext, config: EvaluateConfig, role: str, title: str, pairs: Sequence[PreferencePair]
) -> PairScores:
    from editr1.evaluation.pairs import score_pairs

    context.progress.phase(f"{title} on pairs", 2 * sum(pair.label != "same" for pair in pairs))
    return score_pairs(
        pairs,
        _scorer(context, config, role),
        traces=config.num_traces,
        batch=config.score_batch_size,
        max_failed_fraction=config.max_failed_fraction,
        on_batch=_step(context.progress, context),
    )


def _edit(
    context: StageContext, config: EvaluateConfig, role: str, title: str, cases: Sequence[EditCase], truth: Truth | None
) -> list[EditRow]:
    """Edits of every case; the verifier marks them all where no truth is known or it was asked to, else the gallery's."""
    from editr1.evaluation.editor_eval import evaluate_editor, rescored

    edit = _editor(context, config, role)
    context.progress.phase(title, len(cases))
    rows = evaluate_editor(
        cases, edit, truth=truth, batch=config.sample_batch_size, on_batch=_step(context.progress, context)
    )
    if "rl" not in context.job.inputs:
        return rows
    judged = truth is None or config.score_edits
    return rescored(
        rows,
        _scorer(context, config, "rl"),
        None if judged else config.gallery_size,
        config.seed,
        batch=config.score_batch_size,
        max_failed_fraction=config.max_failed_fraction if judged else 1.0,
    )


def _editor(context: StageContext, config: EvaluateConfig, role: str) -> Edit:
    """The editor; the noise of an edit depends on the run's seed and the case alone, so that two editors share it."""
    from editr1.editor.policies import NotFinite, load_policy
    from editr1.editor.sample import EditSettings, edit_images

    policy = load_policy(context.input(role), max_text_tokens=config.max_text_tokens)
    settings = EditSettings(
        num_inference_steps=config.num_inference_steps,
        guidance=config.guidance_scale,
        resolution=config.resolution,
        reference_resolution=config.reference_resolution,
        batch_size=config.sample_batch_size,
    )

    def edit(sources: Sequence[Image], instructions: Sequence[str]) -> Sequence[Image]:
        try:
            return edit_images(
                policy,
                sources,
                instructions,
                settings,
                seed=[
                    derive_seed(config.seed, "edit", source.tobytes(), instruction)
                    for source, instruction in zip(sources, instructions, strict=True)
                ],
            )
        except NotFinite as error:
            raise ConfigError(f"input {role}: the editor cannot be evaluated: {error}") from error

    return edit


def _scorer(context: StageContext, config: EvaluateConfig, role: str) -> Scorer:
    """The verifier; each call draws anew, and two verifiers that are asked the same in the same order share their noise."""
    from editr1.serving.engines.base import Sampling
    from editr1.serving.engines.transformers_engine import TransformersEngine
    from editr1.serving.scoring import score_items

    engine = TransformersEngine.load(
        context.input(role), model_digest=context.job.inputs[role], max_batch_size=config.score_batch_size
    )
    sampling = Sampling(temperature=config.temperature, num_traces=config.num_traces, max_tokens=config.max_new_tokens)
    calls = count()

    def score(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        seed = derive_seed(config.seed, "score", next(calls))
        return score_items(engine, items, sampling.model_copy(update={"seed": seed}))

    return score


def _step(progress: Progress, context: StageContext) -> Callable[[int], None]:
    from editr1.telemetry import Interrupted

    def on_batch(n: int) -> None:
        progress.step(n)
        if context.should_stop():
            raise Interrupted

    return on_batch


def _figures(data: ReportData) -> dict[str, float]:
    figures: dict[str, float] = {}
    for verifier in data.verifiers:
        if verifier.accuracy is not None:
            figures[f"{verifier.role}_half_credit"] = verifier.accuracy.half_credit.value
    if data.verifier_gain.half_credit is not None:
        figures["rl_gain"] = data.verifier_gain.half_credit.value
    if data.editor is not None:
        for name, parts in (("editor_before", data.editor.before), ("editor_after", data.editor.after)):
            if parts.score is not None:
                figures[name] = parts.score.value
    return figures


if __name__ == "__main__":
    main(body, "editr1.stages.evaluate")
