"""Stage ``evaluate``: accuracy of the verifiers on held-out pairs, quality of the editors on held-out cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal

from editr1.config.evaluate import EvaluateConfig
from editr1.stages.context import StageContext
from editr1.stages.entry import main

if TYPE_CHECKING:
    from editr1.data.types import EditCase, PreferencePair
    from editr1.evaluation.editor_eval import EditRow
    from editr1.evaluation.pairs import PairScores
    from editr1.evaluation.report.model import ReportData
    from editr1.evaluation.scoring import Scorer, Truth
    from editr1.stages.public_sets import Edit
    from editr1.telemetry import Progress


def body(context: StageContext) -> dict[str, float]:
    """Measure, and commit ``evaluation.json`` (a ReportData without the run around it)."""
    from editr1.data.tables import read_table
    from editr1.data.types import EditCase, PreferencePair
    from editr1.evaluation.editor_eval import editor_figures, gallery
    from editr1.evaluation.metrics import Bootstrap
    from editr1.evaluation.pairs import compare, first_pairs, verifier_figures
    from editr1.evaluation.report.model import ReportData, RunHeader, VerifierGain
    from editr1.runs.report import EVALUATION_FILE
    from editr1.stages.public_sets import public_tables

    config = context.settings(EvaluateConfig)
    bootstrap = Bootstrap(samples=config.bootstrap_samples, confidence=config.confidence, seed=config.seed)
    truth = _truth(config)
    pairs = first_pairs(list(read_table(context.table("pairs"), PreferencePair)), config.pairs)
    cases = list(islice(read_table(context.table("cases"), EditCase), config.editor_cases))

    names: list[tuple[str, Literal["sft", "rl"]]] = [("SFT-RRM", "sft")] if "sft" in context.job.inputs else []
    names.append(("RL-RRM", "rl"))
    scored: dict[str, PairScores] = {}
    verifiers = []
    for title, role in names:
        scored[role] = _judge(context, config, role, title, pairs)
        verifiers.append(verifier_figures(title, role, scored[role], truth, bootstrap))
    both = len(scored) == 2 and all(figures.accuracy is not None for figures in verifiers)
    gain = compare(scored["rl"], scored["sft"], bootstrap) if both else VerifierGain()

    editors: dict[str, Literal["before", "after"]] = {"editor before RL": "before", "editor after RL": "after"}
    before, after = (_edit(context, config, role, title, cases, truth) for title, role in editors.items())
    editor = editor_figures(before, after, "truth" if truth else "verifier", bootstrap=bootstrap) if cases else None

    data = ReportData(
        run=RunHeader(name=context.job.run, state="running"),
        truth=config.truth,
        verifiers=tuple(verifiers),
        verifier_gain=gain,
        editor=editor,
        gallery=gallery(before, after, config.gallery, config.seed),
        benchmarks=public_tables(
            context,
            config,
            bootstrap,
            {title: partial(_scorer, context, config, role) for title, role in names},
            {title: partial(_editor, context, config, role) for title, role in editors.items()},
        ),
    )
    folder = context.output_folder("evaluation")
    (folder / EVALUATION_FILE).write_text(data.model_dump_json(indent=1), encoding="utf-8")
    context.commit("evaluation", folder, kind="evaluation")
    return _figures(data)


def _truth(config: EvaluateConfig) -> Truth | None:
    if config.truth == "none":
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
        batch=config.score_batch,
        max_failed=config.max_failed,
        on_batch=_step(context.progress, context),
    )


def _edit(
    context: StageContext, config: EvaluateConfig, role: str, title: str, cases: Sequence[EditCase], truth: Truth | None
) -> list[EditRow]:
    """Edits of every case; the verifier marks them all where no truth is known, else those of the gallery alone."""
    from editr1.evaluation.editor_eval import evaluate_editor, rescored

    edit = _editor(context, config, role)
    context.progress.phase(title, len(cases))
    rows = evaluate_editor(cases, edit, truth=truth, batch=config.edit_batch, on_batch=_step(context.progress, context))
    drawn = None if truth is None else config.gallery
    return rescored(rows, _scorer(context, config, "rl"), drawn, config.seed, batch=config.score_batch)


def _editor(context: StageContext, config: EvaluateConfig, role: str) -> Edit:
    from editr1.editor.policies import load_policy
    from editr1.editor.sample import edit_images

    return partial(
        edit_images,
        load_policy(context.input(role), max_text_tokens=config.max_text_tokens),
        steps=config.steps,
        guidance=config.guidance,
        seed=config.seed,
        size=config.resolution,
        batch_size=config.edit_batch,
    )


def _scorer(context: StageContext, config: EvaluateConfig, role: str) -> Scorer:
    from editr1.serving.engines.base import Sampling
    from editr1.serving.engines.transformers_engine import TransformersEngine
    from editr1.serving.scoring import score_items

    engine = TransformersEngine.load(
        context.input(role), model_digest=context.job.inputs[role], max_batch=config.score_batch
    )
    sampling = Sampling(temperature=config.temperature, n=config.traces, max_tokens=config.max_tokens, seed=config.seed)
    return lambda items: score_items(engine, items, sampling)


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
