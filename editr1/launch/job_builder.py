"""Build the job of a stage, and the values of the Helm chart that runs the job on a cluster.

A job (:class:`~editr1.runs.job.StageJob`) contains everything that a stage process needs to know. All backends and commands
build jobs with the functions of this module, which are pure. References to inputs are resolved before the job is built
(:func:`editr1.runs.resolve.resolve_stage`) or in the pod (:func:`editr1.runs.resolve.resolve_job`).

On a cluster, the chart writes the job into the job file of its pods (``charts/editr1-lib/templates/_job_file.tpl``).
``tests/unit/launch/test_job_file.py`` checks that this file has the same fields and values as the job, except for
fields that are set by the pod or by the cluster settings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic.alias_generators import to_camel

from editr1.config.cluster import ClusterConfig
from editr1.config.loader import ConfigError
from editr1.config.merge import deep_merge
from editr1.config.store import StoreConfig
from editr1.launch.kubernetes.values import checked, shared_values
from editr1.runs.job import RuntimeSettings, StageJob
from editr1.runs.kinds import KINDS
from editr1.runs.resolve import ResolvedStage
from editr1.runs.spec import StageSpec, reward_addresses

POD_WORKDIR = Path("/work")


@dataclass(frozen=True)
class JobContext:
    """Job fields whose values come from the run and the launcher. The other job fields come from the stage in the run file."""

    run: str
    seed: int
    store: StoreConfig
    git_revision: str = ""
    workdir: Path = POD_WORKDIR
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass(frozen=True)
class RewardEndpoints:
    """Addresses of the reward service that a stage uses, and the digest of the model that the service must serve."""

    urls: tuple[str, ...] = ()
    digest: str | None = None


def build_job(
    stage: StageSpec,
    context: JobContext,
    resolved: ResolvedStage | None = None,
    reward: RewardEndpoints | None = None,
) -> StageJob:
    """Return the job of ``stage``.

    Args:
        stage: the stage in the run file.
        context: fields that come from the run and the launcher.
        resolved: complete settings, input digests and key of the stage. If None, the job contains the settings and
            references as in the run file, and the pod resolves them (:func:`editr1.runs.resolve.resolve_job`).
        reward: the running reward service. If None, the job uses the addresses in ``stage.reward``, if there are any.
    """
    reward = reward or RewardEndpoints(tuple(reward_addresses(stage.reward)), stage.reward_digest)
    identity = resolved.reward if resolved else None
    return StageJob(
        run=context.run,
        stage=stage.name,
        kind=stage.kind,
        key=resolved.key if resolved else "",
        seed=context.seed,
        store=context.store,
        inputs=resolved.inputs if resolved else stage.inputs,
        reward_urls=list(reward.urls),
        reward_digest=reward.digest or (identity.model if identity else None),
        reward=identity,
        config=resolved.config if resolved else stage.config,
        workdir=context.workdir,
        git_revision=context.git_revision,
        runtime=context.runtime.model_copy(update={"heartbeat_timeout_seconds": stage.heartbeat_timeout_seconds}),
    )


def chart_values(
    job: StageJob,
    cluster: ClusterConfig,
    *,
    stage: StageSpec | None = None,
    base: Mapping[str, Any] | None = None,
    traceparent: str | None = None,
) -> dict[str, Any]:
    """Return the chart values of the release that runs ``job``.

    Args:
        job: the job of the stage.
        cluster: cluster settings, such as the endpoint of the artifact store and the resources of the pods.
        stage: the stage in the run file, which sets the numbers of processes and retries. If None, ``base`` sets them.
        base: chart values with lower precedence than those of the job, for example from the values file of ``editr1 submit``. For a
            GRPO stage, they must include the reward service. If None, the values in the cluster settings for this stage are used.
        traceparent: W3C trace context of the parent of the stage's spans.

    Raises:
        ConfigError: the chart rejects a value, or an endpoint of the artifact store is set on this machine but not for the pods.
    """
    job_values: dict[str, Any] = {
        "run": job.run,
        "stage": job.stage,
        "key": job.key,
        "seed": job.seed,
        "gitRevision": job.git_revision,
        "inputs": job.inputs,
        "config": job.config,
        "store": _store_values(job.store),
    }
    if stage is not None:
        job_values["heartbeatTimeoutSeconds"] = stage.heartbeat_timeout_seconds
    if traceparent:
        job_values["telemetry"] = {"traceparent": traceparent}
    if stage is not None and not KINDS[job.kind].service:
        job_values |= {"processes": stage.processes, "retries": stage.retries}
    if base is None:
        base = shared_values(cluster, job.kind, job.stage)
        if job.reward_urls:
            job_values["reward"] = {"urls": job.reward_urls, "digest": job.reward_digest or ""}
    elif job.reward_digest:
        job_values["reward"] = {"digest": job.reward_digest}
    if job.key and job.reward:
        job_values.setdefault("reward", {})["identity"] = job.reward.model_dump_json()
    values = checked(job.kind, deep_merge(base, job_values), f"cluster values of {job.stage}")
    if job.store.endpoint and not values["store"].get("endpoint"):
        # Without an endpoint, the pods would connect to AWS. The endpoint of this machine is not copied, because the
        # pods may need a different one.
        raise ConfigError(
            f"artifact store {job.store.url}: this machine uses the endpoint {job.store.endpoint}, but no endpoint is set for the "
            "pods; set values.store.endpoint in the cluster settings"
        )
    return values


def _store_values(store: StoreConfig) -> dict[str, Any]:
    """Return the chart values of an artifact store.

    An option with its default value is omitted, so that the cluster settings can set it.
    """
    included = {"region", "secure", "part_bytes", "transfers", "outage_seconds"}
    options = store.model_dump(include=included, exclude_defaults=True)
    if "outage_seconds" in options:
        options["outage_seconds"] = math.ceil(options["outage_seconds"])
    return {"url": store.url} | {to_camel(name): value for name, value in options.items()}
