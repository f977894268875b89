"""Write the status of an EditRun, and report its changes as Kubernetes events, webhook notifications and metrics."""

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
    """Writer of the status of one EditRun.

    Attributes:
        body: The EditRun, as last read or written.
        status: The parsed status in ``body``.
    """

    def __init__(
        self, client: KubernetesClient, cache: Cache, notifier: Notifier, body: dict[str, Any], now: float
    ) -> None:
        self._client, self._cache, self._notifier, self._now = client, cache, notifier, now
        self.body, self.status = body, RunStatus.model_validate(body.get("status") or {})

    def write(self, status: RunStatus) -> bool:
        """Write the status if it differs from the last status.

        Returns:
            False if the EditRun was changed or deleted in the meantime, so that the status was not written.
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
            self._cache.put_run(self.body, deleted=True)  # No watch reported the deletion.
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
                return  # Events only inform the user, so a run does not depend on them.


def _failures(status: RunStatus) -> int:
    return sum(stage.failures for stage in status.stages)


def _replacement(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON merge patch that converts ``old`` to ``new``."""
    return {**{key: None for key in old if key not in new}, **new}
