"""Embed the few recordings of a command, and say what is wrong with them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnet.embed import Model
from steps.use.quality import judge
from utils.audio import read_audio
from utils.progress import progress


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of all commands that load a model."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("bundle", type=Path, help="bundle, or folder of a trained system")


def listen(model: Model, files: Sequence[str]) -> tuple[np.ndarray, list[float]]:
    """Return the embeddings of recordings, N x E, and the seconds of sound in each; prints a warning for each fault.

    Raises InputError for a recording that cannot be read, or that is silent or too short to identify a speaker.
    """
    model.require_features()
    found = [judge(read_audio(path, model.rate), model.rate, path) for path in files]
    for path, quality in zip(files, found, strict=True):
        for remark in quality.remarks:
            print(f"warning: {path}: {remark}", file=sys.stderr)
    embedded = model.embed_each(files, warn=lambda *_: None)  # what it would say has been said
    vectors = np.stack(list(progress(embedded, len(files), "embed", "files")))
    return vectors, [quality.seconds for quality in found]
