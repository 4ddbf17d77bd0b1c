"""Batches that take long to make: PyTorch's DataLoader makes them in worker processes."""

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from nnet.config import NetworkConfig
from nnet.frontends import FRONTENDS
from nnet.training.batch import Batch
from utils.errors import InputError

MOST = 16
AHEAD = 2  # batches that each worker makes ahead


def workers_for(config: NetworkConfig, threads: int) -> int:
    """Return the number of worker processes beside a training process with `threads` threads; 0: it needs none.

    They pay for audio, and for features whose whole utterances are read and normalised. A chunk of other features takes
    less time to read than to pass on: with one process, batches of 64 x 200 x 80 took 21 ms, without 15 ms.
    """
    front = config.frontend
    if not (config.online or not FRONTENDS[front.type][0].stored):
        each_reads_blocks = config.train.shuffle_mb > 0  # the buffer would be read once per worker
        if each_reads_blocks or not (front.deltas or front.cmn in ("utterance", "sliding")):
            return 0
    return min(MOST, threads, len(os.sched_getaffinity(0))) if sys.platform == "linux" else 0


class _Steps(Dataset):
    """Batches by step number, as arrays: tensors would use shared memory, which is small in many containers."""

    def __init__(self, batch: Callable[[int], Batch]) -> None:
        self.batch = batch

    def __getitem__(self, step: int) -> list[np.ndarray | None] | InputError:
        try:
            return [None if part is None else part.numpy() for part in self.batch(step)]
        except InputError as error:  # a DataLoader would add the worker's traceback to the message
            return error


def _prepare(_worker: int) -> None:
    """Leave signals to the training process, which still needs batches for the step after which it stops."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _end_workers() -> None:
    """End the workers at once: at its exit, Python would send them SIGTERM and wait."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch reports workers that are killed
    for child in multiprocessing.active_children():
        child.kill()


def worker_batches(batch: Callable[[int], Batch], steps: range, workers: int) -> Iterator[Batch]:
    """Yield the batches of some steps, made in `workers` processes, which are forked at the first of them.

    They end with the loop, with this process, or within seconds if it is killed. Raises the InputErrors of `batch`.
    """
    atexit.register(_end_workers)
    loader = DataLoader(_Steps(batch), batch_size=None, sampler=steps, num_workers=workers,
                        collate_fn=lambda made: made, prefetch_factor=AHEAD, worker_init_fn=_prepare,
                        multiprocessing_context="fork")
    for made in loader:
        if isinstance(made, InputError):
            raise made
        yield Batch(*(None if part is None else torch.from_numpy(part) for part in made))
