"""Determine which reward model a stage on a cluster uses, without sending a request to the reward service."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from editr1.artifacts import ArtifactStore
from editr1.config.loader import ConfigError, validate
from editr1.config.serve import ServeConfig
from editr1.launch.kubernetes.namespace import ClusterNamespace
from editr1.launch.kubernetes.values import SERVICE_PORT
from editr1.runs.job import StageJob
from editr1.runs.kinds import KINDS
from editr1.runs.references import Scheme, parse_reference
from editr1.runs.resolve import resolve_reference
from editr1.serving.identity import RewardIdentity, is_model_digest, reward_identity

MODEL_ANNOTATION = "editr1.dev/reward-model"
"""Annotation of a reward Deployment that contains the reference of its model: a digest, or the reference passed to ``helm install``."""
SETTINGS_ANNOTATION = "editr1.dev/reward-settings"
"""Annotation of a reward Deployment that contains the settings of its server as JSON, without defaults."""


def with_reward(job: StageJob, api: ClusterNamespace, store: ArtifactStore) -> StageJob:
    """Return ``job`` with the identity of its reward model, if a reward Deployment in the namespace serves it.

    The identity is read from the annotations of the Deployment, so it is known even if the service has no running
    replica. A job is returned unchanged if it already contains the digest, or if no Deployment in the namespace
    serves its reward.

    Raises:
        ConfigError: there is no such Deployment, or its annotations do not contain its model.
    """
    if job.reward_digest is not None or not KINDS[job.kind].needs_service or not job.reward_urls:
        return job
    identity = identity_of_service(job.reward_urls, api, store)
    if identity is None:
        return job
    return job.model_copy(update={"reward": identity, "reward_digest": identity.model})


def identity_of_service(urls: Sequence[str], api: ClusterNamespace, store: ArtifactStore) -> RewardIdentity | None:
    """Return the identity of the model served at ``urls``, from the annotations of the reward Deployment in the namespace.

    The result is None if ``urls`` is not the address of a Service in the namespace. For the errors raised, see
    :func:`with_reward`.
    """
    releases = [_release_at(url, api.namespace) for url in urls]
    if len(releases) != 1 or releases[0] is None:
        return None
    where = f"reward service {releases[0]!r} in namespace {api.namespace}"
    found = api.get("Deployment", releases[0])
    if found is None:
        raise ConfigError(
            f"{where}: there is no Deployment with this name, so the model is unknown; submit the reward service "
            "first, or set reward.digest to the digest of its model"
        )
    return annotated_identity(found["metadata"].get("annotations") or {}, store, where)


def annotated_identity(annotations: Mapping[str, Any], store: ArtifactStore, where: str) -> RewardIdentity:
    """Return the identity of the model that a reward Deployment with these annotations serves.

    Raises:
        ConfigError: the annotations are missing or invalid, or the model cannot be resolved to a digest.
    """
    text, settings = annotations.get(MODEL_ANNOTATION), annotations.get(SETTINGS_ANNOTATION)
    remedy = "set reward.digest to the digest of its model, or submit the reward service again"
    if not text or not settings:
        raise ConfigError(
            f"{where}: the Deployment has no annotation {MODEL_ANNOTATION}, because an earlier version "
            f"installed it; {remedy}"
        )
    try:
        config = validate(ServeConfig, json.loads(settings), where=f"{where}, annotation {SETTINGS_ANNOTATION}")
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: annotation {SETTINGS_ANNOTATION} is not JSON: {error}; {remedy}") from None
    model = text
    if not is_model_digest(model):
        reference = parse_reference(text, f"{where}, annotation {MODEL_ANNOTATION}")
        if reference.scheme in (Scheme.STAGE, Scheme.PATH):
            raise ConfigError(f"{where}: its model {text!r} cannot be resolved from this machine; {remedy}")
        model = resolve_reference(reference, store, {}, where, upload=False)
    return reward_identity(model, config)


def _release_at(url: str, namespace: str) -> str | None:
    """Return the release whose Service has this address; None if it is not the address of a Service in the namespace."""
    found = re.fullmatch(rf"http://([a-z0-9-]+)\.{re.escape(namespace)}\.svc(\.cluster\.local)?:{SERVICE_PORT}/?", url)
    return found[1] if found else None
