"""Run a campaign: prepare the states, and inject faults in several worker processes until enough have been met."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tests.faults.catalogue import Fault, faults
from tests.faults.classify import BAD, Outcome, classify
from tests.faults.preload import Template, preload
from tests.faults.prepare import prepare
from tests.faults.relay import Relay
from tests.faults.reward import RewardProxy, serve_hashes
from tests.faults.runner import Bench, observe
from tests.faults.s3_server import BUCKET, S3Access
from tests.faults.table import read_results
from tests.faults.workloads import WORKLOADS, needed

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


@dataclass(frozen=True)
class Plan:
    """What a campaign does. With ``only``, it injects these faults, whether they have a result already or not."""

    out: Path
    count: int
    seed: int
    areas: tuple[str, ...]
    jobs: int = 2
    only: tuple[Fault, ...] = ()


def run_campaign(plan: Plan, s3: S3Access | None) -> None:
    """Inject the faults of ``plan``. The results are appended to ``results.jsonl`` in its folder.

    ``s3`` is a running server with credentials, which the area s3 needs. This process must not have threads.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    if s3 is not None:
        os.environ.update(s3.keys())
        if not s3.client().bucket_exists(BUCKET):
            s3.client().make_bucket(BUCKET)
    preload()
    wanted = plan.only or tuple(islice(faults(plan.seed, plan.areas), 3 * plan.count))
    names = needed([fault.workload for fault in wanted] if plan.only else list(WORKLOADS))
    with _reward_server() as reward_url:
        base = plan.out / "base"
        base.mkdir(exist_ok=True)
        interrupted = {fault.workload for fault in wanted if fault.parameters.get("state") == "partial"}
        if _forked(lambda: _prepare(base, names, interrupted, reward_url)) != 0:
            sys.exit("an undisturbed run failed; see above")
        workers = [_fork(lambda: _work(plan, wanted, base, s3, reward_url)) for _ in range(plan.jobs)]
        _follow(plan, workers)


def _prepare(base: Path, names: Sequence[str], interrupted: Collection[str], reward_url: str) -> None:
    template = Template()
    prepare(template, base, names, interrupted, RewardProxy(reward_url).url)


def _work(plan: Plan, wanted: Sequence[Fault], base: Path, s3: S3Access | None, reward_url: str) -> None:
    template = Template()
    access = s3 or S3Access("127.0.0.1:1", "", "")
    bench = Bench(template, base, Relay(access.endpoint), RewardProxy(reward_url), access)
    while (fault := _next(plan, wanted)) is not None:
        result = inject(bench, fault, plan.out)
        with (plan.out / "results.jsonl").open("ab") as file:
            file.write(json.dumps(result).encode() + b"\n")


def inject(bench: Bench, fault: Fault, out: Path) -> dict[str, object]:
    """Inject one fault, and return its result. Its folder is kept only if the outcome is bad."""
    began, folder = time.monotonic(), out / "faults" / fault.id
    try:
        evidence, injected = observe(bench, fault, folder)
    except Exception:
        traceback.print_exc()
        return {**_fields(fault), "outcome": "harness error", "reason": traceback.format_exc(limit=-2), "injected": ""}
    verdict = classify(evidence)
    if verdict.outcome not in BAD:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        **_fields(fault),
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "injected": injected,
        "codes": [attempt.code for attempt in evidence.attempts],
        "lost_steps": evidence.lost_steps,
        "seconds": round(time.monotonic() - began, 1),
    }


def _fields(fault: Fault) -> dict[str, object]:
    return {"id": fault.id, "area": fault.area, "workload": fault.workload, "kind": fault.kind}


def _next(plan: Plan, wanted: Sequence[Fault]) -> Fault | None:
    """Return the next fault for this worker, or None if enough faults have been met."""
    with (plan.out / "next").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        taken = set(file.read().split())
        results = {} if plan.only else {r["id"]: r for r in read_results(plan.out / "results.jsonl")}
        met = sum(result["outcome"] != Outcome.NOT_MET for result in results.values())
        running = len(taken - results.keys())
        if not plan.only and met + running >= plan.count:
            return None
        fault = next((fault for fault in wanted if fault.id not in taken and fault.id not in results), None)
        if fault is not None:
            file.write(f"{fault.id}\n")
        return fault


def _follow(plan: Plan, workers: list[int]) -> None:
    """Print a progress line until all workers have ended."""
    began, before = time.monotonic(), len(read_results(plan.out / "results.jsonl"))
    while workers:
        for pid in list(workers):
            if os.waitpid(pid, os.WNOHANG)[0]:
                workers.remove(pid)
        results = read_results(plan.out / "results.jsonl")
        met = [result for result in results if result["outcome"] != Outcome.NOT_MET]
        wrong = sum(result["outcome"] in list(BAD) for result in results)
        pace = (time.monotonic() - began) / max(1, len(results) - before)
        line = f"{len(met)} of {plan.count} faults, {wrong} bad, {pace:.1f} s per fault"
        print(
            f"\r{line}" if sys.stderr.isatty() else line,
            end="" if sys.stderr.isatty() else "\n",
            file=sys.stderr,
            flush=True,
        )
        for _ in range(2 if sys.stderr.isatty() else 20):
            if not workers:
                break
            time.sleep(1)
            workers = [pid for pid in workers if not _ended(pid)]


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _fork(work: Callable[[], None]) -> int:
    """Run ``work`` in a fork of this process, and return its process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return pid


def _forked(work: Callable[[], None]) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(_fork(work), 0)[1])


@contextmanager
def _reward_server() -> Iterator[str]:
    """Run the reward server whose scores are hashes in a fork of this process, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    pid = _fork(lambda: serve_hashes(port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
