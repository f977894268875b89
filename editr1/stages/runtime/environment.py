"""Make the numbers that a stage computes independent of the environment variables and the CPU cores of its machine.

The key of a stage names its settings and inputs. What else changes a result would give different artifacts under one key.
"""

from __future__ import annotations

import logging
import os
from typing import Final

log = logging.getLogger("editr1.stage")

_PREFIXES: Final = ("ACCELERATE_", "FSDP_", "DEEPSPEED_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "DNNL_", "ONEDNN_")
_NAMES: Final = (
    "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_DEBUG_CPU_TYPE", "MKL_ENABLE_INSTRUCTIONS", "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "USE_HUB_KERNELS",
)  # fmt: skip


def remove_numeric_variables() -> None:
    """Remove the environment variables with which libraries change precision, parallelism or the order of sums.

    For example, transformers trains in bf16 if ``ACCELERATE_MIXED_PRECISION`` says so. A warning names the variables. Call
    this before torch is imported and before other processes of the stage are started.
    """
    found = sorted(name for name in os.environ if name.startswith(_PREFIXES) or name in _NAMES)
    for name in found:
        del os.environ[name]
    if found:
        log.warning(
            "these environment variables are ignored, because only the settings of a stage may change its results: %s",
            ", ".join(found),
        )


def use_one_thread_on_cpu() -> None:
    """Let torch compute with one thread per process if the machine has no accelerator.

    Sums are split among the threads, so that results would depend on ``OMP_NUM_THREADS`` and on the number of CPU cores.
    """
    import torch

    if not torch.accelerator.is_available():
        torch.set_num_threads(1)
