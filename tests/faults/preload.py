"""Start processes of editr1 by forking a process that has already imported everything they need.

A stage process spends most of a small run's time on imports. A fork has them already, so that a campaign can afford a thousand
faults. Everything after the imports is the real thing: a process of its own with its own environment, signals, exit code, and
descendants.

Forks are made by a *template*, a child process without threads. The new process becomes a child of the process that asked for it
(which is a "child subreaper", see prctl(2)), so that ``getppid``, ``waitpid`` and parent-death signals behave as after an exec.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import fcntl
import functools
import gc
import importlib
import inspect
import json
import os
import pickle
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REGISTRY = "EDITR1_FAULTS_REGISTRY"
"""Environment variable with the folder into which each process writes the file ``<process id>`` with its role."""

_PRELOADED = (
    "torch", "torch.distributed.run", "torch.distributed.elastic.agent.server.local_elastic_agent",
    "torch.distributed.launcher.api", "torch.distributed.checkpoint.state_dict", "torch.nn.parallel",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl", "transformers.models.clip.modeling_clip",
    "diffusers", "diffusers.pipelines.flux.pipeline_flux_kontext", "peft", "trl", "datasets", "pandas",
    "pyarrow.parquet", "minio", "httpx", "starlette.applications", "uvicorn", "scipy.stats", "rich.progress", "jinja2",
    "editr1.cli.main", "editr1.cli.view", "editr1.launch.execute", "editr1.launch.kubernetes.connect",
    "editr1.runs.report", "editr1.stages.runtime.entry", "editr1.artifacts.s3",
)  # fmt: skip
_PACKAGES = ("editr1.verifier", "editr1.editor", "editr1.serving", "editr1.curation", "editr1.evaluation",
             "editr1.data", "editr1.shapes", "editr1.parallel", "editr1.runs", "editr1.cli", "editr1.llm")  # fmt: skip
_NOT_IMPORTED = ("labeller_server", "editr1.curation.annotate")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def preload() -> None:
    """Import everything that the processes of a run need, and make ``subprocess`` start modules of editr1 by forking."""
    import pkgutil

    warnings.simplefilter("ignore")
    for name in _PRELOADED:
        _try_import(name)
    for package in _PACKAGES:
        found = _try_import(package)
        for module in pkgutil.walk_packages(getattr(found, "__path__", ()), f"{package}."):
            if not any(part in module.name for part in _NOT_IMPORTED) and not module.name.endswith("__main__"):
                _try_import(module.name)
    _keep_git_answers()
    subprocess.Popen._execute_child = _execute_child  # type: ignore[attr-defined]
    gc.collect()
    gc.freeze()


def _keep_git_answers() -> None:
    """Ask git once. A commit during a campaign would change the revision in manifests, and with it their digests."""
    from editr1.launch import checkout

    checkout._git = functools.cache(checkout._git)  # type: ignore[attr-defined]
    checkout.git_revision()


def _try_import(name: str) -> object | None:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit):
        return None  # an optional package; a process that needs it imports it itself


JOB_DAMAGE = "EDITR1_FAULTS_JOB_DAMAGE"
"""Environment variable with the damage (JSON: kind, seed, stage) of a job file, which is done once before its stage is started."""
COMMAND = "editr1.cli.main"
"""Module of the command line."""


@dataclass(frozen=True)
class _Request:
    module: str
    arguments: list[str]
    environment: dict[str, str]
    targets: list[int]
    session: bool
    folder: str


class Template:
    """A child process without threads, from which the processes that this process starts are forked."""

    def __init__(self) -> None:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._socket.close()
                _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                os.setsid()
                _serve(theirs)
            finally:
                os._exit(0)
        theirs.close()

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        files: Mapping[int, int],
        *,
        session: bool = False,
        folder: str | None = None,
    ) -> int:
        """Start ``python -m module``, and return its process id. ``files`` maps its file descriptors to those of this process."""
        order = [*files.values()]
        request = _Request(module, [*arguments], {**environment}, [*files.keys()], session, folder or os.getcwd())
        note = Path(tempfile.gettempdir()) / f".faults-request-{os.getpid()}-{threading.get_ident()}"
        note.write_bytes(pickle.dumps(request))  # a packet is limited in size
        with self._lock:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", order))]
            self._socket.sendmsg([str(note).encode()], rights)
            answer = self._socket.recv(64)
        if not answer:
            raise OSError("the template process has ended")
        return int(answer)


def _serve(requests: socket.socket) -> None:
    """Fork a process for each request, until the other end of the socket is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        note, rights, _, _ = requests.recvmsg(4096, socket.CMSG_SPACE(64 * 4))
        if not note:
            return
        received = array.array("i")
        for _level, _kind, data in rights:
            received.frombytes(data[: len(data) - len(data) % received.itemsize])
        path = Path(note.decode())
        request: _Request = pickle.loads(path.read_bytes())
        path.unlink()
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            parent = os.getpid()
            child = os.fork()
            if child:
                os._exit(0)
            while os.getppid() == parent:  # until the process that asked has become the parent
                time.sleep(0.0005)
            os.write(writer, str(os.getpid()).encode())
            for number in (reader, writer):
                os.close(number)
            requests.close()
            _become(request, list(received))
        os.close(writer)
        os.waitpid(middle, 0)
        pid = os.read(reader, 32)
        for number in (reader, *received):
            os.close(number)
        requests.send(pid)


def _become(request: _Request, received: list[int]) -> None:
    """Turn this fork into a fresh ``python -m module``, run it, and exit."""
    code = 1
    try:
        if request.session:
            os.setsid()
        _arrange(dict(zip(request.targets, received, strict=True)))
        os.chdir(request.folder)
        os.environ.clear()
        os.environ.update(request.environment)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = [request.module, *request.arguments]
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        _reseed()
        _register(request)
        global _template
        _template = Template() if _starts_others(request) else None
        code = _run(request.module)
    except BaseException:
        traceback.print_exc()
    finally:
        _exit(code)


def _run(module: str) -> int:
    try:
        if module == COMMAND:
            importlib.import_module("editr1.cli.main").main()
        else:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _exit(code: int) -> None:
    """Exit as an interpreter does: wait for threads, run exit functions, and write what is buffered."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


def _arrange(files: dict[int, int]) -> None:
    """Move the received descriptors to their numbers. First move them away from each other's numbers."""
    high = {target: fcntl.fcntl(number, fcntl.F_DUPFD, 200) for target, number in files.items()}
    for number in files.values():
        os.close(number)
    for target, number in high.items():
        os.dup2(number, target, inheritable=True)
        os.close(number)


def _starts_others(request: _Request) -> bool:
    several = request.environment.get("PET_NPROC_PER_NODE", "1") != "1" or "launch" in request.module
    return request.module == COMMAND or "LOCAL_RANK" not in request.environment or several


def _register(request: _Request) -> None:
    folder = request.environment.get(REGISTRY)
    if folder:
        role = {"module": request.module, "rank": request.environment.get("LOCAL_RANK"), "started": time.time()}
        part = Path(folder) / f".{os.getpid()}"
        part.write_text(json.dumps(role))
        part.replace(Path(folder) / str(os.getpid()))


def _reseed() -> None:
    """Seed the global generators anew, as in a fresh process. Span ids are drawn from them."""
    import numpy as np

    random.seed()
    np.random.seed()


_template: Template | None = None


def _execute_child(self: subprocess.Popen[bytes], *values: object) -> None:
    """Replacement of a private method of ``subprocess.Popen``: start a module of editr1 by forking the template."""
    names = inspect.signature(_REAL).parameters
    given = dict(zip([*names][1:], values, strict=False))
    args = given["args"]
    words = [os.fspath(word) for word in args] if isinstance(args, list | tuple) else []  # type: ignore[call-overload]
    module = words[words.index("-m") + 1] if "-m" in words and words[0] == sys.executable else ""
    if _template is None or not module.startswith("editr1."):
        _REAL(self, *values)
        return
    ends = {0: given["p2cread"], 1: given["c2pwrite"], 2: given["errwrite"]}
    files = {number: end if end != -1 else number for number, end in ends.items()}  # type: ignore[misc]
    files |= {number: number for number in given["pass_fds"]}  # type: ignore[attr-defined]
    if JOB_DAMAGE in os.environ:
        _damage_job(module, given["env"])  # type: ignore[arg-type]
    self.pid = _template.start(
        module,
        words[words.index("-m") + 2 :],
        given["env"] if given["env"] is not None else dict(os.environ),  # type: ignore[arg-type]
        files,  # type: ignore[arg-type]
        session=bool(given["start_new_session"]),
        folder=given["cwd"],  # type: ignore[arg-type]
    )
    self._child_created = True  # type: ignore[attr-defined]
    stdin, stdout, stderr = (given[name] for name in ("p2cread", "c2pwrite", "errwrite"))
    parents = (given["p2cwrite"], given["c2pread"], given["errread"])
    devnull = getattr(self, "_devnull", None)
    for end, other in zip((stdin, stdout, stderr), parents, strict=True):
        if end != -1 and other != -1 and end != devnull:  # the child's end of a pipe
            os.close(end)  # type: ignore[arg-type]
    if devnull is not None:
        os.close(devnull)


def _damage_job(module: str, environment: Mapping[str, str] | None) -> None:
    from tests.faults.damage import apply

    wanted = json.loads(os.environ[JOB_DAMAGE])
    job = Path((environment or {}).get("EDITR1_CONFIG", ""))
    if module == f"editr1.stages.{wanted['stage']}" and job.is_file() and "LOCAL_RANK" not in (environment or {}):
        marker = job.parent / ".job-damaged"  # the next attempt reads the file that the launcher writes anew
        if not marker.exists():
            apply(wanted["kind"], job, random.Random(wanted["seed"]), job.parent)
            marker.touch()


_REAL = subprocess.Popen._execute_child  # type: ignore[attr-defined]


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")
