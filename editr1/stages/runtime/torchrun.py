"""Start the ranks of a distributed stage with torchrun's launcher, on one or several nodes."""

from __future__ import annotations

import logging
import os

from editr1.errors import ExitCode
from editr1.runs.job import PARENT_VARIABLE

log = logging.getLogger("editr1.stage")


def launch_ranks(module: str) -> int:
    """Run ``module`` on every rank until all have exited, and return the exit code.

    Environment variables ``PET_*`` configure torchrun. If ranks fail, the exit code is that of the rank that failed
    first. The command ``torchrun`` is not used, because it does not return this exit code.
    """
    from torch.distributed import DistError
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, get_args_parser

    os.environ.setdefault("PET_SHUTDOWN_TIMEOUT", "300")
    # Do not reuse the TCP store of the first rendezvous: a node that replaces a lost one does not know it, and both wait
    # until they time out (torch 2.13, DynamicRendezvousHandler.next_rendezvous).
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
        os.environ[PARENT_VARIABLE] = str(os.getpid())  # the ranks end when this process ends
    try:
        elastic_launch(config, command)(*arguments)
    except ChildFailedError as error:
        _rank, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode >= 0 else 128 - failure.exitcode
    except SignalException:
        return ExitCode.TERMINATED
    except (DistError, RendezvousError) as error:
        log.error("the other nodes of the stage cannot be reached: %s", error)
        return ExitCode.TRANSIENT
    return ExitCode.DONE
