"""Logs of all ranks: merged and live, or afterwards from the store."""

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

_OVER = (Phase.SUCCEEDED, Phase.FAILED, Phase.MISSING)
_LOOK_SECONDS = 2.0


def past_logs(api: ClusterNamespace, release: str, files: LiveFiles | None, tail: int) -> Iterator[str]:
    """Last lines of every pod there is, then those that the store keeps of pods that are gone; each with its pod's name."""
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
    """Lines of every pod as they come, new pods and restarted ones included, until every release is over."""
    lines: queue.Queue[str] = queue.Queue(maxsize=10_000)
    followers: dict[str, _Follower] = {}
    looked = 0.0
    over = False
    while not should_stop():
        if time.monotonic() - looked > _LOOK_SECONDS:
            looked = time.monotonic()
            try:
                for release in releases:
                    for pod in api.pods(release):
                        _keep_following(api, pod, followers, lines)
                over = all(state_of(api.release(release)).phase in _OVER for release in releases)
            except ClusterError:
                pass  # the API is away for a moment; the next look tells
        try:
            yield lines.get(timeout=0.5)
        except queue.Empty:
            if over and not any(follower.thread.is_alive() for follower in followers.values()):
                return


class _Follower:
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
                continue  # shown before the stream broke
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
    """The timestamp that a log line begins with; None if it begins with something else."""
    try:
        return parse_timestamp(stamp)
    except ValueError:
        return None
