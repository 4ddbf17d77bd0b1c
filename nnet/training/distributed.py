"""Several processes, one per device, as torchrun starts them; with one process, all this does nothing.

A run means the same with one process or eight: the configured batch is that of all processes together, each making
an equal share of its rows; gradients are averaged; batch norm takes its statistics over all rows; the learning
rate is as configured. The first process validates and writes.
"""

import os
import sys
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from utils.device import find_device
from utils.errors import InputError


@dataclass(frozen=True)
class Processes:
    """The rank of this process, and the number of processes."""

    rank: int = 0
    count: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process validates and writes files."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the module to call in training, which averages the network's gradients over the processes."""
        if self.count == 1:
            return network
        with warnings.catch_warnings():  # about the keyword's new name, which PyTorch 2.11 lacks
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(network, broadcast_buffers=False)  # batch norms are equal already

    def any_of(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        if self.count == 1:
            return flag
        votes = torch.tensor(int(flag))
        dist.all_reduce(votes, dist.ReduceOp.MAX)  # a CPU tensor: no device waits
        return bool(votes)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over the processes."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def leave(self, code: int = 0) -> None:
        """End this process together with the others: a rank that exits early breaks the others' connections.

        Exit at once: shutting PyTorch's threads down in the usual way sometimes aborts a process that has finished.
        """
        if self.count > 1:
            dist.barrier()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def from_first(self, value: float) -> float:
        """Return the first process's value."""
        shared = torch.tensor(value, dtype=torch.float64)
        if self.count > 1:
            dist.broadcast(shared, 0)
        return shared.item()


def start_processes(device: str) -> tuple[Processes, str]:
    """Join the processes that torchrun started; return them and this one's device."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes(), device
    if device not in ("cpu", "cuda"):
        raise InputError(f"--device {device}: with {count} processes, wanted cpu or cuda; each takes its own GPU")
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(find_device(device))
    # Long enough for the others to wait while the first validates.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device != "cpu" else "gloo", timeout=timedelta(hours=6))
    if dist.get_rank() == 0:
        connected = "gloo, since they train on CPUs" if device == "cpu" else "NCCL, since they train on GPUs"
        print(f"{count} processes, connected by {connected}", file=sys.stderr)
    return Processes(dist.get_rank(), count), device


class SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over the processes; each process's gradient reaches all of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient


class GatherRows(torch.autograd.Function):
    """The rows of all processes, by rank; a row's gradient is the sum of those of all processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """Return the rows of all processes, B x ..., for losses between the utterances of a batch.

    Gradients flow back to the process that a row came from. DistributedDataParallel then divides them by the number
    of processes, which corrects for every process computing the same loss.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return x
    return GatherRows.apply(x)


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes, on any device; PyTorch's own needs a GPU."""

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
        values = x if x.dtype == torch.float64 else x.float()
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean = SumOverProcesses.apply(values.sum(axes)) / count
        centred = values - mean.view(shape)
        variance = SumOverProcesses.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)


def share_batch_norms(network: nn.Module, processes: Processes, device: torch.device) -> nn.Module:
    """Return the network with batch norms over all processes; the names of weights stay the same."""
    if processes.count == 1:
        return network
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for parent in list(network.modules()):
        for name, module in parent.named_children():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                shared = GlobalBatchNorm(module.num_features, module.eps, module.momentum, module.affine)
                shared.load_state_dict(module.state_dict())
                setattr(parent, name, shared.to(device))
    return network
