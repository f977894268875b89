"""Start the ranks of a distributed stage with torchrun's launcher, on one or several nodes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from editr1.errors import ExitCode, failure_code
from editr1.parallel.heartbeat import FOLDER_VARIABLE
from editr1.runs.job import PARENT_VARIABLE, StageJob
from editr1.stages.runtime.rank_watch import RankWatch

log = logging.getLogger("editr1.stage")


def launch_ranks(module: str, job: StageJob) -> int:
    """Run ``module`` on every rank until all have exited, and return the exit code.

    Environment variables ``PET_*`` configure torchrun. If ranks fail, the exit code is that of the first failed rank.
    The command ``torchrun`` is not used, because it does not return this exit code. A rank that writes no heartbeat
    for ``heartbeat_timeout_seconds`` is killed, so that the exit code is 137.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, get_args_parser

    os.environ.setdefault("PET_SHUTDOWN_TIMEOUT", "300")
    # By default, torchrun creates a folder in /tmp, which a stage that is killed leaves behind.
    os.environ.setdefault("PET_LOG_DIR", str(job.workdir / "logs"))
    # Do not reuse the TCP store of the first rendezvous: a node that replaces a lost node does not know this store,
    # and the nodes would wait for each other until they time out (torch 2.13,
    # DynamicRendezvousHandler.next_rendezvous).
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    single_node = os.environ.get("PET_NNODES", "1") in ("1", "1:1")
    if single_node:
        # A PyTorchJob with one pod also sets a master address. Its ranks use the loopback interface instead.
        os.environ.update(PET_RDZV_BACKEND="c10d", PET_RDZV_ENDPOINT="127.0.0.1:0", PET_RDZV_ID=str(os.getpid()))
    config, command, arguments = config_from_args(get_args_parser().parse_args(["-m", module]))
    if single_node:
        config.local_addr = "127.0.0.1"
    config.monitor_interval = 0.1
    if PARENT_VARIABLE in os.environ:
        os.environ[PARENT_VARIABLE] = str(os.getpid())  # The ranks end when this process ends.
    watch = _watch_ranks(job)
    try:
        elastic_launch(config, command)(*arguments)
    except ChildFailedError as error:
        _rank, failure = error.get_first_failure()
        for silence in watch.killed:  # the last error in the log becomes the reason of the attempt's failure
            log.error("%s", silence)
        return failure_code(failure.exitcode)
    except SignalException:
        return ExitCode.TERMINATED
    except (DistError, RendezvousError) as error:
        log.error("the other nodes of the stage cannot be reached: %s", error)
        return ExitCode.TRANSIENT
    finally:
        watch.stop()
    return ExitCode.DONE


def _watch_ranks(job: StageJob) -> RankWatch:
    folder = Path(os.environ.setdefault(FOLDER_VARIABLE, str(job.workdir / "heartbeats")))
    folder.mkdir(parents=True, exist_ok=True)
    watch = RankWatch(folder, job.runtime.heartbeat_timeout_seconds, job.note_file)
    watch.start()
    return watch
