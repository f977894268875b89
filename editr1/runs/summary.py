"""The summary at the top of a report: what was trained, how good it is, how certain the results are, and what the run cost."""

from __future__ import annotations

from collections.abc import Mapping

from editr1.evaluation.metrics import Estimate
from editr1.evaluation.report import formats
from editr1.evaluation.report.formats import number
from editr1.evaluation.report.headlines import OTHER_SEEDS, SEEDS, ceiling, find_verifier
from editr1.evaluation.report.model import ReportData, SummaryLine
from editr1.runs.kinds import Kind
from editr1.runs.record import RunRecord, StageRecord


def summary(record: RunRecord, data: ReportData) -> tuple[SummaryLine, ...]:
    """Return answers to the first questions that a reader has about a run.

    Questions without an answer are omitted.
    """
    lines = {
        "What was trained": _trained(record, {node.digest: node.label for node in data.nodes if node.kind}),
        "How good it is": _quality(data),
        "How certain the results are": _certainty(data),
        "What the run cost": _cost(record, data),
        "What is missing": " ".join(
            f"{s.missing.sentence(s.name, record.name)}." for s in record.stages.values() if s.missing
        ),
    }
    return tuple(SummaryLine(title=title, text=text) for title, text in lines.items() if text)


def _trained(record: RunRecord, labels: Mapping[str, str]) -> str:
    sentences = []
    for stage in record.stages.values():
        if stage.kind == Kind.SFT:
            rows = _made(record, stage.inputs.get("rows"), "rows")
            steps = _count(stage, "steps")
            sentences.append(
                f"Stage {stage.name}: a verifier, {_from(stage, 'model', labels)}, by SFT{rows}{_over(steps, 'steps')}."
            )
        elif stage.kind == Kind.GCPO:
            pairs = _count(stage, "pairs")
            on = f" on {pairs} preference pairs" if pairs else ""
            steps = _over(_count(stage, "steps"), "steps")
            sentences.append(f"Stage {stage.name}: the verifier, {_from(stage, 'model', labels)}, by GCPO{on}{steps}.")
        elif stage.kind == Kind.GRPO:
            iterations = _over(_count(stage, "iterations"), "iterations")
            per = stage.config.get("cases_per_iteration"), stage.config.get("group_size")
            samples = f" of {per[0]} cases with {per[1]} edits each" if None not in per else ""
            sentences.append(
                f"Stage {stage.name}: an image editor, {_from(stage, 'editor', labels)}, by GRPO{iterations}{samples},"
                f" with the scores of {_reward(stage, labels)} as reward."
            )
    return " ".join(sentences)


def _from(stage: StageRecord, name: str, labels: Mapping[str, str]) -> str:
    reference = stage.inputs.get(name, "")
    label = reference.removeprefix("hub:") if reference.startswith("hub:") else labels.get(reference, "")
    return f"starting from {label or formats.short(reference)}"


def _reward(stage: StageRecord, labels: Mapping[str, str]) -> str:
    digest = stage.reward.get("model", "")
    return labels.get(digest) or (formats.short(digest) if digest else "a verifier")


def _made(record: RunRecord, digest: str | None, name: str) -> str:
    """Return " on <n> rows" if a stage of the run created the table with this digest and counted its rows."""
    for stage in record.stages.values():
        if digest and stage.outputs.get(name) == digest and name in stage.metrics:
            return f" on {number(int(stage.metrics[name]))} {name}"
    return ""


def _count(stage: StageRecord, name: str) -> str:
    return number(int(stage.metrics[name])) if name in stage.metrics else ""


def _over(count: str, unit: str) -> str:
    return f" in {count} {unit}" if count else ""


def _quality(data: ReportData) -> str:
    found = []
    sft, rl = find_verifier(data, "sft"), find_verifier(data, "rl")
    measured = [(v.name, v.accuracy.half_credit) for v in (sft, rl) if v is not None and v.accuracy is not None]
    if measured:
        words = " and ".join(f"the {name} ranks {_percent(value)}" for name, value in measured)
        limit = ceiling(data)
        ends = "50 % is chance" + (f", {number(limit, 0)} % a perfect verifier" if limit is not None else "")
        found.append(
            f"Of {number(measured[0][1].n)} held-out pairs, {words} in agreement with the preferences (a tie counts half; {ends})."
        )
    editor = data.editor
    if editor is not None and editor.before.score is not None and editor.after.score is not None:
        kind = "true" if editor.scored_by == "truth" else "verifier's"
        nothing = (
            ""
            if editor.unchanged is None
            else f"; an editor that returns the source image unchanged gets {_score(editor.unchanged)}"
        )
        found.append(
            f"The mean {kind} score of {number(editor.after.score.n)} held-out edits changes from"
            f" {_score(editor.before.score)} to {_score(editor.after.score)} of 10{nothing}."
        )
    return " ".join(found)


def _certainty(data: ReportData) -> str:
    found, gain = [], data.verifier_gain.half_credit
    editor = data.editor.gain.score if data.editor is not None else None
    if gain is not None:
        span = formats.interval(gain, scale=100, signed=True)
        found.append(f"GCPO changes the accuracy by {span} points (95 % interval, {formats.count(gain)}).")
    if editor is not None:
        span = formats.interval(editor, digits=2, signed=True)
        found.append(f"RL changes the editor's score by {span} ({formats.count(editor)}).")
    if found:
        found.append(
            "The intervals describe the variation over held-out items for one training run. "
            f"{SEEDS if data.truth == 'shapes' else OTHER_SEEDS}"
        )
    return " ".join(found)


def _cost(record: RunRecord, data: ReportData) -> str:
    timed = [stage for stage in data.stages if stage.seconds is not None and stage.kind != Kind.SERVE]
    total = sum(stage.seconds or 0.0 for stage in timed)
    if not total:
        return ""
    ordered = sorted(timed, key=lambda stage: -(stage.seconds or 0.0))
    parts = ", ".join(
        f"{stage.name} {formats.seconds(stage.seconds)} ({100 * (stage.seconds or 0.0) / total:.0f} %)"
        for stage in ordered
    )
    machine = f" on {data.run.machine}" if data.run.machine else ""
    found = [f"{formats.seconds(total)} in stages{machine}: {parts}."]
    for stage in record.stages.values():
        if stage.kind == Kind.CURATE and "requests" in stage.metrics:
            tokens = int(stage.metrics.get("prompt_tokens", 0) + stage.metrics.get("completion_tokens", 0))
            simulated = stage.config.get("labeller", "endpoint") != "endpoint"
            about = " (estimated from the length of the texts of simulated models)" if simulated else ""
            cost = stage.metrics.get("cost", 0.0)
            price = f", at a cost of {number(cost, 2)} at the configured prices" if cost else ""
            found.append(
                f"Stage {stage.name} sent {number(int(stage.metrics['requests']))} requests with"
                f" {number(tokens)} tokens{about}{price}."
            )
    return " ".join(found)


def _percent(value: Estimate) -> str:
    return f"{formats.estimate(value, scale=100)} %"


def _score(value: Estimate) -> str:
    return formats.estimate(value, digits=2)
