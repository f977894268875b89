"""Names of charts, releases and services, and the chart values of a stage in the cluster settings. All functions are pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from editr1.config.chart import StageValues
from editr1.config.chart_reward import RewardValues
from editr1.config.chart_training import CurateValues, EvaluateValues, GcpoValues, GrpoValues, SftValues
from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError, nearest, validate
from editr1.config.merge import deep_merge
from editr1.config.names import MAX_NAME_LENGTH, name_fault
from editr1.runs.kinds import KINDS, Kind

MODELS: dict[Kind, type[StageValues]] = {
    Kind.CURATE: CurateValues,
    Kind.SFT: SftValues,
    Kind.GCPO: GcpoValues,
    Kind.SERVE: RewardValues,
    Kind.GRPO: GrpoValues,
    Kind.EVALUATE: EvaluateValues,
}
SERVICE_PORT = 8000


def chart_of(kind: Kind) -> str:
    """Return the name of the chart that runs stages of a kind."""
    return "reward" if kind is Kind.SERVE else str(kind)


def kind_of(chart: str) -> Kind:
    """Return the kind of the stages that a chart runs. ``chart`` may also be the name of a kind.

    Raises:
        ConfigError: there is no such chart or kind.
    """
    if chart == "reward":
        return Kind.SERVE
    try:
        return Kind(chart)
    except ValueError:
        known = ", ".join(chart_of(kind) for kind in Kind)
        raise ConfigError(f"{chart!r} is neither a chart nor a kind of stage; choose one of: {known}") from None


def release_name(run: str, stage: str) -> str:
    """Return the name of the release that runs a stage of a run. Raises ConfigError if the name is too long."""
    name = f"{run}-{stage}"
    if len(name) > MAX_NAME_LENGTH:
        raise ConfigError(
            f"run {run!r}, stage {stage!r}: the release name {name!r} has {len(name)} characters; "
            f"at most {MAX_NAME_LENGTH} are allowed on a cluster; shorten the name of the run or of the stage"
        )
    return name


def service_url(release: str, namespace: str) -> str:
    """Return the address at which pods can reach the reward service of a release."""
    return f"http://{release}.{namespace}.svc:{SERVICE_PORT}"


def shared_values(cluster: ClusterConfig, kind: Kind, stage: str) -> dict[str, Any]:
    """Return the chart values that the cluster settings contain for a stage.

    Values for the stage's name override values for its kind, which override values for all stages.
    """
    image = {"image": {"repository": f"{cluster.registry}/{chart_of(kind)}"}}
    merged = deep_merge(image, cluster.values)
    for name in dict.fromkeys((str(kind), chart_of(kind), stage)):
        merged = deep_merge(merged, cluster.stages.get(name, {}))
    return merged


def checked(kind: Kind, values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return ``values`` unchanged if they are valid values of the chart. Otherwise raise ConfigError."""
    validate(MODELS[kind], values, where=where)
    check_inputs(kind, values, where)
    return dict(values)


def check_inputs(kind: Kind, values: Mapping[str, Any], where: str) -> None:
    """Raise ConfigError if ``values`` contain an input that stages of the kind do not have, with one line per unknown input."""
    known = [item.name for item in KINDS[kind].inputs]
    if unknown := [name for name in values.get("inputs", {}) if name not in known]:
        raise ConfigError(
            "\n".join(f"{where}: inputs.{name}: unknown input; {nearest(name, known)}" for name in unknown)
        )


def check_release(name: str) -> None:
    """Raise ConfigError if ``name`` cannot be the name of a release and of its Kubernetes objects."""
    if fault := name_fault(name):
        raise ConfigError(f"--name {name!r}: {fault}")


def check_release_names(run: str, stages: Iterable[str], where: str) -> None:
    """Raise ConfigError, with one line per stage, if the release name of a stage would be too long.

    ``where`` is the source of the names, for the message.
    """
    faults = []
    for stage in stages:
        try:
            release_name(run, stage)
        except ConfigError as error:
            faults.append(f"{where}: {error}")
    if faults:
        raise ConfigError("\n".join(faults))
