"""Bundles: a trained system in a folder of its own, to be moved to other machines. utils/bundle makes them.

    bundle.json          the format and its version; kind, rate and dimension of the system; its licence; versions of
                         the programs that made it; the SHA-256 of every other file, and of all this
    self_check.flac      a recording of a simulated voice
    self_check.vec       its embedding, on the machine that made the bundle; both are missing where the features cannot
                         be computed here, so that only a training can start from the bundle (utils/import_checkpoint)
    config.yaml, model.safetensors              a network, with the options of its features and its voice activity
    system.yaml, final.ubm, final.ie, *.conf    an i-vector system
    backend/, calibration.json                  what scoring needs, where it is trained

`nnet.embed.load` reads a bundle like the folder of training. Before, `check_files` makes sure that every file is
unchanged, and afterwards `check_embedding` that the model gives the same embedding. The files are text, JSON, YAML,
safetensors, FLAC and Kaldi's objects; nothing in them is executed.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from utils.errors import InputError, first_five
from utils.kaldi.objects import read_vector

FORMAT, VERSION = "attvec bundle", 1
MANIFEST, RECORDING, EMBEDDING = "bundle.json", "self_check.flac", "self_check.vec"
TOLERANCE = 0.01  # of an embedding's length: the largest distance from the one that the bundle holds
_WAY_OUT = "copy the bundle again"


class Embeds(Protocol):
    """What the self-check needs of a model."""

    folder: Path

    def embed(self, audio: Any) -> np.ndarray:
        """Return the embedding of a file: E float32."""


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle: it has bundle.json, whatever that holds."""
    return (folder / MANIFEST).is_file()


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal_of(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of what bundle.json says, but for the seal itself."""
    text = json.dumps({key: value for key, value in manifest.items() if key != "seal"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def files_of(folder: Path) -> list[str]:
    """Return the files of a bundle, as paths below it, without bundle.json and what is hidden."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    return sorted(str(name) for name in names if str(name) != MANIFEST and not any(
        part.startswith(".") for part in name.parts))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read bundle.json; raises InputError if it is damaged or of another version."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise InputError(f"{path}: damaged: {error}; {_WAY_OUT}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path}: its format is not {FORMAT!r}; name a folder that utils/bundle made")
    if found.get("version") != VERSION:
        raise InputError(f"{path}: a bundle of version {found.get('version')}, this program reads version {VERSION}; "
                         f"use the program that made it ({_made_with(found)}), or bundle its model again")
    if found.get("seal") != seal_of(found):
        raise InputError(f"{path} has changed since the bundle was made (its seal differs); {_WAY_OUT}")
    files = found.get("files")
    if not isinstance(files, dict) or not files or not all(isinstance(value, str) for value in files.values()):
        raise InputError(f"{path}: damaged: no list of files; {_WAY_OUT}")
    return found


def _made_with(manifest: dict[str, Any]) -> str:
    versions = manifest.get("made_with")
    return f"attvec {versions.get('attvec', 'unknown')}" if isinstance(versions, dict) else "of unknown version"


def check_files(folder: Path) -> None:
    """Raise InputError unless a bundle has exactly the files that bundle.json lists, each with its digest."""
    listed, there = read_manifest(folder)["files"], files_of(folder)
    for found, complaint in ((sorted(set(listed) - set(there)), "is missing"),
                             (sorted(set(there) - set(listed)), f"is not listed in {MANIFEST}")):
        if found:
            raise InputError(f"{folder}: {first_five(found)} {complaint}; {_WAY_OUT}")
    for name in there:  # listed names outside the folder are not there
        if (folder / name).is_symlink():
            raise InputError(f"{folder}: {name} is a link; {_WAY_OUT}, with the files themselves")
        if digest_of(folder / name) != listed[name]:
            raise InputError(f"{folder}: {name} has changed since the bundle was made (its SHA-256 differs); "
                             f"{_WAY_OUT}")


def check_embedding(model: Embeds) -> None:
    """Raise InputError unless a bundle's model gives the embedding of the recording that the bundle holds.

    Digests show that the files are the same; this shows that the programs are. Other orders of summation move an
    embedding by less than 1e-5 of its length; rounding all factors to the 10 bits of a GPU's TF32 moved an x-vector by
    6e-4. On the other side, half the gain moved it by 5e-2, and noise at -40 dB by more.
    """
    wanted, found = read_vector(model.folder / EMBEDDING, np.float32), model.embed(model.folder / RECORDING)
    if found.shape != wanted.shape:
        raise InputError(f"{model.folder}: {EMBEDDING} has {len(wanted)} values, an embedding {len(found)}; bundle its "
                         "model again")
    far = float(np.linalg.norm(found - wanted) / max(np.linalg.norm(wanted), np.finfo(np.float32).tiny))
    if not far < TOLERANCE:  # also NaN
        raise InputError(f"{model.folder}: the self-check failed: the embedding of {RECORDING} differs by {far:.2%} "
                         f"from the one in the bundle, allowed {TOLERANCE:.0%}; install the versions in {MANIFEST}")
