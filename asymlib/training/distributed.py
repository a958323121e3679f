"""One training run in many processes: what `accelerate` does for the loop, and what it has to be told.

A batch is that of all processes together, so that the same settings give the same run however it is launched. Each
process takes its share of it, in `accumulate` parts.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from asymlib.training.settings import TrainingSettings


def make_accelerator(settings: TrainingSettings, cpu: bool = False) -> Accelerator:
    """The processes, the device and the precision of a run, as `accelerate launch` set them up.

    Args:
        settings: For the precision.
        cpu: Stay on the CPU, also where there is a GPU.
    """
    # Buffers are not broadcast in a forward pass: the discriminator has two before one backward, and the second
    # broadcast would overwrite what the first pass kept for it. `average_buffers` does it after the step.
    kept = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(cpu=cpu, mixed_precision=settings.mixed_precision, kwargs_handlers=[kept])


def require_divisible(settings: TrainingSettings, accelerator: Accelerator) -> None:
    """Refuse a batch that does not go evenly into processes and accumulated parts.

    Raises:
        ValueError: `settings.batch` is not a multiple of processes x `settings.accumulate`.
    """
    parts = accelerator.num_processes * settings.accumulate
    if settings.batch % parts:
        raise ValueError(
            f"batch: got {settings.batch} for {accelerator.num_processes} processes x {settings.accumulate} "
            f"accumulated parts, expected a multiple of {parts}"
        )


def require_same_start(start: int, accelerator: Accelerator) -> None:
    """Refuse to train where the processes continue at different steps.

    Raises:
        ValueError: A process did not find the resume state that another one found.
    """
    starts = sorted(set(accelerator.gather(torch.tensor([start], device=accelerator.device)).tolist()))
    if len(starts) > 1:
        raise ValueError(
            f"resume_path: got a state of step {starts} on the machines, expected one file that all can read"
        )


def synchronised(accelerator: Accelerator, model: nn.Module, last: bool) -> AbstractContextManager:
    """Gradients are averaged over the processes in the backward pass of the last accumulated part only."""
    return nullcontext() if last else accelerator.no_sync(model)


@torch.no_grad()
def average_buffers(module: nn.Module, accelerator: Accelerator) -> None:
    """Make the running statistics of a BatchNorm the mean over the processes.

    While training, each process normalises with the statistics of its own share, as officially (BatchNorm is not
    synchronised there, and torch's SyncBatchNorm does not run on a CPU). The running ones are in nobody's way then,
    but have to be equal for the state to be one.
    """
    if accelerator.num_processes > 1:
        for buffer in module.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, "mean"))
