"""The processes that train together, one a GPU: started by ``torchrun`` (or anything that sets its variables), or one.

Batch size and results do not depend on their number, but for rounding: every process takes its share of each batch,
and the loss is that of the whole batch, because its correlation matrix is summed over all of them.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from wsi_lmc.encoder import resolve_device
from wsi_lmc.errors import UsageError


@dataclass(frozen=True)
class Group:
    """This process among those that train together: ``rank`` of ``count``, on its ``device``."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and evaluates."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Which of a batch's tiles are this process's."""
        return slice(self.rank, batch, self.count)

    def total(self, values: Tensor) -> Tensor:
        """Sum over all processes, on each of them; gradients flow back to all of them."""
        return values if self.count == 1 else _Sum.apply(values)

    def agree_on(self, model: nn.Module) -> None:
        """Give every process the first one's weights: those of one seed need not be the same on other machines."""
        if self.count > 1:
            for weight in model.state_dict().values():
                dist.broadcast(weight, 0)

    def average(self, gradient: Tensor) -> None:
        """Put the mean over all processes in place of each one's ``gradient``."""
        if self.count > 1:
            dist.all_reduce(gradient)
            gradient /= self.count

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


ALONE = Group(0, 1, torch.device("cpu"))


@contextmanager
def joined(device: str, batch: int) -> Iterator[Group]:
    """This process's place in the group that ``torchrun`` started, if it did.

    What was made with the group (models it wrapped, their losses) must be let go of before it is left: gloo's threads
    live as long as anything refers to them, and one that is still there when the interpreter ends aborts the process.

    Args:
        device: as in the configuration; of several GPUs each process takes that of its local rank.
        batch: tiles per step, of all processes together.

    Raises:
        UsageError: no such device, or the batch cannot be shared evenly.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Group(0, 1, resolve_device(device))
        return
    if batch % count or batch // count < 1:
        raise UsageError(f"a batch of {batch} for {count} processes", f"a multiple of {count}", "Change batch.")
    kind = resolve_device(device)
    if kind.type == "cuda":
        kind = resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
        torch.cuda.set_device(kind)
    dist.init_process_group("nccl" if kind.type == "cuda" else "gloo")
    try:
        yield Group(dist.get_rank(), count, kind)
    finally:
        gc.collect()  # wrapped models refer to themselves
        dist.destroy_process_group()


class _Sum(torch.autograd.Function):
    """All-reduce whose gradient is all-reduced, too: each process's loss is the whole loss, so each has all of it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ANN401, ARG004  torch's own signature
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return summed
