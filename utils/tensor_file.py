"""The state that a training run keeps on disk: named tensors and its position, in one file with a checksum.

The format is safetensors: no pickle, and tensors are restored bit by bit.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from utils.files import write_aside


def save_tensors(path: Path, tensors: Mapping[str, Tensor], where: Mapping[str, Any]) -> None:
    """Write tensors and the training position `where`, a JSON object, to a temporary file and rename it to `path`."""
    # Copy: safetensors refuses tensors that share memory, as best and current weights may.
    copies = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
              for name, value in tensors.items()}
    text = json.dumps(where)
    with write_aside(path, "wb") as stream:
        stream.write(save(copies, {"where": text, "sha256": checksum(copies, text)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read a file of `save_tensors`; return None if it is missing or damaged. A damaged file is removed."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
            text, wanted = file.metadata()["where"], file.metadata()["sha256"]
        if checksum(tensors, text) != wanted:
            raise ValueError("its checksum is wrong")
        return tensors, json.loads(text)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        path.unlink(missing_ok=True)
        message = " ".join(str(error).split())[:200]
        print(f"warning: {path} was damaged and has been removed: {message}; continuing without it",
              file=sys.stderr)
        return None


def checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    """Return the SHA-256 of tensors, in the order of their names, and a text."""
    found = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        found.update(f"\n{name} {value.dtype} {list(value.shape)}\n".encode())
        found.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
