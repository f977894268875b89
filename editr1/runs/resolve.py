"""Resolve the references of a stage to digests, and compute the stage's key.

The key is a digest of everything that determines the outputs of a stage. A stage whose key already has a result does
not run again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from editr1.artifacts import ArtifactStore
from editr1.artifacts.weights import UnusableModel, check_model_folder
from editr1.config.loader import ConfigError, validate
from editr1.errors import ExitCode
from editr1.runs.job import StageJob
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.next_step import service_of, startable
from editr1.runs.partial import is_partial
from editr1.runs.record import RunRecord, State, load_complete_result, newest_result
from editr1.runs.references import Reference, Scheme, parse_reference
from editr1.runs.spec import RunSpec, StageSpec, reward_addresses
from editr1.serving.identity import RewardIdentity, ask_identity, reward_identity

AskIdentity = Callable[..., RewardIdentity]
"""Type of :func:`editr1.serving.identity.ask_identity`."""
log = logging.getLogger("editr1.runs")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubUnreachable(ConfigError):
    """The Hugging Face hub did not respond. A later request may succeed."""

    exit_code = ExitCode.TRANSIENT


def resolve_reference(
    reference: Reference,
    store: ArtifactStore,
    outputs: Mapping[str, Mapping[str, str]],
    where: str,
    *,
    upload: bool = True,
) -> str:
    """Resolve a reference to ``sha256:<digest>`` or ``hub:<name>@<commit>``.

    A folder (``path:``) and a shipped checkpoint (``builtin:``) are committed to the artifact store, so that the store
    contains everything that the run reads. Without ``upload``, only their digests are computed.

    Args:
        reference: the reference.
        store: the run's artifact store.
        outputs: output digests of the run's finished stages, by stage name and output name, for ``stage:`` references.
        where: name of the setting, for error messages.
        upload: whether data may be committed to the store.

    Raises:
        ConfigError: the target does not exist.
        UnusableModel: a file of the folder is pickled, or its weights are incomplete.
        HubUnreachable: the hub did not respond.
    """
    if reference.scheme is Scheme.STAGE:
        return outputs[reference.stage][reference.output]
    if reference.scheme is Scheme.ARTIFACT:
        return store.manifest(str(reference)).digest
    if reference.scheme is Scheme.RUN:
        run, stage, output = reference.target.split("/")
        result = newest_result(store, run, stage)
        if result is None:
            raise ConfigError(
                f"{where}: stage {stage!r} of run {run!r} has no result in {store.url}; run that stage first"
            )
        if output not in result.outputs:
            known = ", ".join(result.outputs) or "none"
            raise ConfigError(f"{where}: stage {stage!r} of run {run!r} has no output {output!r}; its outputs: {known}")
        if is_partial(result):
            log.warning("%s: the input is a partial result: %s", where, result.missing.sentence(stage, run))
        return result.outputs[output]
    if reference.scheme is Scheme.HUB:
        return f"hub:{_commit_of(reference.target, where)}"
    if reference.scheme is Scheme.BUILTIN:
        shipped = resources.files("editr1.shapes") / "assets" / reference.target.removeprefix("shapes-")
        with resources.as_file(shipped) as folder:
            return _commit(store, folder, reference.target, upload)
    folder = Path(reference.target)
    if not folder.is_dir():
        raise ConfigError(f"{where}: {reference.target!r} is not a folder; give the path of an existing folder")
    return _commit(store, folder, "import", upload)


def stage_key(
    kind: Kind, config: Mapping[str, Any], inputs: Mapping[str, str], seed: int, reward: RewardIdentity | None = None
) -> str:
    """Return the key of a stage: 64 hexadecimal digits."""
    served: object = reward.model_dump(mode="json") if reward else ""
    canonical = json.dumps(
        {"kind": kind, "config": config, "inputs": dict(inputs), "seed": seed, "reward": served}, sort_keys=True
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def full_config(kind: Kind, config: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return ``config`` with all defaults, as JSON values. An unset ``seed`` becomes the seed of the run.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    model = KINDS[kind].settings_model()
    values = dict(config)
    if "seed" in model.model_fields:
        values.setdefault("seed", seed)
    return validate(model, values, where=f"{kind} config").model_dump(mode="json")


def resolve_job(
    job: StageJob, store: ArtifactStore, *, upload: bool = True, ask: AskIdentity = ask_identity
) -> StageJob:
    """Complete the job of a chart that was installed by hand: resolve its inputs, fill in defaults in its config, and compute its key.

    A job that already has a key is returned unchanged. For ``upload``, see :func:`resolve_reference`. If the job does not
    contain the identity of its reward model, ``ask`` requests it from the reward servers and waits for them as
    :func:`resolve_stage` does.
    """
    if job.key:
        return job
    config = full_config(job.kind, job.config, job.seed)
    inputs = {
        name: resolve_reference(parse_reference(text), store, {}, f"inputs.{name}", upload=upload)
        for name, text in sorted(job.inputs.items())
    }
    reward = job.reward
    if reward is None and KINDS[job.kind].needs_service:
        reward = identity_at(job.reward_urls, job.reward_digest, config, f"stage {job.stage}, reward", ask)
    key = stage_key(job.kind, config, inputs, job.seed, reward)
    digest = reward.model if reward else job.reward_digest
    resolved = {"config": config, "inputs": inputs, "key": key, "reward": reward, "reward_digest": digest}
    return job.model_copy(update=resolved)


def check_key(job: StageJob) -> None:
    """Raise ConfigError if a job has a key that was not computed from its settings, inputs, seed and reward model.

    Services are not checked. They have no outputs, and their releases can be upgraded.
    """
    if not job.key or KINDS[job.kind].service:
        return
    complete = full_config(job.kind, job.config, job.seed)
    if job.key != stage_key(job.kind, _only_given(complete, job.config), job.inputs, job.seed, job.reward):
        raise ConfigError(
            f"job of stage {job.stage}, run {job.run}: the key {job.key[:12]} does not belong to the settings, inputs and seed of the job, "
            "so the stage does not start. Probably the release was upgraded with other values: uninstall it and install another one. "
            "To install a chart by hand, leave the value key empty"
        )


def _only_given(complete: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of ``complete`` that ``given`` contains. A newer version may have settings that the job does not contain."""
    return {
        name: _only_given(value, given[name]) if isinstance(value, dict) and isinstance(given[name], dict) else value
        for name, value in complete.items()
        if name in given
    }


@dataclass(frozen=True)
class ResolvedStage:
    """The complete settings, the input digests and the key of a stage, and the identity of the reward model that it uses."""

    config: dict[str, Any]
    inputs: dict[str, str]
    key: str
    reward: RewardIdentity | None = None


def resolve_stage(
    stage: StageSpec,
    stages: Sequence[StageSpec],
    seed: int,
    store: ArtifactStore,
    outputs: Mapping[str, Mapping[str, str]],
    *,
    ask: AskIdentity = ask_identity,
) -> ResolvedStage:
    """Resolve the inputs of a stage, complete its config and compute its key.

    The key of a stage with a reward service depends on the identity of the reward model, not on its address.

    Args:
        stage: the stage in the run file.
        stages: all stages of the run file.
        seed: seed of the run.
        store: artifact store of the run.
        outputs: output digests of the finished stages, by stage name and output name.
        ask: function that requests the identity of the model from the servers at ``stage.reward``. It may wait for
            the servers for up to ``reward_ready_timeout_seconds``, a setting of the stage.

    Raises:
        ConfigError: a setting or reference is invalid, or a reward server does not report a digest and
            ``reward_digest`` is not set.
        RewardUnreachable: no reward server responded.
    """
    config = full_config(stage.kind, stage.config, seed)
    inputs = {
        name: resolve_reference(parse_reference(text), store, outputs, f"stage {stage.name}, input {name}")
        for name, text in sorted(stage.inputs.items())
    }
    reward = None
    if service := service_of(stage, stages):
        served = resolve_stage(service, stages, seed, store, outputs)
        reward = reward_identity(served.inputs["model"], served.config)
    elif urls := reward_addresses(stage.reward):
        reward = identity_at(urls, stage.reward_digest, config, f"stage {stage.name}, reward", ask)
    return ResolvedStage(config, inputs, stage_key(stage.kind, config, inputs, seed, reward), reward)


def identity_at(
    urls: Sequence[str], digest: str | None, config: Mapping[str, Any], where: str, ask: AskIdentity
) -> RewardIdentity:
    """Return the identity of the model at ``urls``.

    If the digest of the model is given, no request is sent to the servers.
    """
    if digest is not None:
        return RewardIdentity(model=digest)
    return ask(urls, config["reward_ready_timeout_seconds"], where=where)


def is_complete(spec: RunSpec, record: RunRecord, store: ArtifactStore) -> bool:
    """Return True if every stage of ``spec`` is done in ``record`` and has a result for its current key.

    A partial result that nobody has accepted does not count (:mod:`editr1.runs.partial`).
    """
    outputs: dict[str, dict[str, str]] = {}
    while ready := startable(spec.spec.stages, outputs.keys()):
        stage, known = ready[0], record.stages.get(ready[0].name)
        if known is None or known.state is not State.DONE:
            return False
        try:
            resolved = resolve_stage(stage, spec.spec.stages, spec.spec.seed, store, outputs)
        except (ConfigError, UnusableModel):  # An input no longer exists or is damaged.
            return False
        result = load_complete_result(store, spec.metadata.name, stage.name, resolved.key)
        if result is None or is_partial(result) or known.key != resolved.key:
            return False
        outputs[stage.name] = result.outputs
    return True


def _commit(store: ArtifactStore, folder: Path, stage: str, upload: bool) -> str:
    check_model_folder(folder)
    commit = store.commit if upload else store.describe
    return commit(folder, kind="import", stage=stage).digest


def _commit_of(target: str, where: str) -> str:
    name, _, revision = target.partition("@")
    if _COMMIT.fullmatch(revision):
        return target
    pin = f"use a commit (hub:{name}@<40 hex digits>) or a folder (path:<folder>)"
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise ConfigError(
            f"{where}: huggingface_hub is not installed, so the revision cannot be looked up; {pin}"
        ) from None
    try:
        return f"{name}@{HfApi().model_info(name, revision=revision or None).sha}"
    except RevisionNotFoundError:
        raise ConfigError(
            f"{where}: model {name!r} has no revision {revision!r} on the hub; check the revision"
        ) from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"{where}: the hub has no model {name!r}, or you have no access to it; check its name and HF_TOKEN"
        ) from None
    except HfHubHTTPError as error:
        if error.response.status_code < 500 and error.response.status_code != 429:
            raise ConfigError(f"{where}: the hub rejected the request for the revision of {name!r}: {error}") from None
        raise HubUnreachable(
            f"{where}: the hub responded with status {error.response.status_code} for model {name!r}; {pin}"
        ) from None
    except Exception as error:
        if commit := _cached(name, revision):
            return f"{name}@{commit}"
        why = f"the revision of {name!r} could not be looked up on the hub ({type(error).__name__})"
        raise HubUnreachable(f"{where}: {why}; {pin}") from None


def _cached(name: str, revision: str) -> str | None:
    """Return the commit to which a named revision refers in this machine's hub cache; None if it is not cached."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if not revision:
        return None
    try:
        commit = Path(snapshot_download(name, revision=revision, local_files_only=True)).name
    except LocalEntryNotFoundError:
        return None
    return commit if _COMMIT.fullmatch(commit) else None
