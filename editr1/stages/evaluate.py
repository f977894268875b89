"""Stage ``evaluate``: accuracy of the verifiers on held-out pairs, and quality of the editors on held-out cases."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Final, Literal

from editr1.config.evaluate import EvaluateConfig
from editr1.config.loader import ConfigError
from editr1.seeding import derive_seed
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.entry import main

if TYPE_CHECKING:
    from PIL.Image import Image

    from editr1.data.types import EditCase, PreferencePair, ScoreItem, ScoreOutcome
    from editr1.evaluation.editor_eval import EditFunction, EditRow
    from editr1.evaluation.items import PublicItem
    from editr1.evaluation.metrics import Bootstrap
    from editr1.evaluation.pairs import PairScores
    from editr1.evaluation.report.model import ReportData
    from editr1.evaluation.scoring import GroundTruth, Scorer
    from editr1.telemetry import Progress

log = logging.getLogger("editr1.stage")

VERIFIERS: Final[dict[str, Literal["sft", "rl"]]] = {"SFT-RRM": "sft", "RL-RRM": "rl"}
"""Name of the stage input that contains a verifier, by the verifier's title in the report."""
EDITORS: Final[dict[str, Literal["before", "after"]]] = {"editor before RL": "before", "editor after RL": "after"}
"""Name of the stage input that contains an editor, by the editor's title in the report."""


@dataclass
class _Evaluation:
    """State shared by the parts of an evaluation: settings, inputs, and the results per pair and per edit so far.

    ``verifiers`` and ``editors`` map titles in the report to names of stage inputs. They contain only inputs that are
    set.
    """

    context: StageContext
    config: EvaluateConfig
    bootstrap: Bootstrap
    truth: GroundTruth | None
    verifiers: dict[str, Literal["sft", "rl"]]
    editors: dict[str, Literal["before", "after"]]
    pairs: list[PreferencePair] = field(default_factory=list)
    pair_scores: dict[str, PairScores] = field(default_factory=dict)
    edits: dict[str, list[EditRow]] = field(default_factory=dict)
    public: list[PublicItem] = field(default_factory=list)


def body(context: StageContext) -> dict[str, float]:
    """Evaluate the verifiers and editors among the inputs, commit the results, and return the main metrics.

    The output contains ``evaluation.json`` (the aggregated results), ``pairs.jsonl`` (one line per verifier and
    preference pair), ``edits.jsonl`` (one line per edit) and, with public benchmarks, ``public.jsonl`` (one line per
    request about an edit). All files except ``evaluation.json`` contain the verdicts, the traces and the digest of
    every edit, so that every metric can be recomputed from them. For the formats see :class:`ReportData` and
    :mod:`editr1.evaluation.items`.
    """
    from editr1.evaluation.metrics import Bootstrap
    from editr1.evaluation.report.model import ReportData, RunHeader

    config = context.settings(EvaluateConfig)
    context.check_inputs()
    inputs = context.job.inputs
    evaluation = _Evaluation(
        context=context,
        config=config,
        bootstrap=Bootstrap(samples=config.bootstrap_samples, confidence=config.confidence, seed=config.seed),
        truth=_ground_truth(config),
        verifiers={title: role for title, role in VERIFIERS.items() if "pairs" in inputs and role in inputs},
        editors={title: role for title, role in EDITORS.items() if role in inputs},
    )
    if evaluation.truth is None and evaluation.editors and "rl" not in inputs:
        raise ConfigError(
            "inputs: the input 'rl' is missing, but its verifier scores the edits if ground_truth is 'none'; add the input"
            " 'rl', or set ground_truth to 'shapes' if the cases are from the shapes dataset"
        )
    _check_tables(evaluation)
    data = ReportData(run=RunHeader(name=context.job.run, state="running"), truth=config.ground_truth)
    for part in _PARTS:
        data = part(evaluation, data)
    _commit(evaluation, data)
    return _metrics(data)


def _check_tables(evaluation: _Evaluation) -> None:
    """Check every row that will be used, before the weights of a model are loaded.

    Raises:
        TableError: A row violates a rule of :mod:`editr1.data.rules`, or a prompt does not fit into a verifier's context.
        BenchmarkError: A row of a public benchmark violates a rule.
        ConfigError: ``max_new_tokens`` cuts off the traces that a verifier was trained on.
    """
    from editr1.stages.runtime.public_sets import check_benchmarks
    from editr1.verifier.prompt_length import check_cases, check_pairs
    from editr1.verifier.trace_lengths import check_token_limit

    context, config = evaluation.context, evaluation.config
    for role in VERIFIERS.values():
        if role in context.job.inputs:
            must_parse = config.max_failed_fraction < 1.0
            check_token_limit(context.input(role), config.max_new_tokens, "max_new_tokens", must_parse=must_parse)
    if evaluation.verifiers:
        models = [context.input(role) for role in evaluation.verifiers.values()]
        check_pairs(context.table("pairs"), models, max_pairs=config.max_pairs)
    if evaluation.editors:
        models = [context.input("rl")] if "rl" in context.job.inputs else []
        check_cases(context.table("cases"), models, needs_principles=bool(models), max_cases=config.max_cases)
    check_benchmarks(context)


def _evaluate_verifiers(evaluation: _Evaluation, data: ReportData) -> ReportData:
    """Measure the accuracy of each verifier on the preference pairs. If there are two, compare them."""
    from editr1.data.tables import read_table
    from editr1.data.types import PreferencePair
    from editr1.evaluation.ceiling import truth_agreement
    from editr1.evaluation.pairs import compare_verifiers, first_decided_pairs, verifier_metrics

    context, config, bootstrap = evaluation.context, evaluation.config, evaluation.bootstrap
    if "pairs" not in context.job.inputs:
        return data
    pairs = first_decided_pairs(list(read_table(context.table("pairs"), PreferencePair)), config.max_pairs)
    evaluation.pairs = pairs
    scores = evaluation.pair_scores
    for title, role in evaluation.verifiers.items():
        scores[role] = _score_pairs(context, config, role, title, pairs)
        _log_failures(f"{title} on pairs", (*scores[role].winners, *scores[role].losers))
    metrics = [
        verifier_metrics(title, role, scores[role], evaluation.truth, bootstrap)
        for title, role in evaluation.verifiers.items()
    ]
    agreement = truth_agreement(pairs, evaluation.truth, bootstrap) if evaluation.truth and metrics else None
    data = data.model_copy(update={"verifiers": tuple(metrics), "label_agreement": agreement})
    if len(scores) == 2 and all(verifier.accuracy is not None for verifier in metrics):
        gain = compare_verifiers(scores["rl"], scores["sft"], bootstrap)
        data = data.model_copy(update={"verifier_gain": gain})
    return data


def _evaluate_editors(evaluation: _Evaluation, data: ReportData) -> ReportData:
    """Edit the cases with each editor and score the edits. If there are two editors, compare them."""
    from editr1.data.tables import read_table
    from editr1.data.types import EditCase
    from editr1.evaluation.ceiling import unchanged_score
    from editr1.evaluation.editor_eval import editor_metrics, gallery

    context, config = evaluation.context, evaluation.config
    if not evaluation.editors:
        return data
    cases = list(islice(read_table(context.table("cases"), EditCase), config.max_cases))
    for title, role in evaluation.editors.items():
        evaluation.edits[role] = _edit_cases(context, config, role, title, cases, evaluation.truth)
    if len(evaluation.edits) < 2 or not cases:
        return data
    before, after = evaluation.edits["before"], evaluation.edits["after"]
    scored_by: Literal["truth", "verifier"] = "truth" if evaluation.truth else "verifier"
    metrics = editor_metrics(before, after, scored_by, bootstrap=evaluation.bootstrap)
    unchanged = unchanged_score(cases, evaluation.truth, evaluation.bootstrap) if evaluation.truth else None
    return data.model_copy(
        update={
            "editor": metrics.model_copy(update={"unchanged": unchanged}),
            "gallery": gallery(before, after, config.gallery_size, config.seed),
        }
    )


def _evaluate_benchmarks(evaluation: _Evaluation, data: ReportData) -> ReportData:
    """Evaluate verifiers and editors on the public benchmarks among the inputs."""
    from editr1.stages.runtime.public_sets import benchmark_tables

    context, config = evaluation.context, evaluation.config
    tables = benchmark_tables(
        context,
        config,
        evaluation.bootstrap,
        {title: partial(_scorer, context, config, role) for title, role in evaluation.verifiers.items()},
        {title: partial(_editor, context, config, role) for title, role in evaluation.editors.items()},
        evaluation.public,
    )
    return data.model_copy(update={"benchmarks": tables})


_PARTS: Final[tuple[Callable[[_Evaluation, ReportData], ReportData], ...]] = (
    _evaluate_verifiers,
    _evaluate_editors,
    _evaluate_benchmarks,
)
"""The parts of an evaluation, in order. Each part returns the report data with its results added."""


def _commit(evaluation: _Evaluation, data: ReportData) -> None:
    from editr1.evaluation.items import EDITS_FILE, PAIRS_FILE, PUBLIC_FILE, edit_items, pair_items, write_items
    from editr1.runs.report import EVALUATION_FILE

    folder = evaluation.context.output_folder("evaluation")
    (folder / EVALUATION_FILE).write_text(data.model_dump_json(indent=1), encoding="utf-8")
    pairs, truth = evaluation.pairs, evaluation.truth
    scored = (pair_items(role, pairs, scores, truth) for role, scores in evaluation.pair_scores.items())
    write_items(folder / PAIRS_FILE, chain.from_iterable(scored))
    write_items(
        folder / EDITS_FILE, chain.from_iterable(edit_items(role, rows) for role, rows in evaluation.edits.items())
    )
    if evaluation.public:
        write_items(folder / PUBLIC_FILE, evaluation.public)
    evaluation.context.commit("evaluation", folder, kind="evaluation")


def _ground_truth(config: EvaluateConfig) -> GroundTruth | None:
    if config.ground_truth == "none":
        return None
    from editr1.shapes.truth import true_score

    return lambda case, image: true_score(case.source, case.instruction, image)


def _score_pairs(
    context: StageContext, config: EvaluateConfig, role: str, title: str, pairs: Sequence[PreferencePair]
) -> PairScores:
    from editr1.evaluation.pairs import score_pairs

    context.progress.phase(f"{title} on pairs", 2 * sum(pair.label != "same" for pair in pairs))
    return score_pairs(
        pairs,
        _scorer(context, config, role),
        num_traces=config.num_traces,
        batch_size=config.score_batch_size,
        max_failed_fraction=config.max_failed_fraction,
        on_batch=_report_progress(context.progress, context),
    )


def _edit_cases(
    context: StageContext,
    config: EvaluateConfig,
    role: str,
    title: str,
    cases: Sequence[EditCase],
    truth: GroundTruth | None,
) -> list[EditRow]:
    """Edit every case with one editor.

    If there is no ground truth, or if ``score_edits`` is set, the verifier in the input ``rl`` scores all edits.
    Otherwise, it scores only the edits in the gallery of the report. Without the input ``rl``, no scores are added.
    """
    from editr1.evaluation.editor_eval import evaluate_editor, with_scores

    edit = _editor(context, config, role)
    context.progress.phase(title, len(cases))
    on_batch = _report_progress(context.progress, context)
    rows = evaluate_editor(cases, edit, truth=truth, batch_size=config.sample_batch_size, on_batch=on_batch)
    if "rl" not in context.job.inputs:
        return rows
    score_all = truth is None or config.score_edits
    scored = with_scores(
        rows,
        _scorer(context, config, "rl"),
        None if score_all else config.gallery_size,
        config.seed,
        batch_size=config.score_batch_size,
        max_failed_fraction=config.max_failed_fraction if score_all else 1.0,
    )
    _log_failures(title, [row.outcome for row in scored if row.outcome is not None])
    return scored


def _log_failures(title: str, outcomes: Sequence[ScoreOutcome]) -> None:
    """Log how many edits have no score, by cause, if there are any."""
    from editr1.evaluation.scoring import failures, first_failure

    if causes := failures(outcomes):
        by_cause = ", ".join(f"{cause}: {n}" for cause, n in causes.most_common())
        text = "%s: %d of %d edits have no score (%s). The first failure: %s"
        log.warning(text, title, causes.total(), len(outcomes), by_cause, first_failure(outcomes)[:300])


def _editor(context: StageContext, config: EvaluateConfig, role: str) -> EditFunction:
    """Load an editor and return a function that edits images.

    The noise of an edit depends only on the seed and the case, so all editors start from the same noise.
    """
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
        seeds = [
            derive_seed(config.seed, "edit", source.tobytes(), instruction)
            for source, instruction in zip(sources, instructions, strict=True)
        ]
        try:
            return edit_images(policy, sources, instructions, settings, seed=seeds)
        except NotFinite as error:
            raise ConfigError(f"input {role}: the editor cannot be evaluated: {error}") from error

    return edit


def _scorer(context: StageContext, config: EvaluateConfig, role: str) -> Scorer:
    """Load a verifier and return a function that scores edits.

    Each call of this function samples with a different seed. The n-th call uses the same seed for every verifier.
    """
    from editr1.serving.engines.base import Sampling
    from editr1.serving.engines.transformers_engine import TransformersEngine
    from editr1.serving.scoring import score_items

    engine = TransformersEngine.load(
        context.input(role), model_digest=context.job.inputs[role], max_batch_size=config.score_batch_size
    )
    sampling = Sampling(
        temperature=config.temperature,
        num_traces=config.num_traces,
        max_tokens=config.max_new_tokens,
        min_parsed_fraction=config.min_parsed_fraction,
    )
    calls = count()

    def score(items: Sequence[ScoreItem]) -> list[ScoreOutcome]:
        seed = derive_seed(config.seed, "score", next(calls))
        return score_items(engine, items, sampling.model_copy(update={"seed": seed}))

    return score


def _report_progress(progress: Progress, context: StageContext) -> Callable[[int], None]:
    from editr1.telemetry import Interrupted

    def on_batch(n: int) -> None:
        progress.step(n)
        if context.should_stop():
            raise Interrupted

    return on_batch


def _metrics(data: ReportData) -> dict[str, float]:
    """Return the main results as metrics, which are stored in the record of the run.

    Each accuracy is accompanied by its number of pairs, and edits without a score are counted as ``failed: <cause>``.
    """
    metrics: dict[str, float] = {}
    failures: Counter[str] = Counter()
    for verifier in data.verifiers:
        if verifier.accuracy is not None:
            metrics[f"{verifier.role}_half_credit"] = verifier.accuracy.half_credit.value
            metrics[f"{verifier.role}_pairs"] = float(verifier.accuracy.n)
            if verifier.failed_pairs and verifier.accuracy.half_credit_with_failed is not None:
                with_failed = verifier.accuracy.half_credit_with_failed.value
                metrics[f"{verifier.role}_half_credit_failed_as_wrong"] = with_failed
        if verifier.failed_pairs:
            metrics[f"{verifier.role}_failed_pairs"] = float(verifier.failed_pairs)
        failures.update(verifier.failures)
    if data.verifier_gain.half_credit is not None:
        metrics["rl_gain"] = data.verifier_gain.half_credit.value
    if data.editor is not None:
        for name, parts in (("editor_before", data.editor.before), ("editor_after", data.editor.after)):
            if parts.score is not None:
                metrics[name] = parts.score.value
        metrics["editor_cases"] = float(data.editor.num_cases - data.editor.failed)
        failures.update(data.editor.failures)
    for table in data.benchmarks:
        failures.update(table.failures)
    return metrics | {f"failed: {cause}": float(number) for cause, number in failures.most_common()}


if __name__ == "__main__":
    main(body, "editr1.stages.evaluate")
