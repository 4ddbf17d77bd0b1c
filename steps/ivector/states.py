"""What a training leaves on disk while it goes on: named tensors, and where it stands, in one file each.

safetensors: nothing is pickled, and what is read has the bits that were written.
"""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from utils.errors import InputError
from utils.files import write_aside


def save_state(path: Path, tensors: dict[str, Tensor], **where: int | float) -> None:
    """Write tensors and numbers aside and rename them to `path`."""
    with write_aside(path, "wb") as stream:
        stream.write(save({name: value.cpu().contiguous() for name, value in tensors.items()},
                          {"where": json.dumps(where)}))


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Read what `save_state` wrote; raises InputError for a damaged file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["where"])  # noqa: SIM118
    except Exception as error:  # safetensors has its own errors
        message = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot go on from it: {message}; delete its folder to start again") from error
