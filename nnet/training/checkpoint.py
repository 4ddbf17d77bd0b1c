"""Weights on disk, and a training run as one safetensors file: weights, optimiser, best and averaged weights, and its
progress.

Nothing is pickled: tensors are stored by name, everything else as JSON in the file's header.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from utils.errors import InputError
from utils.tensor_file import load_tensors, save_tensors


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a model's weights; raises InputError if the file is cut, empty or of another format, or has NaN values."""
    try:
        weights = load_file(path)
    except (SafetensorError, KeyError, ValueError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: damaged or not safetensors: {message}; train the model again") from error
    for name, value in weights.items():
        if not value.isfinite().all():
            raise InputError(f"{path}: {name} has NaN or infinite values; train the model again")
    return weights


def flatten(network: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor],
            average: nn.Module | None) -> dict[str, Tensor]:
    """Return all tensors of a run, each with a name."""
    tensors = {f"model/{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in best.items()}
    if average is not None:
        tensors |= {f"average/{name}": value for name, value in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items() if value is not None}
    return tensors


def save_checkpoint(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor],
                    average: nn.Module | None, where: dict[str, Any]) -> None:
    """Write a checkpoint under a temporary name, then rename it. where: JSON values, such as the step."""
    save_tensors(path, flatten(network, optimizer, best, average), where)


def load_checkpoint(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None,
                    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Restore network, its average and optimiser; return the best weights and the `where` of save_checkpoint.

    Returns None without a checkpoint; a damaged one is removed first. Raises InputError if the checkpoint belongs to
    another network.
    """
    found = load_tensors(path)
    if found is None:
        return None
    tensors, where = found
    try:
        for part, module in (("model/", network), ("average/", average)):
            if module is not None:
                module.load_state_dict({name.removeprefix(part): value for name, value in tensors.items()
                                        if name.startswith(part)})
    except RuntimeError as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot resume: {message}; delete the file to train from the start") from error
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, index, key = name.split("/")
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    lay_out_as_parameters(optimizer)
    return {name[5:]: value for name, value in tensors.items() if name.startswith("best/")}, where


def lay_out_as_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give the moments the memory format of their parameters, which a file does not keep.

    Fused optimisers on a CPU read both as they lie in memory: with weights whose channels come last, they would take
    one weight's moment for another's.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value is not None and value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
