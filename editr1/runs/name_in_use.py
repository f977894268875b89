"""Reject a run whose settings or inputs differ from those recorded under its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from editr1.artifacts import ArtifactStore
from editr1.config.loader import ConfigError
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.record import RunRecord, StageRecord
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.resolve import AskIdentity, full_config, identity_at, resolve_reference
from editr1.runs.spec import RunBody, RunSpec, StageSpec, reward_addresses
from editr1.serving.identity import OPERATIONAL, RewardIdentity, ask_identity

MAX_LINES = 20
"""Maximum number of differences in an error message."""
PROCEED = (
    "to keep the record, choose another name with --name; to replace the record, repeat the command with --replace."
    " Either way, finished stages whose settings and inputs are unchanged are reused, and no artifact is changed"
)


class NameInUse(ConfigError):
    """The store has a record of another run under this name."""

    def __init__(self, run: str, differences: list[str], where: str, *, proceed: str = PROCEED) -> None:
        shown = differences[:MAX_LINES]
        if hidden := len(differences) - len(shown):
            shown.append(f"and {hidden} further differences")
        lines = [f"run {run}: {line}" for line in shown]
        head = f"run {run}: the record with this name in {where} has different settings or inputs (recorded -> now):"
        super().__init__("\n".join([head, *lines, f"run {run}: {proceed}"]))


def stated_settings(body: RunBody) -> dict[str, Any]:
    """Return all settings that affect the outputs of a run, by dotted name and with defaults filled in.

    They are stored in the run's record. Inputs from outside the run are not included, because the records of the
    stages contain their digests.
    """
    found: dict[str, Any] = {"seed": body.seed}
    for stage in body.stages:
        found |= _stated(stage, body.seed)
    return found


def stage_differences(known: StageRecord, now: StageRecord, seeds: tuple[int, int]) -> list[str]:
    """Return the differences between two records of a stage, one per line, as ``setting: recorded -> now``.

    ``seeds`` contains the seeds of the recorded run and of the new run.
    """
    before, after = (
        {"seed": seed, "kind": item.kind}
        | _flat("config", _scored(Kind(item.kind), item.config))
        | _flat("inputs", item.inputs)
        | _flat("reward", item.reward)
        for item, seed in zip((known, now), seeds, strict=True)
    )
    return [f"{known.name}.{line}" for line in _changed(before, after)]


def run_differences(
    record: RunRecord, spec: RunSpec, store: ArtifactStore, *, ask: AskIdentity | None = ask_identity
) -> list[str]:
    """Return the differences between a record and a run file, one per line, as ``setting: recorded -> now``.

    The result contains the differences found by :func:`setting_differences`. For stages with recorded inputs, it also
    contains differences in the digests of inputs from outside the run and in the model at the addresses in
    ``reward``. If ``ask`` is None, that model is not compared.

    Raises:
        ConfigError: an input of the run file does not exist.
        RewardUnreachable: see :func:`editr1.runs.resolve.resolve_stage`.
    """
    lines = setting_differences(record, spec.spec)
    stages = {stage.name: stage for stage in spec.spec.stages}
    for name, known in record.stages.items():
        if name in stages and known.key:
            lines += [f"{name}.{line}" for line in _external(known, stages[name], spec.spec.seed, store, ask)]
    return lines


def setting_differences(record: RunRecord, body: RunBody) -> list[str]:
    """Return the differences between the settings in a record and in a run file, one per line, as ``setting: recorded -> now``.

    A stage that is not recorded yet does not count as a difference. A recorded stage that is missing from the run
    file does.
    """
    stages = {stage.name for stage in body.stages}
    before, after = record.stated or _stated_before(record), stated_settings(body)
    removed = sorted({name.split(".")[0] for name in before if "." in name} - stages)
    lines = [f"{name}: recorded -> not in the run file" for name in removed]
    recorded = {name.split(".")[0] for name in before}
    after = {name: value for name, value in after.items() if name.split(".")[0] in recorded}
    if not record.stated:  # Earlier versions did not record these fields.
        after = {name: value for name, value in after.items() if ".inputs." not in name}
    before = {name: value for name, value in before.items() if name.split(".")[0] not in removed}
    return lines + _changed(before, after)


def _external(
    known: StageRecord, stage: StageSpec, seed: int, store: ArtifactStore, ask: AskIdentity | None
) -> Iterator[str]:
    """Yield the differences in a stage's inputs from outside the run, and in its reward model."""
    for name, text in stage.inputs.items():
        reference, recorded = parse_reference(text), known.inputs.get(name)
        if reference.scheme is Scheme.STAGE or recorded is None:
            continue
        where = f"stage {stage.name}, input {name}"
        if (found := resolve_reference(reference, store, {}, where, upload=False)) != recorded:
            yield f"inputs.{name}: {recorded} -> {found}"
    for name in known.inputs.keys() - stage.inputs.keys():
        yield f"inputs.{name}: {known.inputs[name]} -> not set"
    urls = reward_addresses(stage.reward)
    if urls and known.reward and ask is not None:
        config = full_config(stage.kind, stage.config, seed)
        now = identity_at(urls, stage.reward_digest, config, f"stage {stage.name}, reward", ask)
        yield from (f"reward.{line}" for line in RewardIdentity.model_validate(known.reward).differences(now))


def _stated(stage: StageSpec, seed: int) -> dict[str, Any]:
    inside = {name: text for name, text in stage.inputs.items() if parse_reference(text).scheme is Scheme.STAGE}
    found = {"kind": str(stage.kind)} | _flat("inputs", inside)
    found |= _flat("config", _scored(stage.kind, full_config(stage.kind, stage.config, seed)))
    return {f"{stage.name}.{name}": value for name, value in found.items()}


def _stated_before(record: RunRecord) -> dict[str, Any]:
    """Return the settings in a record written by an earlier version, which contains no references to inputs."""
    found: dict[str, Any] = {"seed": record.seed}
    for stage in record.stages.values():
        if stage.key:
            known = {"kind": stage.kind} | _flat("config", _scored(Kind(stage.kind), stage.config))
            found |= {f"{stage.name}.{name}": value for name, value in known.items()}
    return found


def _scored(kind: Kind, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a stage without the settings of a service that do not affect its scores, such as the port."""
    ignored = OPERATIONAL if KINDS[kind].service else frozenset[str]()
    return {name: value for name, value in config.items() if name not in ignored}


def _flat(head: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {head: value}
    return {name: item for key, part in value.items() for name, item in _flat(f"{head}.{key}", part).items()}


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = [*before, *(name for name in after if name not in before)]
    return [
        f"{name}: {_shown(before, name)} -> {_shown(after, name)}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _shown(values: Mapping[str, Any], name: str) -> str:
    return str(values[name]) if name in values else "not set"
