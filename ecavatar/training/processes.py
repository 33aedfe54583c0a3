"""What several processes of one training tell each other; with one process, each answer is its own.

torchrun starts the processes and `ecavatar.training.loop.train` joins them (gloo on CPUs, nccl on GPUs). Gradients are
summed here and not by DistributedDataParallel: a process that has nothing left of an epoch's last step, or that does
not use a parameter, then needs no special case. Sums start when the backward pass is over, so sending does not
overlap with it: slower where the network between the machines is slow.
"""

from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import distributed, nn

Value = TypeVar("Value")


def process_count() -> int:
    """Processes that train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def process_rank() -> int:
    """This process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def is_main_process() -> bool:
    """Whether this process is the one that validates and writes files."""
    return process_rank() == 0


def gathered(value: Value) -> list[Value]:
    """Every process's `value`, in the order of their numbers; all processes must call it."""
    if process_count() == 1:
        return [value]
    values: list[Value | None] = [None] * process_count()
    distributed.all_gather_object(values, value)
    return cast(list[Value], values)


def of_main_process(value: Value) -> Value:
    """The main process's `value`; all processes must call it."""
    if process_count() == 1:
        return value
    values: list[Value] = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace every gradient by its sum over all processes.

    A parameter without a gradient in every process keeps none, as in a single process: Adam then skips it.
    """
    if process_count() == 1:
        return
    used = zip(*gathered([parameter.grad is not None for parameter in parameters]), strict=True)
    shared = [parameter for parameter, flags in zip(parameters, used, strict=True) if any(flags)]
    if not shared:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in shared]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    pieces = flat.split([gradient.numel() for gradient in gradients])
    for parameter, gradient, piece in zip(shared, gradients, pieces, strict=True):
        parameter.grad = gradient.copy_(piece.view_as(gradient))
