"""Build a stage's job and its chart values: the only place where either is assembled.

Local runs, single stages, ``submit``, ``render``, ``run --on kubernetes`` and the operator all call these functions.
Both are pure; resolving references through the store is :func:`editr1.runs.resolve.resolve_stage`'s part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editr1.config.cluster import ClusterConfig
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
    """What a job takes from its run and from the place where it is launched."""

    run: str
    seed: int
    store: StoreConfig
    git_revision: str = ""
    workdir: Path = POD_WORKDIR
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)


@dataclass(frozen=True)
class RewardService:
    """The service that scores a stage's samples, and the digest of the model that it must serve."""

    urls: tuple[str, ...] = ()
    digest: str | None = None


def build_job(
    stage: StageSpec,
    context: JobContext,
    resolved: ResolvedStage | None = None,
    reward: RewardService | None = None,
) -> StageJob:
    """Return the job of ``stage``.

    Args:
        stage: the stage as the run file gives it.
        context: what the run and the launcher add.
        resolved: settings, input digests and key. Without it the job keeps the stage's own settings and references and
            has no key; the pod resolves them (:func:`editr1.runs.resolve.resolve_job`).
        reward: a running reward service. Without it, the addresses in ``stage.reward``, if there are any.
    """
    reward = reward or RewardService(tuple(reward_addresses(stage.reward)))
    return StageJob(
        run=context.run,
        stage=stage.name,
        kind=stage.kind,
        key=resolved.key if resolved else "",
        seed=context.seed,
        store=context.store,
        inputs=resolved.inputs if resolved else stage.inputs,
        reward_urls=list(reward.urls),
        reward_digest=reward.digest,
        config=resolved.config if resolved else stage.config,
        workdir=context.workdir,
        git_revision=context.git_revision,
        runtime=context.runtime,
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
        job: the stage's job.
        cluster: settings of the cluster; the pods' own store endpoint and all resources come from there.
        stage: the run file's stage, for its number of processes and retries; None leaves both to ``base``.
        base: values below the job's, as ``submit`` reads them from a file; None takes the cluster's for this stage.
            They already name the reward service.
        traceparent: W3C parent of the stage's spans.

    Raises:
        ConfigError: the chart does not accept a value of the cluster's settings.
    """
    store = {"url": job.store.url} | ({"region": job.store.region} if job.store.region else {})
    own: dict[str, Any] = {
        "run": job.run,
        "stage": job.stage,
        "key": job.key,
        "seed": job.seed,
        "gitRevision": job.git_revision,
        "inputs": job.inputs,
        "config": job.config,
        "store": store,
    }
    if traceparent:
        own["telemetry"] = {"traceparent": traceparent}
    if stage is not None and not KINDS[job.kind].service:
        own |= {"processes": stage.processes, "retries": stage.retries}
    if base is None:
        base = shared_values(cluster, job.kind, job.stage)
        if job.reward_urls:
            own["reward"] = {"urls": job.reward_urls, "digest": job.reward_digest or ""}
    return checked(job.kind, deep_merge(base, own), f"cluster values of {job.stage}")
