"""Reuse the finished stages of other runs in the same artifact store."""

from __future__ import annotations

from collections.abc import Sequence

from editr1.artifacts import ArtifactStore
from editr1.config.loader import ConfigError
from editr1.runs.next_step import startable
from editr1.runs.record import StageResult, load_complete_result, progress_key, result_key
from editr1.runs.resolve import resolve_stage
from editr1.runs.spec import RunSpec
from editr1.serving.identity import RewardIdentity, ask_identity


def reuse_results(spec: RunSpec, store: ArtifactStore, others: Sequence[str]) -> None:
    """For stages of ``spec`` without a result, copy the results of stages with the same name and key from the runs ``others``.

    Artifacts are not copied, because they are stored by digest and shared by all runs. Stages whose inputs cannot be
    resolved yet are skipped; their inputs are resolved before they start.
    """
    outputs: dict[str, dict[str, str]] = {}
    left_out: set[str] = set()
    while others and (ready := [s for s in startable(spec.spec.stages, outputs.keys()) if s.name not in left_out]):
        stage = ready[0]
        try:
            key = resolve_stage(stage, spec.spec.stages, spec.spec.seed, store, outputs, ask=_ask_once).key
        except ConfigError:
            left_out.add(stage.name)
            continue
        result = _reuse(store, spec.metadata.name, stage.name, key, others)
        if result is None:
            left_out.add(stage.name)
        else:
            outputs[stage.name] = result.outputs


def _ask_once(urls: Sequence[str], _seconds: float, *, where: str) -> RewardIdentity:
    """Request the identity of the model from reward servers, without waiting for servers that do not respond."""
    return ask_identity(urls, 0.0, where=where)


def _reuse(store: ArtifactStore, run: str, stage: str, key: str, others: Sequence[str]) -> StageResult | None:
    if own := load_complete_result(store, run, stage, key):
        return own
    for other in others:
        if found := load_complete_result(store, other, stage, key):
            for name in (
                progress_key,
                result_key,
            ):  # Write the result last, because its existence means that the stage is done.
                if (data := store.get_record(name(other, stage, key))) is not None:
                    store.put_record(name(run, stage, key), data)
            return found
    return None
