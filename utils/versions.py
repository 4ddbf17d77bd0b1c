"""Write the versions that a model was trained with to versions.yaml in its folder."""

import platform
from importlib import metadata
from pathlib import Path

import yaml

from utils.files import write_aside
from utils.jobs.done import code_version

LIBRARIES = ("torch", "numpy", "kaldi-native-fbank")  # their versions can change a model's bits


def write_versions(folder: Path) -> None:
    """Write versions.yaml: the commit of this checkout (`-dirty` with changes), Python, and the libraries' versions."""
    found = {"attvec": code_version(), "python": platform.python_version(),
             **{name: metadata.version(name) for name in LIBRARIES}}
    with write_aside(folder / "versions.yaml") as stream:
        yaml.safe_dump(found, stream, sort_keys=False)
