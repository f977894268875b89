"""Write the status of a run, and report its changes as Kubernetes events, webhook notifications and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from editr1.launch.kubernetes.client import KubernetesClient, Object
from editr1.launch.kubernetes.errors import ClusterUnreachable, RequestRefused
from editr1.launch.kubernetes.resources import EDITRUN
from editr1.launch.kubernetes.run_status import RunStatus
from editr1_operator.cache import Cache
from editr1_operator.events import changes
from editr1_operator.metrics import RETRIES
from editr1_operator.notify import Notifier, cloud_event


class StatusWriter:
    """Writes the status of one EditRun.

    Attributes:
        body: The EditRun as it was written last.
        status: The status in ``body``.
    """

    def __init__(
        self, client: KubernetesClient, cache: Cache, notifier: Notifier, body: dict[str, Any], now: float
    ) -> None:
        self._client, self._cache, self._notifier, self._now = client, cache, notifier, now
        self.body, self.status = body, RunStatus.model_validate(body.get("status") or {})

    def write(self, status: RunStatus) -> bool:
        """Write the status if it changed.

        Returns:
            False if the run was changed or deleted in the meantime.
        """
        if status == self.status:
            return True
        meta = self.body["metadata"]
        patch = {
            "metadata": {"resourceVersion": meta["resourceVersion"]},
            "status": _replacement(self.body.get("status") or {}, status.as_json()),
        }
        try:
            written = self._client.patch(EDITRUN, meta["namespace"], meta["name"], patch, "status")
        except RequestRefused as error:
            if error.status == 409:
                return False
            raise
        if written is None:
            self._cache.put_run(self.body, deleted=True)  # no watch reported the deletion
            return False
        self._cache.put_run(written, deleted=False)
        before, self.body, self.status = self.status, written, status
        self._report(before)
        return True

    def _report(self, before: RunStatus) -> None:
        self._create_events(changes(before, self.status))
        if self.status.state is not before.state:
            self._notifier.notify(cloud_event(self.body["metadata"], self.status, self._now))
        retries = _failures(self.status) - _failures(before)
        if retries > 0:
            RETRIES.labels("attempt").inc(retries)

    def _create_events(self, events: Iterable[Object]) -> None:
        meta = self.body["metadata"]
        involved = {"apiVersion": self.body["apiVersion"], "kind": self.body["kind"]}
        involved |= {key: meta[key] for key in ("name", "namespace", "uid")}
        for event in events:
            event_meta = {"generateName": f"{meta['name']}.", "namespace": meta["namespace"]}
            try:
                self._client.create(
                    "Event", meta["namespace"], {**event, "metadata": event_meta, "involvedObject": involved}
                )
            except (RequestRefused, ClusterUnreachable):
                return  # events are informational


def _failures(status: RunStatus) -> int:
    return sum(stage.failures for stage in status.stages)


def _replacement(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a merge patch that turns ``old`` into ``new``."""
    return {**{key: None for key in old if key not in new}, **new}
