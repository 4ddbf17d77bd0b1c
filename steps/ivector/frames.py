"""The frames that i-vector models see: a data directory's features through the front end, streamed."""

import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from steps.feat.frontend import FrontendOptions, apply_frontend
from utils.ark import iterate, read_table
from utils.errors import InputError


def utterances(data: Path, options: FrontendOptions, part: range | slice = slice(None),
               ) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (utterance, T x F float32) in the order of feats.scp; part: which, by number.

    Reads ahead in a thread. Raises InputError when vad.scp lists other utterances than feats.scp.
    """
    ahead: queue.Queue = queue.Queue(64)
    stopped = threading.Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                ahead.put(item, timeout=0.5)
            except queue.Full:
                continue
            return

    def read() -> None:
        try:
            voicing = iterate(data / "vad.scp", part=part) if options.vad else None
            for name, features in iterate(data / "feats.scp", part=part):
                vad = None
                if voicing is not None:
                    other, vad = next(voicing, ("nothing", None))
                    if other != name:
                        raise InputError(f"{data}/vad.scp has {other} where feats.scp has {name}; run "
                                         "steps/compute_vad.sh again")
                put((name, apply_frontend(features, vad, options)))
            put(None)
        except Exception as error:  # handed to the thread that computes
            put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while (item := ahead.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()


def blocks(data: Path, options: FrontendOptions, frames: int = 20000, part: range | slice = slice(None),
           ) -> Iterator[tuple[list[str], np.ndarray, np.ndarray]]:
    """Yield utterances together: ids, their frames one after the other (N x F), and their lengths.

    A block ends with the utterance that brings it to `frames` frames.
    """
    ids, parts, total = [], [], 0
    for name, x in utterances(data, options, part):
        ids.append(name)
        parts.append(x)
        total += len(x)
        if total >= frames:
            yield ids, np.concatenate(parts), np.array([len(p) for p in parts])
            ids, parts, total = [], [], 0
    if ids:
        yield ids, np.concatenate(parts), np.array([len(p) for p in parts])


def sample_frames(data: Path, options: FrontendOptions, number: int, seed: int) -> np.ndarray:
    """Return about `number` frames (all, when there are no more) drawn evenly from the utterances: N x F."""
    _, lengths = read_table(data / "utt2num_frames")
    total = sum(map(int, lengths))
    rng = np.random.default_rng(seed)
    share = min(1.0, number / max(total, 1))
    kept = [x if share == 1 else x[rng.random(len(x)) < share] for _, x in utterances(data, options)]
    x = np.concatenate(kept)
    print(f"{len(x)} of {total} frames drawn from {len(lengths)} utterances", file=sys.stderr)
    return x
