"""Batches of audio made in worker processes, by PyTorch's DataLoader."""

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from nnet.training.batch import Batch
from utils.errors import InputError

MOST = 16
AHEAD = 2  # batches that each worker makes ahead


def audio_workers(threads: int) -> int:
    """Return the number of worker processes for a process with `threads` threads; 0 where processes cannot fork."""
    return min(MOST, threads, len(os.sched_getaffinity(0))) if sys.platform == "linux" else 0


class _Steps(Dataset):
    """Batches by their steps, as arrays: tensors would go through shared memory, of which containers have little."""

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


def worker_batches(batch: Callable[[int], Batch], first: int, last: int, workers: int) -> Iterator[Batch]:
    """Yield batch(first) to batch(last - 1), made in `workers` processes, which are forked at the first of them.

    They end with the loop, with this process, or within seconds if it is killed. Raises the InputErrors of `batch`.
    """
    atexit.register(_end_workers)
    loader = DataLoader(_Steps(batch), batch_size=None, sampler=range(first, last), num_workers=workers,
                        collate_fn=lambda made: made, prefetch_factor=AHEAD, worker_init_fn=_prepare,
                        multiprocessing_context="fork")
    for made in loader:
        if isinstance(made, InputError):
            raise made
        yield Batch(*(None if part is None else torch.from_numpy(part) for part in made))
