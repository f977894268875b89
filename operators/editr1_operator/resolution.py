"""Resolve the inputs of a stage to digests, and read the stage's result from the artifact store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from editr1.artifacts import ArtifactNotFound, DigestMismatch
from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.launch.kubernetes.values import release_name
from editr1.runs.kinds import KINDS
from editr1.runs.next_step import overdue
from editr1.runs.partial import result_to_reuse
from editr1.runs.record import StageResult, load_complete_result
from editr1.runs.resolve import HubUnreachable, full_config, resolve_stage
from editr1.runs.spec import RunSpec, StageSpec
from editr1.serving.identity import RewardIdentity, RewardUnreachable, ask_identity
from editr1_operator.actions import LoadResult, Resolve
from editr1_operator.objects import current_digest, shared_name
from editr1_operator.settings import NamespaceSettings


@dataclass
class Resolver:
    """Executor of the actions :class:`Resolve` and :class:`LoadResult`.

    They are carried out before all other actions, because the next decision depends on their outcome.
    """

    run: RunSpec
    settings: NamespaceSettings
    now: float
    unanswered: dict[str, float] = field(default_factory=dict)
    """Time since which the reward servers of a stage have not responded (seconds since the epoch), by stage name."""
    results: dict[str, StageResult | None] = field(default_factory=dict)
    """Results that have been read so far, by stage name; ``None`` for a stage that has no result."""

    def apply(self, action: Resolve | LoadResult, status: RunStatus) -> RunStatus:
        """Carry out an action and return the new status of the run.

        Raises:
            StoreError, HubUnreachable, RewardUnreachable: the artifact store, the hub or the addresses in ``reward`` cannot be reached.
        """
        stage = next(item for item in self.run.spec.stages if item.name == action.stage)
        known = status.stage_of(stage.name)
        assert known is not None
        if isinstance(action, LoadResult):
            self._load(stage, known.key)
            return status
        outputs = {item.name: item.outputs for item in status.stages if item.state is RunState.DONE}
        changed = self._resolve(stage, known, outputs)
        return status.model_copy(
            update={"stages": [changed if item.name == stage.name else item for item in status.stages]}
        )

    def _load(self, stage: StageSpec, key: str) -> None:
        self.results[stage.name] = load_complete_result(self.settings.store, self.run.metadata.name, stage.name, key)

    def _resolve(self, stage: StageSpec, known: StageStatus, outputs: dict[str, dict[str, str]]) -> StageStatus:
        spec, settings = self.run.spec, self.settings
        try:
            resolved = resolve_stage(stage, spec.stages, spec.seed, settings.store, outputs, ask=_ask_once)
            image = current_digest(stage, settings.cluster)
            if KINDS[stage.kind].service:
                release = shared_name(
                    stage, resolved.inputs["model"], image, spec.seed, settings.cluster, settings.config
                )
            else:
                release = release_name(self.run.metadata.name, stage.name)
                # This is called once per stage of an EditRun, because the key is then in its status.
                run = self.run.metadata.name
                self.results[stage.name] = result_to_reuse(settings.store, run, stage.name, resolved.key)
        except HubUnreachable:
            raise
        except RewardUnreachable as error:
            if not self._waited(stage):
                raise
            return self._failed(known, error)
        except (ConfigError, ArtifactNotFound, DigestMismatch) as error:
            return self._failed(known, error)
        reward = resolved.reward.model_dump_json() if resolved.reward else ""
        found = {"key": resolved.key, "inputs": resolved.inputs, "reward": reward, "release": release}
        return known.model_copy(update={**found, "image_digest": image})

    def _waited(self, stage: StageSpec) -> bool:
        """Return True if the reward servers of a stage have not responded for ``reward_ready_timeout_seconds``."""
        since = self.unanswered.setdefault(stage.name, self.now)
        limit = full_config(stage.kind, stage.config, self.run.spec.seed)["reward_ready_timeout_seconds"]
        return overdue(since, self.now, limit) is not None

    def _failed(self, known: StageStatus, error: Exception) -> StageStatus:
        return known.model_copy(
            update={"state": RunState.FAILED, "reason": Reason.INVALID, "message": str(error), "ended": self.now}
        )


def _ask_once(urls: Sequence[str], _seconds: float, *, where: str) -> RewardIdentity:
    """Request the identity of the model from the reward servers without waiting. The operator retries later."""
    return ask_identity(urls, 0.0, where=where)
