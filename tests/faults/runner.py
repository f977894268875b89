"""Inject one fault into a run in a folder of its own, repeat the command if it failed, and gather what can be observed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import damage
from tests.faults.catalogue import Fault
from tests.faults.classify import Attempt, Evidence
from tests.faults.compare import difference, failed_scores, repeated_steps, rerun_stages
from tests.faults.preload import COMMAND, JOB_DAMAGE, Template
from tests.faults.processes import Processes
from tests.faults.relay import Relay, RelayFault
from tests.faults.reward import RewardProxy
from tests.faults.s3_server import S3Access
from tests.faults.workloads import RUN, WORKLOADS, Reference, Workload, link_store, pointers

POLL_SECONDS = 0.02
LEFT_SECONDS = 30.0
"""Time that processes of a run have to exit after the command has ended."""


@dataclass
class Bench:
    """What the faults that one worker injects share: servers, prepared states and the template of processes."""

    template: Template
    base: Path
    relay: Relay
    proxy: RewardProxy
    s3: S3Access


class Session:
    """A run in a folder of its own, of which a command can be called several times."""

    def __init__(self, bench: Bench, fault: Fault, folder: Path) -> None:
        self.bench, self.fault, self.folder = bench, fault, folder
        self.workload: Workload = WORKLOADS[fault.workload]
        self.reference = Reference.load(bench.base, fault.workload)
        self.processes = Processes(bench.template, folder / "processes")
        self.runs = folder / "runs"
        self.run_folder = self.runs / RUN
        self.environment: dict[str, str] = {}
        self.arguments = ["run", str(folder / "run.json"), "--runs-dir", str(self.runs)]
        self.described = ""
        self.extra_seconds = 0.0
        (folder / "run.json").write_text(json.dumps(self.workload.run_file(bench.proxy.url)))

    def use_state(self, state: str, *, work: bool = True) -> None:
        """Copy a prepared state of the workload: ``before`` its stage, ``partial`` or ``finished``."""
        if state == "before":
            if self.workload.after is None:
                return
            source = self.bench.base / self.workload.after / "finished" / RUN
            work = False
        else:
            source = self.bench.base / self.fault.workload / state / RUN
        link_store(source / "store", self.run_folder / "store")
        if work:
            shutil.copytree(source / "stages", self.run_folder / "stages")
        record = self.run_folder / "store" / "records" / "runs" / RUN / "record.json"
        text = record.read_text()
        record.unlink()
        prepared_url = (self.bench.base / self.fault.workload / "url.txt").read_text()
        record.write_text(text.replace(prepared_url, self.bench.proxy.url))

    def call(self, during: Callable[[int], None] | None = None) -> Attempt:
        """Run the command until it ends or its time is over. ``during`` is called repeatedly with its process id."""
        limit = max(90.0, 12 * self.reference.seconds) + self.extra_seconds
        output = self.folder / f"output-{len(list(self.folder.glob('output-*')))}.txt"
        began = time.monotonic()
        pid = self.processes.start(COMMAND, self.arguments, self.environment, output)
        while (code := self.processes.code(pid)) is None and time.monotonic() < began + limit:
            if during is not None:
                during(pid)
            time.sleep(POLL_SECONDS)
        text = output.read_text(errors="replace")
        return Attempt(code, time.monotonic() - began, text[-6000:], self._log())

    def _log(self) -> str:
        file = self.run_folder / "stages" / self.workload.stage / "log.txt"
        return file.read_text(errors="replace")[-3000:] if file.is_file() else ""


@dataclass
class Injection:
    """How a fault acts: what happens while the first command runs, and what is known about the fault afterwards."""

    during: Callable[[int], None] | None = None
    end: Callable[[], None] = lambda: None
    """Ends the fault before the command is repeated."""
    met: Callable[[], bool] = lambda: True
    persists: bool = False
    stopped_by: Callable[[], str] = lambda: ""
    names: tuple[str, ...] = ()
    intervals: int | None = 1
    """Checkpoint intervals that may be lost; None: any number, because every checkpoint is damaged."""
    may_rerun: bool = False
    refused: bool = False
    """A service refuses requests with an answer that says that a retry is useless."""
    replaceable: bool = False
    """The damaged file can be made again, or an older one can be used."""


def observe(bench: Bench, fault: Fault, folder: Path) -> tuple[Evidence, str]:
    """Inject ``fault`` and return what was observed, and a description of what was injected."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    session = Session(bench, fault, folder)
    try:
        injection = _INJECTORS[fault.area](session)
        if injection is None:
            return Evidence(met=False, persists=False, attempts=()), "nothing to damage"
        attempts = [session.call(injection.during)]
        injection.end()
        if attempts[0].code is not None and attempts[0].code != 0:
            attempts.append(session.call())
        return _evidence(session, injection, attempts), session.described
    finally:
        bench.relay.fault = None
        bench.proxy.disarm()
        session.processes.end()


def _evidence(session: Session, injection: Injection, attempts: list[Attempt]) -> Evidence:
    store = session.bench.s3.open(session.fault.id) if session.fault.area == "s3" else session.run_folder / "store"
    workload, reference = session.workload, session.reference
    good = attempts[-1].code == 0
    lost = repeated_steps(session.run_folder / "stages" / workload.stage, reference.key) if good else 0
    kills = session.fault.parameters["times"] if session.fault.area == "signals" else 0
    return Evidence(
        met=injection.met(),
        persists=injection.persists,
        attempts=tuple(attempts),
        stopped_by=injection.stopped_by(),
        difference=difference(store, workload, reference, session.bench.base, kills=kills) if good else None,
        counted_failures=failed_scores(store, workload, reference) if good and session.fault.area == "reward" else 0,
        lost_steps=lost if workload.interval else 0,
        allowed_steps=10**6 if injection.intervals is None else injection.intervals * workload.interval,
        rerun=() if injection.may_rerun or not good else rerun_stages(store, workload, session.bench.base),
        left=tuple(session.processes.left(LEFT_SECONDS)) if attempts[-1].code is not None else (),
        refused=injection.refused,
        replaceable=injection.replaceable,
        names=injection.names,
    )


def _inject_s3(session: Session) -> Injection | None:
    fault, bench = session.fault, session.bench
    session.use_state("before")
    url = bench.s3.fill(fault.id, session.run_folder / "store")
    shutil.rmtree(session.run_folder, ignore_errors=True)
    session.environment |= bench.s3.environment(bench.relay.port)
    session.arguments += ["--store", url]
    relayed = RelayFault(kind=fault.kind, seed=fault.number, **fault.parameters)
    session.extra_seconds = 4 * relayed.seconds * relayed.repeat
    bench.relay.fault = relayed

    def end() -> None:
        bench.relay.fault = None

    session.described = f"{fault.kind} {dict(fault.parameters)}"
    return Injection(end=end, met=lambda: relayed.met > 0, intervals=2)


def _inject_reward(session: Session) -> Injection | None:
    fault, proxy = session.fault, session.bench.proxy
    session.use_state("before")
    parameters = fault.parameters
    proxy.arm(fault.kind, first=parameters["first"], repeat=parameters["repeat"], seed=parameters["seed"])
    met: list[int] = []

    def end() -> None:
        met.append(proxy.met)
        proxy.disarm()

    session.described = f"{fault.kind} {dict(parameters)}"
    session.extra_seconds = 60
    return Injection(end=end, met=lambda: met[0] > 0, refused=fault.kind in _REFUSALS)


def _inject_damage(session: Session) -> Injection | None:
    fault, parameters = session.fault, session.fault.parameters
    rng = random.Random(parameters["seed"])
    state, target = parameters["state"], parameters["target"]
    if state == "job":
        session.use_state("before")
        session.environment[JOB_DAMAGE] = json.dumps(
            {"kind": fault.kind, "seed": parameters["seed"], "stage": session.workload.stage}
        )
        session.described = f"job.json: {fault.kind} before the stage reads it"
        return Injection()
    session.use_state(state, work=not parameters["other_machine"])
    files = damage.targets(session.run_folder, session.workload, target)
    if not files:
        return None
    chosen = files if target == "all-pointers" else [rng.choice(files)]
    done = [damage.apply(fault.kind, file, rng, session.run_folder) for file in chosen]
    session.described = "; ".join(text for text in done if text)
    if not session.described:
        return None
    if target.startswith("output"):
        digest = damage.owner(session.run_folder / "store", chosen[0], session.reference.outputs.values())
        session.arguments = ["artifacts", "verify", digest, "--store", str(session.run_folder / "store")]
    names = tuple(part for file in chosen for part in (file.name, file.stem, file.stem[:12]))
    shared, replaceable = False, target in _REPLACEABLE
    if target == "newest-checkpoint-blob":
        shared = damage.is_in_all_checkpoints(session.run_folder / "store", session.workload, chosen[0])
        replaceable = not damage.is_in_an_input(session.run_folder, session.workload, chosen[0])
    intervals = None if target == "all-pointers" or shared else 2
    rerun = target in ("earlier-result", "run-record") or target.startswith(("input", "output", "stage-result"))
    return Injection(persists=True, names=names, intervals=intervals, may_rerun=rerun, replaceable=replaceable)


_REFUSALS = tuple(f"status-{status}" for status in (400, 401, 404, 413, 422))
_REPLACEABLE = (
    "newest-checkpoint-blob", "newest-checkpoint-manifest", "newest-pointer", "older-pointer", "all-pointers",
    "stage-progress", "local-progress", "newest-claim", "newest-heartbeat",
    "cached-input", "cached-checkpoint",
)  # fmt: skip
"""Targets of damage that can be made again, or in whose place older ones can be used."""


def _inject_disk(session: Session) -> Injection | None:
    return _left_over(session) if session.fault.kind == "left-over" else _inject_damage(session)


def _left_over(session: Session) -> Injection | None:
    parameters, stage = session.fault.parameters, session.workload.stage
    session.use_state("partial")
    work, key = session.run_folder / "stages" / stage, session.reference.key
    inputs = sorted(path for path in (work / "in-0").glob("*") if path.is_dir())
    resumed = sorted((work / "resume-0").glob("*"))
    folder = {
        "out": work / f"out-{key[:12]}" / "model",
        "in": inputs[0] if inputs else None,
        "resume": resumed[0] if resumed else None,
        "store-scratch": session.run_folder / "store" / ".tmp",
        "checkpoints": work / f"out-{key[:12]}" / "model" / "checkpoints",
    }[parameters["folder"]]
    if folder is None:
        return None
    file = folder / parameters["name"]
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        return None
    file.write_bytes(b'{"left": "by a killed attempt"}')
    session.described = f"left-over file {file.relative_to(session.run_folder)}"
    return Injection(persists=True)


def _inject_signals(session: Session) -> Injection | None:
    sender = _Sender(session)
    session.use_state("before")
    session.described = f"{session.fault.kind} {dict(session.fault.parameters)}"
    session.extra_seconds = 60.0
    return Injection(during=sender, met=lambda: sender.sent > 0, stopped_by=lambda: sender.stopped_by)


class _Sender:
    """Sends the signals of a fault to a process of the run at their moments."""

    def __init__(self, session: Session) -> None:
        self._session, self._parameters = session, session.fault.parameters
        self._signal = getattr(signal, session.fault.kind)
        self._due: float | None = None
        self._resume: tuple[float, int] | None = None
        self._hit: set[int] = set()
        self.sent = 0
        self.stopped_by = ""

    def __call__(self, _command: int) -> None:

        now = time.monotonic()
        if self._resume is not None:
            if now >= self._resume[0]:
                _send(self._resume[1], signal.SIGCONT)
                self._resume = None
            return
        if self.sent >= self._parameters["times"]:
            return
        roles = self._session.processes.roles(self._session.workload.stage)
        role = roles.get(self._parameters["role"])
        if role is None or role.pid in self._hit or not self._begun(role.started):
            return
        if self._due is None:
            self._due = now + 0.7 * self._parameters["at"] * self._session.reference.seconds
        if now < self._due:
            return
        self._due = None
        self._hit.add(role.pid)
        if not _send(role.pid, self._signal):
            return
        self.sent += 1
        if self._signal == signal.SIGSTOP:
            self._resume = (now + self._parameters["seconds"], role.pid)
        elif role.name == "command":
            self.stopped_by = self._session.fault.kind

    def _begun(self, _started: float) -> bool:
        count = self._parameters.get("after_checkpoint", 0)
        return len(pointers(self._session.run_folder / "store", self._session.workload.stage)) >= count


def _send(pid: int, number: signal.Signals) -> bool:

    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


_INJECTORS: dict[str, Callable[[Session], Injection | None]] = {
    "s3": _inject_s3,
    "disk": _inject_disk,
    "state": _inject_damage,
    "signals": _inject_signals,
    "reward": _inject_reward,
}
