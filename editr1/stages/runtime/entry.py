"""Entry point of a stage process: start its ranks, run the stage's code, record the result, and set the exit code."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from editr1.artifacts.weights import UnusableModel
from editr1.config.loader import ConfigError
from editr1.errors import Editr1Error, ExitCode, exit_code_of, is_disk_full
from editr1.launch.local.processes import end_with_parent
from editr1.parallel.context import DistributedContext
from editr1.parallel.heartbeat import start_heartbeat
from editr1.runs.job import CONFIG_VARIABLE, StageJob, read_job
from editr1.runs.kinds import KINDS, Kind
from editr1.runs.partial import count_invocations
from editr1.runs.record import StageResult, load_complete_result, save_result
from editr1.runs.resolve import resolve_job
from editr1.stages.runtime.context import StageContext
from editr1.stages.runtime.environment import remove_numeric_variables, use_one_thread_on_cpu
from editr1.stages.runtime.publisher import open_stage_store, write_earlier_checkpoints
from editr1.stages.runtime.torchrun import launch_ranks
from editr1.telemetry import Interrupted, Span, configure, flush, span
from editr1.telemetry.log import configure_logging

Body = Callable[[StageContext], dict[str, float]]

log = logging.getLogger("editr1.stage")


def main(body: Body, module: str) -> None:
    """Run the stage that the job file ``EDITR1_CONFIG`` describes, and exit the process.

    ``body`` is the code of the stage, which commits the outputs and returns the metrics. If the stage is distributed,
    the first process only starts ``module`` on every rank (see :func:`launch_ranks`). This is the same on one machine
    and in the pods of a PyTorchJob.
    """
    configure_logging()
    start_heartbeat()
    try:
        end_with_parent()
        job = read_job()
        _check_kind(job, module)
    except ConfigError as error:
        _log_lines(error)
        sys.exit(error.exit_code)
    configure_logging(job.runtime.log_format)
    remove_numeric_variables()
    try:
        if KINDS[job.kind].distributed and "TORCHELASTIC_RUN_ID" not in os.environ:
            stop = _stop_flag()
            write_earlier_checkpoints(job, stop)
            # From here on, SIGTERM ends this process until torchrun's launcher, which passes it on to the ranks, has replaced the
            # handler. The flag would lose a signal that arrives while torch is imported.
            signal.signal(signal.SIGTERM, _exit)
            if stop():
                sys.exit(ExitCode.TERMINATED)
            sys.exit(launch_ranks(module, job))
        code = _run(body, job)
    except ModuleNotFoundError as error:
        code = exit_code(_not_installed(error, job.kind))
    except Editr1Error as error:  # the checkpoints of an earlier attempt could not be written
        code = exit_code(error)
    if _destroy_process_group():
        # The interpreter's shutdown can deadlock after DDP: gloo's process group is destroyed while the GIL is held, and
        # waits for its worker, which waits for the GIL (seen with torch 2.13 when training is stopped early).
        flush()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _check_kind(job: StageJob, module: str) -> None:
    """Raise ConfigError if the job file is that of a stage of another kind, whose result may exist already."""
    if module != f"editr1.stages.{job.kind}":
        raise ConfigError(
            f"job file: it belongs to stage {job.stage} of kind {job.kind}, but this process runs {module}; set {CONFIG_VARIABLE} to the"
            " path of the job file of this stage"
        )


def _run(body: Body, job: StageJob) -> int:
    stop = _stop_flag()
    if DistributedContext().is_local_main:
        # Ctrl-C sends SIGINT to the whole foreground process group. It is ignored here, because the launcher sends
        # SIGTERM to this process.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        context = StageContext(resolve_job(job, open_stage_store(job, stop)), should_stop=stop)
    except Exception as error:
        return exit_code(error)
    job = context.job
    configure(f"editr1-{job.kind}", context.span_file, **{"editr1.run": job.run, "editr1.stage": job.stage})
    try:
        with span(Span.STAGE, kind=str(job.kind), stage=job.stage, run=job.run, rank=context.rank):
            service = KINDS[job.kind].service
            if not service and load_complete_result(context.store, job.run, job.stage, job.key) is not None:
                log.info("stage %s is already complete", job.stage)
                return ExitCode.DONE
            if job.kind is not Kind.CURATE:  # curation computes nothing with torch, which may not be installed
                use_one_thread_on_cpu()
            metrics = body(context)
            if context.is_main and not service:
                context.save_progress()
                missing = count_invocations(context.store, job.run, job.stage, job.key, context.missing)
                result = StageResult(key=job.key, outputs=context.outputs, metrics=_finite(metrics), missing=missing)
                save_result(context.store, job.run, job.stage, result)
                context.publisher.done()
                log.info("stage %s is done: %s", job.stage, ", ".join(f"{k} {v}" for k, v in context.outputs.items()))
                if result.missing:
                    log.warning("%s", result.missing.sentence(job.stage, job.run))
        return ExitCode.DONE
    except ModuleNotFoundError:
        raise
    except Interrupted:
        context.publisher.stop()
        if context.publisher.failure is not None:
            return exit_code(context.publisher.failure)
        log.info("stopped on request; the next attempt continues from the last checkpoint")
        return ExitCode.TERMINATED
    except UnusableModel as error:
        return exit_code(context.name_input(error))
    except Exception as error:
        return exit_code(error)


def exit_code(error: Exception) -> int:
    """Log ``error`` and return the stage's exit code for it. Print the traceback if the error is unexpected."""
    code = exit_code_of(error)
    if code is None:
        traceback.print_exc()
        return ExitCode.UNEXPECTED
    _log_lines(error)
    if is_disk_full(error):
        log.error(
            "a disk is full, or a quota is exceeded; free some space for the stage's files in %s, and start "
            "the stage again",
            _folder(),
        )
    return code


def _folder() -> str:
    """Return the working folder of the stage, for error messages."""
    try:
        return str(read_job().workdir)
    except ConfigError:
        return "its working folder"


def _not_installed(error: ModuleNotFoundError, kind: Kind) -> Exception:
    """Return a ConfigError with the install command if ``error`` reports a missing third-party package.

    If a module of this project is missing, return ``error`` unchanged.
    """
    if (error.name or "").split(".")[0] == "editr1":
        return error
    extras = ",".join(KINDS[kind].extras)
    return ConfigError(f"package {error.name!r} is not installed; a {kind} stage needs: pip install 'editr1[{extras}]'")


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """Return the metrics that are finite.

    Other values, such as NaN for the mean of an empty set, cannot be written as JSON.
    """
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _destroy_process_group() -> bool:
    """Destroy torch's default process group. Return False if there is none."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return False
    distributed.destroy_process_group()
    return True


def _log_lines(error: Exception) -> None:
    for line in str(error).splitlines() or [type(error).__name__]:
        log.error("%s", line)


def _exit(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(ExitCode.TERMINATED)


def _stop_flag() -> _StopFlag:
    """Return a flag that SIGTERM sets."""
    flag = _StopFlag()
    signal.signal(signal.SIGTERM, flag.set)
    return flag


class _StopFlag:
    def __init__(self) -> None:
        self._stopped = False

    def set(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopped = True

    def __call__(self) -> bool:
        return self._stopped
