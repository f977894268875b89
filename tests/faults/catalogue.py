"""The faults of a campaign. Each follows from its area, its number and the seed alone, so that one id reproduces it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tests.faults.reward import FALSIFICATIONS, STATUSES, TRANSPORT


@dataclass(frozen=True)
class Fault:
    """One fault: what is injected (``kind`` and ``parameters``), and into which workload."""

    area: str
    seed: int
    number: int
    workload: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Name of the fault: area, seed of the campaign, number."""
        return f"{self.area}-{self.seed}-{self.number:04d}"


def fault(area: str, seed: int, number: int) -> Fault:
    """Draw a fault of an area."""
    rng = random.Random(f"{area}/{seed}/{number}")
    workload, kind, parameters = AREAS[area](rng)
    return Fault(area, seed, number, workload, kind, MappingProxyType(parameters))


def by_id(text: str) -> Fault:
    """Return the fault with this id. Raises ValueError if it is none."""
    area, seed, number = text.rsplit("-", 2)
    if area not in AREAS:
        raise ValueError(
            f"{text!r}: no fault has this id; an id is AREA-SEED-NUMBER with an area of {', '.join(AREAS)}"
        )
    return fault(area, int(seed), int(number))


def faults(seed: int, areas: Sequence[str]) -> Iterator[Fault]:
    """Yield faults of the areas, in proportion to their weights, without end."""
    order = random.Random(f"order/{seed}")
    counts = dict.fromkeys(areas, 0)
    weights = [WEIGHTS[area] for area in areas]
    while True:
        area = order.choices(areas, weights)[0]
        yield fault(area, seed, counts[area])
        counts[area] += 1


_Drawn = tuple[str, str, dict[str, Any]]


def _s3(rng: random.Random) -> _Drawn:
    kind, target, methods = rng.choice(
        [
            *[("status", target, ("GET", "PUT", "HEAD")) for target in ("any", "blob", "manifest", "record")],
            *[("status", target, ("GET", "PUT")) for target in ("list", "result", "checkpoint", "progress", "claim")],
            *[(kind, target, ("GET", "PUT", "HEAD")) for kind in ("reset-before", "reset-after", "latency")
              for target in ("any", "list", "blob", "manifest", "record", "result", "checkpoint", "heartbeat", "claim")],
            *[("truncate", target, ("GET",)) for target in ("any", "list", "blob", "manifest", "record", "checkpoint")],
            *[("flip", target, ("GET",)) for target in ("blob", "blob", "manifest", "manifest", "record", "checkpoint")],
            *[(kind, "list", ("GET",)) for kind in ("stale-list", "stale-list", "empty-list", "broken-list", "broken-list")],
            *[("missing", target, ("GET", "HEAD")) for target in ("blob", "manifest", "checkpoint")],
            *[("precondition", target, ("PUT",)) for target in ("manifest", "claim")],
            *[("outage", target, ("GET", "PUT", "HEAD")) for target in ("any", "any", "blob", "checkpoint", "record", "heartbeat")],
        ]
    )  # fmt: skip
    parameters: dict[str, Any] = {
        "target": target,
        "methods": methods,
        "first": _early(rng, 30 if target == "any" else 6),
    }
    parameters["repeat"] = rng.choice((1, 1, 1, 2, 3, 5))
    if kind == "status":
        parameters["status"] = rng.choice((429, 500, 500, 502, 503, 503, 504))
    if kind == "latency":
        parameters["seconds"] = rng.choice((0.5, 2.0, 5.0))
    if kind == "outage":
        parameters |= {"seconds": rng.choice((2.0, 5.0, 10.0, 20.0)), "repeat": 1}
    return rng.choice(("sft", "sft", "sft", "curate", "grpo", "gcpo")), kind, parameters


def _early(rng: random.Random, below: int) -> int:
    """Return a number below ``below``; small ones are more frequent, because later requests may not happen."""
    return int(below * rng.random() ** 2)


_INPUTS = ("input-blob", "input-manifest")
_CHECKPOINTS = (
    "newest-checkpoint-blob",
    "newest-checkpoint-manifest",
    "newest-pointer",
    "older-pointer",
    "all-pointers",
)
_RECORDS = ("run-record", "stage-progress", "newest-claim", "newest-heartbeat", "earlier-result")
_DAMAGES = ("flip", "flip", "flip", "truncate", "empty", "garbage", "remove")


def _disk(rng: random.Random) -> _Drawn:
    """Damage of stored files, or files that do not belong there, between two calls or before the first one."""
    state = rng.choice(("before", "partial", "partial", "partial", "finished"))
    workload = rng.choice({
        "before": ("sft", "sft", "gcpo", "grpo", "evaluate"),
        "partial": ("sft", "sft", "sft", "gcpo", "grpo"),
        "finished": ("sft", "curate", "grpo"),
    }[state])  # fmt: skip
    other_machine = rng.random() < 0.5
    if state == "partial" and rng.random() < 0.3:
        kinds = (
            "model.safetensors.tmp",
            "notes.txt",
            "model-00001-of-00002.safetensors",
            "sub/left",
            ".hidden",
            "config.json",
        )
        folder = rng.choice(("out", "out", "in", "resume", "store-scratch", "checkpoints"))
        return workload, "left-over", {"state": state, "name": rng.choice(kinds), "folder": folder}
    if state == "before":
        target = rng.choice((*_INPUTS, *_INPUTS, "earlier-result"))
    elif state == "partial":
        target = rng.choice((*_CHECKPOINTS[:2], *_CHECKPOINTS[:2], *_INPUTS, "cached-input", "cached-checkpoint"))
        other_machine = other_machine and not target.startswith("cached")
    else:
        target = rng.choice(("output-blob", "output-manifest"))
    kind = rng.choice(_DAMAGES)
    return (
        workload,
        kind,
        {"state": state, "target": target, "other_machine": other_machine, "seed": rng.getrandbits(32)},
    )


def _state(rng: random.Random) -> _Drawn:
    """Damage of the files in which the state of a run is kept."""
    workload = rng.choice(("sft", "sft", "sft", "gcpo", "grpo"))
    kind = rng.choice((*_DAMAGES, "foreign", "other-value"))
    where = rng.choice(
        ("job", "job", "record", "record", "result", "result", "pointer", "pointer", "progress", "claim")
    )
    state, target = {
        "job": ("job", "job"),
        "record": (rng.choice(("partial", "finished")), "run-record"),
        "result": (rng.choice(("finished", "before")), "stage-result"),
        "pointer": ("partial", rng.choice(_CHECKPOINTS[2:])),
        "progress": ("partial", rng.choice(("stage-progress", "local-progress"))),
        "claim": (rng.choice(("partial", "finished")), rng.choice(_RECORDS[2:4])),
    }[where]
    if state == "before":
        target = "earlier-result"
    other_machine = rng.random() < 0.5 and target != "local-progress"
    return (
        workload,
        kind,
        {"state": state, "target": target, "other_machine": other_machine, "seed": rng.getrandbits(32)},
    )


_ROLES = {
    "curate": ("command", "stage"),
    "sft": ("command", "stage", "rank-0"),
    "sft-2": ("command", "stage", "rank-0", "rank-1"),
    "gcpo": ("command", "stage", "rank-0"),
    "grpo": ("command", "stage", "rank-0"),
    "grpo-2": ("command", "stage", "rank-0", "rank-1"),
    "served": ("command", "stage", "rank-0", "serve", "serve"),
    "evaluate": ("command", "stage"),
}


def _signals(rng: random.Random) -> _Drawn:
    workload = rng.choice(
        ("curate", "sft", "sft", "sft", "sft-2", "sft-2", "sft-2", "gcpo", "grpo", "grpo-2", "served", "evaluate")
    )
    kind = rng.choice(("SIGKILL", "SIGKILL", "SIGKILL", "SIGTERM", "SIGTERM", "SIGINT", "SIGSTOP"))
    parameters: dict[str, Any] = {"role": rng.choice(_ROLES[workload]), "at": round(rng.random(), 3)}
    if rng.random() < 0.4 and workload not in ("curate", "evaluate"):
        parameters |= {
            "after_checkpoint": rng.randrange(1, 4 if workload.startswith("sft") else 3),
            "at": round(rng.random() * 0.3, 3),
        }
    if kind == "SIGSTOP":
        parameters["seconds"] = rng.choice((0.5, 2.0, 6.0))
    parameters["times"] = 2 if kind == "SIGKILL" and rng.random() < 0.2 else 1
    return workload, kind, parameters


def _reward(rng: random.Random) -> _Drawn:
    transport = [f"status-{status}" for status in STATUSES] + list(TRANSPORT)
    kind = rng.choice((*FALSIFICATIONS, *FALSIFICATIONS, *transport))
    first, repeat = rng.randrange(1 if kind.startswith("stale") else 0, 5), rng.choice((1, 1, 1, 2, 4))
    return (
        rng.choice(("grpo", "grpo", "grpo", "grpo-2")),
        kind,
        {"first": first, "repeat": repeat, "seed": rng.getrandbits(32)},
    )


AREAS: dict[str, Callable[[random.Random], _Drawn]] = {
    "s3": _s3,
    "disk": _disk,
    "signals": _signals,
    "reward": _reward,
    "state": _state,
}
WEIGHTS = {"s3": 30, "disk": 15, "signals": 25, "reward": 15, "state": 15}
"""Relative numbers of the faults of each area in a campaign."""
