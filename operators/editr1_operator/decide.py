"""What to do next with a run on a cluster: pure functions of what stands there and of the time.

``decide`` is asked again after every change; it returns what the status should say and what should be done. The status is
written before anything is done, and every action may be applied twice, so an operator killed in between loses nothing:
the next one decides the same from the same facts.

=========================================  =============================================================
what is seen of a stage                    what follows
=========================================  =============================================================
inputs not there                           waits
its result stands in the store             done, nothing is started
no job, none asked for                     the service first where one scores it, then attempt 1
no job, one asked for, never seen          the same attempt again
no job, one was seen                       the attempt ended badly (137)
job of an earlier attempt                  removed
job pending                                says why; past ``pending_timeout_seconds`` removed, failed
pod under an old name with a new identity  a node was lost: counts as a failure, the job goes on
job failed, code worth a retry             removed, and after a backoff the next attempt from the checkpoint
job failed, code permanent, retries spent  failed
job succeeded                              done, or failed where it committed no result
``deadline_seconds`` passed                      removed, failed
``suspend``                                job held, service given up; later it goes on from the checkpoint
=========================================  =============================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from editr1.launch.kubernetes.run_status import Reason, RunState, RunStatus
from editr1.runs.decide import dependencies, services_wanted, startable
from editr1.runs.kinds import KINDS
from editr1_operator.actions import Action
from editr1_operator.conditions import summarised
from editr1_operator.facts import RunFacts
from editr1_operator.jobs import Jobs


@dataclass(frozen=True)
class Plan:
    """What the status should say, then what should be done."""

    status: RunStatus
    actions: tuple[Action, ...]


def decide(facts: RunFacts) -> Plan:
    """The next step of a run."""
    run = Jobs(facts)
    spec = facts.spec
    done = {name for name, stage in run.stages.items() if stage.state is RunState.DONE}
    ready = {stage.name for stage in startable(spec.stages, done)}
    failed = sorted(name for name, stage in run.stages.items() if stage.state is RunState.FAILED)
    for stage in spec.stages:
        if KINDS[stage.kind].service:
            continue
        if run.stages[stage.name].over:
            run.clear(stage)
        elif failed and not run.stages[stage.name].attempts:
            run.set(stage, state=RunState.WAITING, reason=Reason.STAGE_FAILED, message=f"{', '.join(failed)} failed")
        elif stage.name in ready:
            run.step(stage)
            run.keep_service(stage)
        else:
            missing = sorted(dependencies(stage, spec.stages) - done)
            run.set(
                stage, state=RunState.WAITING, reason=Reason.INPUTS_MISSING, message=f"waits for {', '.join(missing)}"
            )
    finished = {name for name, stage in run.stages.items() if stage.over}
    for stage in spec.stages:
        failed_service = run.stages[stage.name].state is RunState.FAILED
        if KINDS[stage.kind].service and (failed_service or stage.name not in run.served):
            run.rest(stage, wanted=stage.name in services_wanted(spec.stages, finished))
    status = facts.status.model_copy(update={"stages": [run.stages[stage.name] for stage in spec.stages]})
    return Plan(summarised(status, spec, facts.generation, facts.now), tuple(run.actions))
