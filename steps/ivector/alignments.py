"""Which Gaussians each frame belongs to, as Kaldi's files: posteriors and gselect.

In memory both are flat: for an utterance of T frames, `sizes` (T) says how many entries each frame has, and
`gaussians` (and `weights`) list them frame by frame.
    posteriors  text `id [ 8 1 ] [ 14 0.2 8 0.8 ] ...`, one pair of brackets per frame
    gselect     text `id 8 14 ; 3 8 ; ...`, one semicolon per frame
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from utils.errors import InputError
from utils.kaldi.ark import iterate
from utils.kaldi.objects import KaldiReader, KaldiWriter


class Alignment(NamedTuple):
    """sizes: T, int; gaussians: sum(sizes), int; weights: sum(sizes), float32 (ones for gselect)."""

    sizes: np.ndarray
    gaussians: np.ndarray
    weights: np.ndarray


_PAIR = np.dtype([("size_of_int", "i1"), ("gaussian", "<i4"), ("size_of_float", "i1"), ("weight", "<f4")])


def write_posteriors(kaldi: KaldiWriter, alignment: Alignment) -> None:
    """Write one utterance's posteriors, as Kaldi's WritePosterior."""
    ends = np.cumsum(alignment.sizes)
    if not kaldi.binary:
        pairs = [f"{g} {w:.7g}" for g, w in zip(alignment.gaussians.tolist(), alignment.weights.tolist(), strict=True)]
        frames = [pairs[end - size:end] for end, size in zip(ends.tolist(), alignment.sizes.tolist(), strict=True)]
        kaldi.stream.write(("".join(f"[ {' '.join([*frame, ']'])} " for frame in frames) + "\n").encode())
        return
    pairs = np.zeros(len(alignment.gaussians), _PAIR)
    pairs["size_of_int"] = pairs["size_of_float"] = 4
    pairs["gaussian"], pairs["weight"] = alignment.gaussians, alignment.weights
    kaldi.int32(len(ends))
    for end, size in zip(ends.tolist(), alignment.sizes.tolist(), strict=True):
        kaldi.int32(size)
        kaldi.stream.write(pairs[end - size:end].tobytes())


def write_gselect(kaldi: KaldiWriter, alignment: Alignment) -> None:
    """Write one utterance's selected Gaussians, as Kaldi's vectors of vectors of integers."""
    frames = np.split(alignment.gaussians.astype("<i4"), np.cumsum(alignment.sizes)[:-1])
    if not kaldi.binary:
        kaldi.stream.write(("".join(f"{' '.join(map(str, frame.tolist()))} ; " for frame in frames) + "\n").encode())
        return
    kaldi.int32(len(frames))
    for frame in frames:
        kaldi.int32_vector(frame)


def _posteriors(kaldi: KaldiReader) -> Alignment:
    if not kaldi.binary:
        frames = [frame.split() for frame in kaldi.line().split("]")]
        if frames.pop() or any(frame[:1] != ["["] or len(frame) % 2 == 0 for frame in frames):
            kaldi.fail("expected posteriors, `[ gaussian weight ... ]` for each frame")
        words = [word for frame in frames for word in frame[1:]]
        gaussians, weights = (" ".join(words[start::2]).encode() for start in (0, 1))
        return Alignment(np.array([len(frame) // 2 for frame in frames], np.int64), kaldi.numbers(gaussians, np.int64),
                         kaldi.numbers(weights, np.float32))
    sizes, parts = [], [np.zeros(0, _PAIR)]
    for _ in range(_count(kaldi)):
        sizes.append(_count(kaldi))
        parts.append(np.frombuffer(kaldi.read(sizes[-1] * _PAIR.itemsize), _PAIR))
    pairs = np.concatenate(parts)
    if (pairs["size_of_int"] != 4).any() or (pairs["size_of_float"] != 4).any():
        kaldi.fail("expected posteriors in numbers of 4 bytes")
    return Alignment(np.array(sizes, np.int64), pairs["gaussian"].astype(np.int64), pairs["weight"].copy())


def _gselect(kaldi: KaldiReader) -> Alignment:
    if kaldi.binary:
        frames = [kaldi.int32_vector() for _ in range(_count(kaldi))]
    else:
        texts = kaldi.line().split(";")
        if texts.pop().strip():
            kaldi.fail("expected gselect, `gaussian ... ;` for each frame")
        frames = [kaldi.numbers(text.encode(), np.int32) for text in texts]
    gaussians = np.concatenate([np.zeros(0, np.int64), *frames])
    sizes = np.array([len(frame) for frame in frames], np.int64)
    return Alignment(sizes, gaussians, np.ones(len(gaussians), np.float32))


def _count(kaldi: KaldiReader) -> int:
    count = kaldi.int32()
    if count < 0:
        kaldi.fail(f"negative size {count}")
    return count


def iterate_alignments(path: str | os.PathLike, gselect: bool = False, part: slice = slice(None),
                       ) -> Iterator[tuple[str, Alignment]]:
    """Yield (utterance, alignment) of a script or an archive of posteriors, or of gselect.

    Raises InputError, with file and utterance, for damaged entries, negative Gaussians, and NaN or infinite weights.
    """
    for name, alignment in iterate(path, _gselect if gselect else _posteriors, part):
        if (alignment.gaussians < 0).any() or not np.isfinite(alignment.weights).all():
            raise InputError(f"{path}: {name}: a Gaussian below 0, or a NaN or infinite weight")
        yield name, alignment
