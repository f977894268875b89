"""The rule for partial results. `editr1 run`, the stage commands, `editr1 submit`, the operator and `editr1 reproduce` share it.

A result is partial if a model's server gave no usable answer for some items (:class:`editr1.runs.record.Missing`). Each new
invocation of a command starts such a stage at most once more, because the server may have been repaired. The stage then requests
only the missing items. Once the result is complete, or a person has accepted the partial result, the stage is not started again.
"""

from __future__ import annotations

from editr1.artifacts import ArtifactStore
from editr1.config.loader import ConfigError
from editr1.runs.record import (
    Missing,
    RunRecord,
    StageResult,
    State,
    load_complete_result,
    load_result,
    save_result,
)
from editr1.runs.stored import DamagedRecord


def result_to_reuse(store: ArtifactStore, run: str, stage: str, key: str) -> StageResult | None:
    """Return the result with which a new invocation skips a stage; None if it has to start the stage.

    An invocation calls this function once per stage, before its first attempt. A partial result that nobody has accepted is marked in
    the store, so that for every process the stage counts as not done until it commits its next result.
    """
    result = load_complete_result(store, run, stage, key)
    if result is None or not is_partial(result):
        return result
    save_result(store, run, stage, result.model_copy(update={"asked_again": True}))
    return None


def is_partial(result: StageResult) -> bool:
    """Return True if a new invocation has to start the stage again because of missing items."""
    return bool(result.missing) and not result.missing.accepted


def has_partial_result(store: ArtifactStore, record: RunRecord) -> bool:
    """Return True if a stage of a run has a partial result, so that a new invocation starts it again."""
    return any(
        result is not None and is_partial(result)
        for stage in record.stages.values()
        if stage.state is State.DONE
        for result in [load_complete_result(store, record.name, stage.name, stage.key)]
    )


def accept(store: ArtifactStore, record: RunRecord, stage: str) -> StageResult:
    """Accept the partial result of a stage, so that no invocation requests the missing items again, and return it.

    Raises:
        ConfigError: the run has no such stage, the stage has no result, or its result is complete.
    """
    known = record.stages.get(stage)
    if known is None:
        names = ", ".join(record.stages) or "none"
        raise ConfigError(f"run {record.name!r} has no stage {stage!r}; its stages: {names}")
    result = load_result(store, record.name, stage, known.key)
    if result is None:
        raise ConfigError(f"stage {stage!r} of run {record.name!r} has no result in {store.url}; run it first")
    if not result.missing:
        raise ConfigError(
            f"the result of stage {stage!r} of run {record.name!r} is complete; there is nothing to accept"
        )
    missing = result.missing.model_copy(update={"accepted": True})
    accepted = result.model_copy(update={"missing": missing, "asked_again": False})
    save_result(store, record.name, stage, accepted)
    return accepted


def count_invocations(store: ArtifactStore, run: str, stage: str, key: str, missing: Missing) -> Missing:
    """Return ``missing`` with the number of consecutive invocations of a stage that ended with the same causes."""
    if not missing:
        return missing
    try:
        previous = load_result(store, run, stage, key)
    except DamagedRecord:
        return missing
    return missing.after(previous.missing) if previous is not None else missing
