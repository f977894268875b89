"""Schema and validation of run files (``apiVersion: editr1.dev/v1alpha1, kind: EditRun``).

A run file is also the custom resource of the Kubernetes operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, runtime_checkable
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field

from editr1.config.assign import assign, scalar, split_override, without
from editr1.config.base import Settings
from editr1.config.loader import ConfigError, Sources, load_settings, merge_settings, validate
from editr1.config.names import Name
from editr1.parallel.heartbeat import TIMEOUT_SECONDS
from editr1.runs.kinds import KINDS, SHIPPED, Kind
from editr1.runs.references import Scheme, parse_reference
from editr1.serving.identity import DIGEST_PATTERN

API_VERSION = "editr1.dev/v1alpha1"


@runtime_checkable
class DividesAmongProcesses(Protocol):
    """Settings of a training stage whose batches are divided among processes."""

    def check_processes(self, processes: int) -> None:
        """Raise ConfigError if a batch cannot be divided evenly among ``processes``."""


class StageSpec(Settings):
    """One stage of a run."""

    name: Name
    """Name of the stage, unique in the run. Other stages refer to its outputs as ``stage:<name>/<output>``."""
    kind: Kind
    """Kind of stage: curate, sft, gcpo, serve, grpo or evaluate."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Inputs by name, each a reference that begins with stage:, run:, sha256:, builtin:, hub: or path:."""
    reward: str | None = None
    """Service that scores this stage's samples (grpo only): name of an earlier serve stage, or http(s) addresses separated by commas."""
    reward_digest: Annotated[str | None, Field(pattern=DIGEST_PATTERN)] = None
    """Digest of the model at the addresses in ``reward``: sha256:<64 hex digits> or hub:<name>@<commit>. It is
    required for servers that do not report the digest of their model. If it is set, the digest is not requested from the
    servers."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Settings of the stage; `editr1 config schema <kind>` lists them."""
    processes: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of processes per node, one per GPU (torchrun's nproc_per_node)."""
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """Maximum number of retries after retryable exit codes (128 or above)."""
    heartbeat_timeout_seconds: Annotated[float, Field(ge=10)] = TIMEOUT_SECONDS
    """Time in seconds after which a process of the stage that is stopped or hangs is killed, and the stage is tried again."""
    deadline_seconds: Annotated[float | None, Field(gt=0)] = None
    """Time limit for all attempts of the stage together, in seconds; unset: no limit."""
    pending_timeout_seconds: Annotated[float, Field(gt=0)] = 21600.0
    """Maximum time in seconds that an attempt may wait for nodes and container images on a cluster. Time in a
    queue does not count."""


class RunBody(Settings):
    """The ``spec`` section of a run file."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Random seed for the whole run."""
    store: str | None = None
    """Artifact store: file:///path or s3://bucket/prefix. Default: the folder ``store`` in the run's folder."""
    suspend: bool = False
    """On a cluster: true pauses the run, which commits a checkpoint and releases the nodes; false resumes it."""
    stages: Annotated[list[StageSpec], Field(min_length=1, max_length=32)]
    """The stages. A stage runs as soon as its inputs are complete."""


class Metadata(Settings):
    """Name and labels, as in Kubernetes objects."""

    name: Name
    """Name of the run, of its folder and of its objects on a cluster."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the run's Kubernetes object, for your own use."""


class RunSpec(Settings):
    """A complete run file."""

    model_config = ConfigDict(populate_by_name=True)

    api_version: Annotated[Literal["editr1.dev/v1alpha1"], Field(alias="apiVersion")]
    """Version of the format: editr1.dev/v1alpha1."""
    kind: Literal["EditRun"]
    """Kind of the object: EditRun."""
    metadata: Metadata
    """Name and labels."""
    spec: RunBody
    """The run: its seed, store and stages."""


def load_run(file: Path, overrides: Sequence[str] = (), env: Mapping[str, str] | None = None) -> RunSpec:
    """Read and validate a run file: fields, stage names, references and the settings of every stage.

    An override such as ``sft.epochs=1`` sets the config of stage ``sft``; ``spec.seed=3``, ``spec.stages.sft.retries=5`` and
    ``metadata.name=x`` set the run's own fields. A variable ``EDITR1_<KIND>__A__B`` in ``env`` sets ``a.b`` in the config of
    every stage of this kind. A later source overrides an earlier one: file, ``env``, ``overrides``.

    Raises:
        ConfigError: the file is invalid; the message has one line per error.
    """
    own = [item for item in overrides if item.startswith(("spec.", "metadata."))]
    data, sources = merge_settings(file=file, env=env, env_prefix="EDITR1_RUN__", overrides=own)
    spec = validate(RunSpec, data, where=str(file), sources=sources)
    spec = _with_environment(spec, env or {}, file)
    for item in (item for item in overrides if item not in own):
        spec, found, source = _override_stage(spec, item)
        sources = {**without(sources, found), found: source}
    check_run(spec, str(file), sources)
    return spec


def check_run(spec: RunSpec, where: str, sources: Sources = MappingProxyType({})) -> None:
    """Raise ConfigError if ``spec`` is invalid, with one line per error.

    ``sources`` maps the path of a value in the run file to what set it; see :func:`editr1.config.loader.validate`.
    """
    faults: list[str] = []
    seen: dict[str, StageSpec] = {}
    for index, stage in enumerate(spec.spec.stages):
        head = f"{where}: spec.stages.{stage.name}"
        section = ("spec", "stages", str(index), "config")
        of_stage = {path[len(section) :]: source for path, source in sources.items() if path[: len(section)] == section}
        if stage.name in seen:
            faults.append(f"{head}: the name is already used by an earlier stage; stage names must be unique")
        faults += _input_faults(stage, seen, head)
        faults += _reward_faults(stage, seen, head)
        try:
            settings = validate(
                KINDS[stage.kind].settings_model(), stage.config, where=f"{head}.config", sources=of_stage
            )
        except ConfigError as error:
            faults.append(str(error))
        else:
            faults += _layout_faults(settings, stage.processes, f"{head}.config")
        seen[stage.name] = stage
    if faults:
        raise ConfigError("\n".join(faults))


def reward_addresses(reward: str | None) -> list[str]:
    """Return the addresses in a stage's ``reward``; empty if it is the name of a stage or unset."""
    parts = [part.strip().rstrip("/") for part in (reward or "").split(",")]
    return parts if all(part.startswith(("http://", "https://")) for part in parts) else []


def is_address(text: str) -> bool:
    """Return True if ``text`` is the http(s) address of a server."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _input_faults(stage: StageSpec, earlier: Mapping[str, StageSpec], head: str) -> list[str]:
    info = KINDS[stage.kind]
    faults = [
        f"{head}.inputs.{item.name}: missing ({item.what})"
        for item in info.inputs
        if item.required and item.name not in stage.inputs
    ]
    faults += [f"{head}.inputs: {fault}" for fault in info.rule(stage.inputs.keys())]
    for name, text in stage.inputs.items():
        declared = info.input(name)
        if declared is None:
            known = ", ".join(item.name for item in info.inputs)
            faults.append(f"{head}.inputs.{name}: unknown input; a {stage.kind} stage reads: {known}")
            continue
        try:
            reference = parse_reference(text, f"{head}.inputs.{name}")
        except ConfigError as error:
            faults.append(str(error))
            continue
        if reference.scheme is Scheme.HUB and not declared.hub:
            faults.append(
                f"{head}.inputs.{name}: {declared.what} cannot come from the hub; use another kind of reference"
            )
        if reference.scheme is Scheme.BUILTIN and (fault := declared.fault(SHIPPED[reference.target])):
            faults.append(f"{head}.inputs.{name}: {text} {fault}")
        if reference.scheme is Scheme.STAGE:
            source = earlier.get(reference.stage)
            if source is None:
                faults.append(
                    f"{head}.inputs.{name}: no earlier stage is named {reference.stage!r}; refer to a stage above this one"
                )
            elif reference.output not in KINDS[source.kind].outputs:
                outputs = ", ".join(KINDS[source.kind].outputs) or "none"
                faults.append(
                    f"{head}.inputs.{name}: {reference.stage} has no output {reference.output!r}; its outputs: {outputs}"
                )
            elif fault := declared.fault(KINDS[source.kind].outputs[reference.output]):
                faults.append(f"{head}.inputs.{name}: {text} {fault}")
    return faults


def _reward_faults(stage: StageSpec, earlier: Mapping[str, StageSpec], head: str) -> list[str]:
    if stage.reward_digest is not None and not reward_addresses(stage.reward):
        return [f"{head}.reward_digest: only applies to addresses in the field reward; remove reward_digest"]
    if KINDS[stage.kind].needs_service:
        if addresses := reward_addresses(stage.reward):
            return [
                f"{head}.reward: {address!r} is not a valid http(s) address; write http://host:port"
                for address in addresses
                if not is_address(address)
            ]
        service = earlier.get(stage.reward or "")
        if service is None or service.kind is not Kind.SERVE:
            return [f"{head}.reward: must name an earlier serve stage or http(s) addresses (got {stage.reward!r})"]
    elif stage.reward is not None:
        return [f"{head}.reward: a {stage.kind} stage does not use a reward service; remove this field"]
    return []


def _layout_faults(settings: Settings, processes: int, head: str) -> list[str]:
    """Return an error message if a batch in the settings cannot be divided evenly among the processes of a node."""
    if isinstance(settings, DividesAmongProcesses):
        try:
            settings.check_processes(processes)
        except ConfigError as error:
            return [f"{head}: {error}"]
    return []


def _with_environment(spec: RunSpec, env: Mapping[str, str], file: Path) -> RunSpec:
    """Return ``spec`` with the settings in ``env`` for the kinds of its stages.

    Raises ConfigError, with the name of the variable, if a setting is invalid.
    """
    stages = []
    for stage in spec.spec.stages:
        prefix = f"EDITR1_{stage.kind.upper()}__"
        if any(name.startswith(prefix) for name in env):
            config = load_settings(
                KINDS[stage.kind].settings_model(),
                values=stage.config,
                env=env,
                env_prefix=prefix,
                where=f"{file}: spec.stages.{stage.name}.config",
            ).model_dump(mode="json", exclude_unset=True)
            stage = stage.model_copy(update={"config": config})
        stages.append(stage)
    return spec.model_copy(update={"spec": spec.spec.model_copy(update={"stages": stages})})


def _override_stage(spec: RunSpec, item: str) -> tuple[RunSpec, tuple[str, ...], str]:
    """Apply an override ``<stage>.a.b=value``. Return the changed run, the path of the value in it, and the source for messages."""
    path, text = split_override(item)
    name, rest = path[0], path[1:]
    index = next((i for i, stage in enumerate(spec.spec.stages) if stage.name == name), None)
    names = ", ".join(stage.name for stage in spec.spec.stages)
    if not rest and (name in ("spec", "metadata") or index is not None):
        example = {"spec": "spec.seed=1", "metadata": "metadata.name=my-run"}.get(name, f"{name}.SETTING=VALUE")
        raise ConfigError(
            f"--set {item!r}: the section {name} cannot be replaced as a whole; set single values, such as {example}"
        )
    if name in ("apiVersion", "kind"):
        raise ConfigError(f"--set {item!r}: {name} can only be set in the run file; edit it there")
    if index is None:
        raise ConfigError(
            f"--set {item!r}: {name!r} is no part of the run; begin with 'spec.', 'metadata.' or a stage and a dot ({names})"
        )
    stage = spec.spec.stages[index]
    if rest[0] in StageSpec.model_fields and rest[0] not in KINDS[stage.kind].settings_model().model_fields:
        raise ConfigError(
            f"--set {item!r}: {rest[0]!r} is a field of the stage, not of its config; use --set spec.stages.{item}"
        )
    source = f"--set {'.'.join(path)}"
    data = {name: stage.config}
    found = assign(data, path, scalar(text, source), source)
    stages = list(spec.spec.stages)
    stages[index] = stage.model_copy(update={"config": data[name]})
    changed = spec.model_copy(update={"spec": spec.spec.model_copy(update={"stages": stages})})
    return changed, ("spec", "stages", str(index), "config", *found[1:]), source
