"""The life of a stage process: launch the ranks, run the body, commit the outputs, end with an exit code that means something."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from editr1.artifacts import open_store
from editr1.config.loader import ConfigError
from editr1.errors import ExitCode, exit_code_of
from editr1.launch.local.processes import end_with_parent
from editr1.parallel.context import DistributedContext
from editr1.runs.job import PARENT_VARIABLE, StageJob, read_job
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.record import StageResult, load_result, result_key
from editr1.runs.resolve import resolve_job
from editr1.stages.runtime.context import StageContext
from editr1.telemetry import Interrupted, Span, configure, flush, span
from editr1.telemetry.log import configure_logging

Body = Callable[[StageContext], dict[str, float]]

log = logging.getLogger("editr1.stage")


def main(body: Body, module: str) -> None:
    """Run a stage from ``EDITR1_CONFIG`` and exit the process.

    A kind that may train on several ranks is started once more by torchrun's own launcher (``PET_*`` environment), as a
    PyTorchJob pod is; torchrun loses its ranks' exit codes, so the first failed rank's code is passed on here.
    """
    configure_logging()
    end_with_parent()
    try:
        job = read_job()
    except ConfigError as error:
        _log_lines(error)
        sys.exit(ExitCode.CONFIG)
    configure_logging(job.runtime.log_format)
    try:
        if KINDS[job.kind].distributed and "TORCHELASTIC_RUN_ID" not in os.environ:
            sys.exit(_torchrun(module))
        code = _run(body, job)
    except ModuleNotFoundError as error:
        code = exit_code(_not_installed(error, job.kind))
    if _leave_group():
        # The interpreter's own end can deadlock after DDP: gloo's process group is destroyed while the GIL is held, and
        # waits for its worker, which waits for the GIL (seen with torch 2.13 when a training is stopped half-way).
        flush()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _run(body: Body, job: StageJob) -> int:
    stop = _StopFlag()
    signal.signal(signal.SIGTERM, stop.set)
    if DistributedContext().is_local_main:
        # Ctrl-C reaches the whole foreground group; the launcher turns it into SIGTERM for this process.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        context = StageContext(resolve_job(job, open_store(job.store)), should_stop=stop)
    except Exception as error:
        return exit_code(error)
    job = context.job
    configure(f"editr1-{job.kind}", context.span_file, **{"editr1.run": job.run, "editr1.stage": job.stage})
    try:
        with span(Span.STAGE, kind=str(job.kind), stage=job.stage, run=job.run, rank=context.rank):
            service = KINDS[job.kind].service
            if not service and load_result(context.store, job.run, job.stage, job.key) is not None:
                log.info("stage %s already has its result; nothing to do", job.stage)
                return ExitCode.DONE
            metrics = body(context)
            if context.is_main and not service:
                context.keep_progress()
                result = StageResult(key=job.key, outputs=context.outputs, metrics=_finite(metrics))
                context.store.put_record(result_key(job.run, job.stage, job.key), result.model_dump_json().encode())
                log.info("stage %s is done: %s", job.stage, ", ".join(f"{k} {v}" for k, v in context.outputs.items()))
        return ExitCode.DONE
    except ModuleNotFoundError:
        raise
    except Interrupted:
        log.info("stopped on request; the next attempt continues from the last checkpoint")
        return ExitCode.TERMINATED
    except Exception as error:
        return exit_code(error)


def exit_code(error: Exception) -> int:
    """Log ``error`` and return the exit code that it ends the stage with; print the traceback of an unexpected error."""
    code = exit_code_of(error)
    if code is None:
        traceback.print_exc()
        return ExitCode.UNEXPECTED
    _log_lines(error)
    return code


def _not_installed(error: ModuleNotFoundError, kind: Kind) -> Exception:
    """What to install, where it is not the project's own module that is missing."""
    if (error.name or "").split(".")[0] == "editr1":
        return error
    extras = ",".join(KINDS[kind].extras)
    return ConfigError(f"package {error.name!r} is not installed; a {kind} stage needs: pip install 'editr1[{extras}]'")


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """Only what was measured: a mean over nothing is no figure, and JSON has no NaN."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _torchrun(module: str) -> int:
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, get_args_parser

    os.environ.setdefault("PET_SHUTDOWN_TIMEOUT", "300")
    # A PyTorchJob of one pod brings a master's address too; its ranks meet on the pod's loopback all the same.
    alone = os.environ.get("PET_NNODES", "1") in ("1", "1:1")
    # Shared, the store of the first rendezvous is told only to who took part in it: a node that replaces a lost one waits
    # for it until both time out (torch 2.13, DynamicRendezvousHandler.next_rendezvous).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    if alone:
        os.environ.update(PET_RDZV_BACKEND="c10d", PET_RDZV_ENDPOINT="127.0.0.1:0", PET_RDZV_ID=str(os.getpid()))
    config, command, arguments = config_from_args(get_args_parser().parse_args(["-m", module]))
    if alone:
        config.local_addr = "127.0.0.1"
    config.monitor_interval = 0.1
    if PARENT_VARIABLE in os.environ:
        os.environ[PARENT_VARIABLE] = str(os.getpid())  # a rank ends with this process, too
    try:
        elastic_launch(config, command)(*arguments)
    except ChildFailedError as error:
        _rank, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException:
        return ExitCode.TERMINATED
    except (DistError, RendezvousError) as error:
        log.error("the other nodes cannot be reached: %s", error)
        return ExitCode.TRANSIENT
    return ExitCode.DONE


def _leave_group() -> bool:
    """Leave the process group; whether there was one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    distributed.destroy_process_group()
    return True


def _log_lines(error: Exception) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        log.error("%s", line)


class _StopFlag:
    def __init__(self) -> None:
        self._stopped = False

    def set(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopped = True

    def __call__(self) -> bool:
        return self._stopped
