"""Streams the frames that i-vector models see: a data directory's features after the front end."""

import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from utils.ahead import ReadAhead
from utils.errors import InputError
from utils.features.frontend import FrontendOptions, apply_frontend
from utils.files import count_lines
from utils.jobs.part import part_of
from utils.kaldi.ark import iterate
from utils.kaldi.data_dir import read_column

AT_ONCE = 32  # utterances per block; jobs take whole blocks, so that results do not depend on --nj


def utterances(data: Path, options: FrontendOptions, part: range | slice = slice(None),
               ) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance, T x F float32) in the order of feats.scp; part: their numbers.

    Reads ahead in a thread. Raises InputError when vad.scp lists other utterances than feats.scp, or features are
    NaN or infinite.
    """
    yield from ReadAhead(_read(data, options, part), 64)


def _read(data: Path, options: FrontendOptions, part: range | slice) -> Iterator[tuple[str, np.ndarray]]:
    voicing = iterate(data / "vad.scp", part=part) if options.vad else None
    for name, features in iterate(data / "feats.scp", part=part):
        vad = None
        if voicing is not None:
            other, vad = next(voicing, ("nothing", None))
            if other != name:
                raise InputError(f"{data}/vad.scp has {other} where feats.scp has {name}; run "
                                 "steps/compute_vad.sh again")
        x = apply_frontend(features, vad, options)
        if not np.isfinite(x).all():
            raise InputError(f"{data}/feats.scp: {name} has NaN or infinite values; make its features again")
        yield name, x


def blocks(data: Path, options: FrontendOptions, part: range | slice = slice(None), at_once: int = AT_ONCE,
           ) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Yield `at_once` utterances together: ids, their frames one after the other (N x F), and their lengths."""
    stream = utterances(data, options, part)
    while block := list(islice(stream, at_once)):
        ids, frames = zip(*block, strict=True)
        yield list(ids), np.concatenate(frames), np.array([len(x) for x in frames])


def draw_frames(data: Path, options: FrontendOptions, number: int, seed: int, parts: int, subsample: int = 0,
                ) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield about `number` frames (all, if there are fewer) drawn evenly from the utterances, in parts: N x D each.

    A part is a range of the utterances. With `subsample`, it is a pair; the second array has every so many-th frame of
    each utterance. Where the front end leaves unvoiced frames out, only voiced frames count.
    """
    if options.vad:
        lengths = [np.count_nonzero(voiced) for _, voiced in iterate(data / "vad.scp")]
    else:
        lengths = [int(length) for length in read_column(data / "utt2num_frames")[1]]
    count, total, drawn, every = count_lines(data / "feats.scp"), sum(lengths), 0, 0
    rng = np.random.default_rng(seed)
    share = min(1.0, number / max(total, 1))
    stream = utterances(data, options)
    for part in range(1, parts + 1):
        found = [(x if share == 1 else x[rng.random(len(x)) < share], *([x[::subsample].copy()] if subsample else []))
                 for _, x in islice(stream, len(part_of(count, part, parts)))]
        frames = tuple(map(np.concatenate, zip(*found, strict=True)))
        drawn, every = drawn + len(frames[0]), every + len(frames[-1])
        yield frames
    print(f"{drawn} of {total}{' voiced' * options.vad} frames drawn from {count} utterances"
          f"{f', and every {subsample}th: {every}' if subsample else ''}", file=sys.stderr)
