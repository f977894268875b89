"""What stays in the store: the run's record, its spans, and what the cluster said of each attempt that ended."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict

from editr1.artifacts import AccessDenied, ArtifactStore
from editr1.launch.kubernetes.errors import RequestRefused
from editr1.launch.kubernetes.run_status import RunStatus
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.record import stage_prefix
from editr1.telemetry import as_record
from editr1_operator.namespace_events import NamespaceEvents
from editr1_operator.observed import ObservedStage
from editr1_operator.trace import SERVICE, Exporter, spans_of

log = logging.getLogger("editr1.operator")


def keep_ended(
    happened: NamespaceEvents,
    store: ArtifactStore,
    namespace: str,
    run: str,
    seen: Mapping[str, ObservedStage],
    before: RunStatus,
    after: RunStatus,
) -> None:
    """Put pods and events of each attempt that ended between two statuses beside its logs, before its pods go."""
    for stage in after.stages:
        if not stage.key or not stage.attempts or KINDS[Kind(stage.kind)].service:
            continue
        last = stage.attempts[-1]
        known = before.stage_of(stage.name)
        old = known.attempts if known else []
        if last.ended is None or (len(old) == len(stage.attempts) and old[-1].ended is not None):
            continue
        pods = seen[stage.name].release.pods if stage.name in seen else ()
        names = {stage.release, *(pod.name for pod in pods)}
        try:
            events = happened.of(namespace, names, age_s=0)
        except RequestRefused:
            events = ()
        told = {
            "attempt": last.model_dump(),
            "pods": [asdict(pod) for pod in pods],
            "events": [asdict(event) for event in events],
        }
        key = f"{stage_prefix(run, stage.name, stage.key)}cluster/attempt-{len(stage.attempts)}.json"
        try:
            store.put_record(key, json.dumps(told, indent=1).encode())
        except AccessDenied as error:
            log.warning("what the cluster said of %s is not kept: %s", stage.release, error)


def keep_spans(
    store: ArtifactStore, exporter: Exporter, namespace: str, run: str, uid: str, before: RunStatus, after: RunStatus
) -> None:
    """Put the spans of all that is over into the store, and send what is new to the collector."""
    old, new = (spans_of(uid, namespace, run, status) for status in (before, after))
    if new:
        lines = [json.dumps(as_record(span, SERVICE)) + "\n" for span in new]
        store.put_record(f"runs/{run}/spans/operator-{uid[:8]}.jsonl", "".join(lines).encode())
        exporter.send(old, new)
