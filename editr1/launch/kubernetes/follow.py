"""Read the logs of all pods of a run, either their last lines or a live stream in which the logs are merged."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

from editr1.durations import parse_timestamp
from editr1.launch.kubernetes.errors import ClusterError
from editr1.launch.kubernetes.namespace import ClusterNamespace
from editr1.launch.kubernetes.state import Phase, state_of
from editr1.launch.kubernetes.views import PodView
from editr1.runs.live import LiveFiles

_ENDED = (Phase.SUCCEEDED, Phase.FAILED, Phase.MISSING)
_POLL_SECONDS = 2.0


def past_logs(api: ClusterNamespace, release: str, files: LiveFiles | None, tail: int) -> Iterator[str]:
    """Yield the last ``tail`` log lines of each pod of a release, in the form ``<pod> | <line>``.

    Logs of existing pods are read from the cluster, and logs of deleted pods are read from the artifact store
    (``files``).
    """
    shown = set()
    for pod in api.pods(release):
        shown.add(f"{pod.name}.{pod.uid[:8]}")
        container = pod.main.name if pod.main else None
        for line in api.log(pod.name, container=container, tail=tail).splitlines():
            yield f"{pod.name} | {line}"
    for attempt, text in (files.logs() if files else {}).items():
        if attempt not in shown:
            for line in text.splitlines()[-tail:]:
                yield f"{attempt} | {line}"


def live_logs(api: ClusterNamespace, releases: list[str], should_stop: Callable[[], bool]) -> Iterator[str]:
    """Yield the log lines of all pods of the releases as they are written, until every release has ended.

    Pods that start or restart in the meantime are included.
    """
    lines: queue.Queue[str] = queue.Queue(maxsize=10_000)
    followers: dict[str, _Follower] = {}
    polled = 0.0
    ended = False
    while not should_stop():
        if time.monotonic() - polled > _POLL_SECONDS:
            polled = time.monotonic()
            try:
                for release in releases:
                    for pod in api.pods(release):
                        _keep_following(api, pod, followers, lines)
                ended = all(state_of(api.release(release)).phase in _ENDED for release in releases)
            except ClusterError:
                pass  # The next poll retries the requests.
        try:
            yield lines.get(timeout=0.5)
        except queue.Empty:
            if ended and not any(follower.thread.is_alive() for follower in followers.values()):
                return


class _Follower:
    """A thread that reads the log of one pod and puts its lines into a queue, until the pod ends or the connection breaks."""

    def __init__(self, api: ClusterNamespace, pod: PodView, since: float, lines: queue.Queue[str]) -> None:
        self.last = since
        self._api, self._pod, self._lines = api, pod, lines
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        assert self._pod.main is not None
        for line in self._api.follow(self._pod.name, container=self._pod.main.name, since=self.last):
            stamp, _, text = line.partition(" ")
            at = _seconds(stamp)
            if at is not None and at <= self.last:
                continue  # This line was already printed before the stream was interrupted.
            self.last = at or self.last
            self._lines.put(f"{self._pod.name} | {text}")


def _keep_following(
    api: ClusterNamespace, pod: PodView, followers: dict[str, _Follower], lines: queue.Queue[str]
) -> None:
    if pod.main is None or pod.main.waiting:
        return
    known = followers.get(pod.uid)
    if known is None:
        followers[pod.uid] = _Follower(api, pod, pod.created - 1, lines)
    elif not known.thread.is_alive() and pod.phase == "Running":
        followers[pod.uid] = _Follower(api, pod, known.last, lines)


def _seconds(stamp: str) -> float | None:
    """Convert ``stamp``, the timestamp of a log line, to seconds since the epoch. Returns None if it is not a timestamp."""
    try:
        return parse_timestamp(stamp)
    except ValueError:
        return None
