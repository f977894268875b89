"""Save the pods and events of each attempt, and the OpenTelemetry spans of the run, to the artifact store.

Pods and events are saved before Kubernetes deletes them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict

from editr1.artifacts import AccessDenied, ArtifactStore
from editr1.artifacts.errors import KeysNoLongerAccepted
from editr1.launch.kubernetes.errors import RequestRefused
from editr1.launch.kubernetes.run_status import RunStatus, StageStatus
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.record import stage_prefix
from editr1.telemetry import as_record
from editr1_operator.namespace_events import NamespaceEvents
from editr1_operator.observed import ObservedStage
from editr1_operator.trace import SERVICE, Exporter, spans_of

log = logging.getLogger("editr1.operator")


def archive_attempts(
    namespace_events: NamespaceEvents,
    store: ArtifactStore,
    namespace: str,
    run: str,
    observed: Mapping[str, ObservedStage],
    before: RunStatus,
    after: RunStatus,
) -> None:
    """Save the pods and events of each attempt that ended between the run's statuses ``before`` and ``after``.

    Raises:
        StoreError, ClusterUnreachable: the store or the API server cannot be reached; call the function again later.
    """
    for stage in after.stages:
        if not _attempt_ended(before.stage_of(stage.name), stage):
            continue
        pods = observed[stage.name].release.pods if stage.name in observed else ()
        names = {stage.release, *(pod.name for pod in pods)}
        try:
            events = namespace_events.of(namespace, names, age_s=0)
        except RequestRefused:
            events = ()
        entry = {
            "attempt": stage.attempts[-1].model_dump(),
            "pods": [asdict(pod) for pod in pods],
            "events": [asdict(event) for event in events],
        }
        key = f"{stage_prefix(run, stage.name, stage.key)}cluster/attempt-{len(stage.attempts)}.json"
        try:
            store.put_record(key, json.dumps(entry, indent=1).encode())
        except KeysNoLongerAccepted:  # The caller tries again later, with the new keys.
            raise
        except AccessDenied as error:
            log.warning("cannot archive pods and events of %s: %s", stage.release, error)


def archive_spans(
    store: ArtifactStore, exporter: Exporter, namespace: str, run: str, uid: str, before: RunStatus, after: RunStatus
) -> None:
    """Save the spans of all attempts that have ended, and of the run if it has ended.

    Spans that ended after the status ``before`` was written are also sent to the OpenTelemetry collector.
    """
    old, new = (spans_of(uid, namespace, run, status) for status in (before, after))
    if new:
        lines = [json.dumps(as_record(span, SERVICE)) + "\n" for span in new]
        store.put_record(f"runs/{run}/spans/operator-{uid[:8]}.jsonl", "".join(lines).encode())
        exporter.send(old, new)


def _attempt_ended(before: StageStatus | None, after: StageStatus) -> bool:
    """Return True if the newest attempt of a stage ended between its statuses ``before`` and ``after``.

    The result is always False for reward services, whose attempts are not archived.
    """
    if not after.key or not after.attempts or KINDS[Kind(after.kind)].service:
        return False
    if after.attempts[-1].ended is None:
        return False
    old = before.attempts if before else []
    return len(old) != len(after.attempts) or old[-1].ended is None
