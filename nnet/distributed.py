"""One training run in several processes, on one node or more, as torchrun starts them (RANK, WORLD_SIZE, ...).

The configured batch is that of all processes together: each computes its share of it, gradients are averaged, and
batch normalisation takes its statistics over all of it. So N processes take the same steps as one, but for rounding
and for dropout, whose masks differ. Learning rate and schedule mean the same with any number of processes.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from utils.errors import InputError


@dataclass(frozen=True)
class Group:
    """The processes of a run: this one's number, and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that validates and writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return the rows of a batch of `count` that this process computes; raises InputError when they are uneven."""
        if count % self.size:
            raise InputError(f"train: batch_size is {count}, which {self.size} processes cannot share evenly; use a "
                             "multiple")
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def average_gradients(self, parameters: list[nn.Parameter], stop: bool) -> bool:
        """Average the gradients of all processes; return whether any process asks to stop."""
        if self.size == 1:
            return stop
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.flatten() for g in gradients), gradients[0].new_tensor([float(stop)])])
        dist.all_reduce(flat)
        place = 0
        for gradient in gradients:
            gradient.copy_(flat[place:place + gradient.numel()].view_as(gradient))
            gradient.div_(self.size)
            place += gradient.numel()
        return bool(flat[-1] > 0)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, value: float, device: torch.device) -> float:
        """Return the first process's value."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=device)
        dist.broadcast(shared, 0)
        return shared.item()


def join(device: torch.device) -> Group:
    """Join the processes that torchrun started; alone when it did not. gloo on a CPU, NCCL on GPUs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    dist.init_process_group("gloo" if device.type == "cpu" else "nccl")
    return Group(dist.get_rank(), size)


def local_device(device: torch.device) -> torch.device:
    """Return the GPU of this process among those of its node, where `device` is a GPU without a number."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation whose statistics are those of all processes' shares, of equal size, together."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Any B x C x ... will do."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        others = [axis for axis in range(x.ndim) if axis != 1]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        values = x.float()
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean = all_reduce(values.sum(others)) / count
        centred = values - mean.view(shape)
        variance = all_reduce(centred.square().sum(others)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        normal = centred * scale.view(shape)
        return (normal if not self.affine else normal + self.bias.view(shape)).to(x.dtype)


def share_batch_norm(module: nn.Module) -> None:
    """Turn every batch normalisation inside a module into a GlobalBatchNorm with the same parameters."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.__class__ = GlobalBatchNorm
