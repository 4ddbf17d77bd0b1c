"""Batches of N speakers with M utterances each, for the metric losses."""

import numpy as np

from nnet.losses import LOSSES
from utils.errors import InputError

ANY_BATCH = [name for name, (_, options) in LOSSES.items() if not options.utterances]


class SpeakerBatches:
    """Every epoch, each speaker's utterances are split at random into groups of M; a batch holds groups of N speakers.

    Each round takes one group of every speaker that has one left. Groups that do not fill a batch of their round are
    left out of the epoch, and so are the utterances beyond a multiple of M.
    """

    def __init__(self, labels: np.ndarray, batch_size: int, utterances: int, loss: str) -> None:
        """labels: speaker number of each utterance; batch_size: N M; loss: its type, for messages."""
        self.labels, self.utterances = labels, utterances
        self.starts = np.cumsum(np.bincount(labels)) - np.bincount(labels)
        self.groups = np.bincount(labels) // utterances  # of each speaker
        able = int((self.groups > 0).sum())
        if able < 2:
            raise InputError(
                f"loss: {loss} needs {utterances} utterances (loss.utterances) of each speaker in a batch; "
                f"{able} of the {len(self.groups)} speakers have that many, the most is {np.bincount(labels).max()}; "
                f"allowed: a corpus with more utterances per speaker, or {', '.join(ANY_BATCH)}")
        self.speakers = min(batch_size // utterances, able)  # N
        in_round = [int((self.groups > number).sum()) for number in range(int(self.groups.max()))]
        self.batches = [count // self.speakers for count in in_round]  # of each round

    @property
    def batch_size(self) -> int:
        """Return N M."""
        return self.speakers * self.utterances

    @property
    def steps(self) -> int:
        """Return the batches of an epoch."""
        return sum(self.batches)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Return the utterances' numbers in the order of an epoch: batch by batch, in each batch speaker by speaker."""
        shuffled = np.lexsort((rng.random(len(self.labels)), self.labels))  # by speaker, in random order within each
        rounds = []
        for number, batches in enumerate(self.batches):
            speakers = rng.permutation(np.flatnonzero(self.groups > number))[:batches * self.speakers]
            first = self.starts[speakers] + number * self.utterances
            rounds.append(shuffled[first[:, None] + np.arange(self.utterances)].reshape(batches, self.batch_size))
        return rng.permutation(np.concatenate(rounds)).reshape(-1)
