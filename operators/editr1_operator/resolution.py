"""Resolve the inputs of a stage to digests, and read the stage's result from the artifact store."""

from __future__ import annotations

from dataclasses import dataclass, field

from editr1.artifacts import ArtifactNotFound, DigestMismatch
from editr1.config.loader import ConfigError
from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus, StageStatus
from editr1.launch.kubernetes.values import release_name
from editr1.runs.kinds import KINDS
from editr1.runs.record import StageResult, load_complete_result
from editr1.runs.resolve import HubUnreachable, resolve_stage
from editr1.runs.spec import RunSpec, StageSpec
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
    results: dict[str, StageResult | None] = field(default_factory=dict)
    """Results that were read so far, by stage name; ``None`` for a stage that has no result."""

    def apply(self, action: Resolve | LoadResult, status: RunStatus) -> RunStatus:
        """Carry out an action and return the new status of the run.

        Raises:
            StoreError, HubUnreachable: the artifact store or the hub cannot be reached.
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
            resolved = resolve_stage(stage, spec.stages, spec.seed, settings.store, outputs)
            image = current_digest(stage, settings.cluster)
            if KINDS[stage.kind].service:
                release = shared_name(
                    stage, resolved.inputs["model"], image, spec.seed, settings.cluster, settings.config
                )
            else:
                release = release_name(self.run.metadata.name, stage.name)
                self._load(stage, resolved.key)
        except HubUnreachable:
            raise
        except (ConfigError, ArtifactNotFound, DigestMismatch) as error:
            return known.model_copy(
                update={"state": RunState.FAILED, "reason": Reason.INVALID, "message": str(error), "ended": self.now}
            )
        return known.model_copy(
            update={"key": resolved.key, "inputs": resolved.inputs, "release": release, "image_digest": image}
        )
