"""What the figures of a report are drawn from: the valid scores of a work folder, summarised, and its networks."""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np

from nnet.config import NetworkConfig
from nnet.embed import load_network
from nnet.model import Network
from steps.report.results import Scores, score_files
from utils.kaldi.ark import table_lines
from utils.labelled_scores import read_labelled_scores
from utils.metrics import det_points, measure
from utils.simulated import has_simulated

POINTS = 500  # at each end of a curve, at most
BINS = 60     # of a histogram
TAILS = 0.1, 99.9  # % of the target and of the non-target scores; its outermost bins hold what lies beyond
SHIFT = 0.01  # seconds from frame to frame


@dataclass(frozen=True)
class Summary:
    """A file of scores, as far as the figures need it."""

    of: Scores
    eer: float                # %
    threshold: float          # the lowest score at which the misses reach the false alarms
    false_alarms: np.ndarray  # (P,) 0 to 1, at P thresholds in ascending order
    misses: np.ndarray        # (P,)
    edges: np.ndarray         # (BINS + 1,) scores
    targets: np.ndarray       # (BINS,) density of the target scores
    nontargets: np.ndarray    # (BINS,)


def summarise(one: Scores) -> Summary:
    """Read a file of scores; raises InputError if it does not fit its list."""
    targets, nontargets = map(np.sort, read_labelled_scores(one.trials, one.path))
    eer = measure(targets, nontargets).eer
    ends = np.percentile(targets, TAILS), np.percentile(nontargets, TAILS)
    edges = np.linspace(np.min(ends), np.max(ends) + (np.ptp(ends) == 0), BINS + 1)
    densities = (np.histogram(part.clip(edges[0], edges[-1]), edges, density=True)[0] for part in (targets, nontargets))
    _, false_alarms, misses = det_points(targets, nontargets, POINTS)
    return Summary(one, eer, eer_threshold(targets, nontargets), false_alarms, misses, edges, *densities)


def eer_threshold(targets: np.ndarray, nontargets: np.ndarray) -> float:
    """Return the lowest score at which the miss rate reaches the false-alarm rate, of sorted scores; trials at or above
    the threshold are accepted. With perfect scores it is the lowest target score."""
    scores = np.unique(np.concatenate([targets, nontargets]))
    misses = np.searchsorted(targets, scores) / len(targets)
    false_alarms = 1 - np.searchsorted(nontargets, scores) / len(nontargets)
    reached = misses >= false_alarms
    return float(scores[np.argmax(reached)] if reached.any() else scores[-1])


@dataclass(frozen=True)
class Material:
    """A work folder. utterance: to draw attention over; chosen: systems to draw attention of, all if empty."""

    work: Path
    chosen_utterance: str = ""
    chosen: tuple[str, ...] = ()

    @cached_property
    def files(self) -> list[Scores]:
        """The valid scores, by list, system and back-end."""
        return score_files(self.work)[0]

    @cached_property
    def summaries(self) -> list[Summary]:
        """The valid scores, summarised, in the same order."""
        return [summarise(one) for one in self.files]

    @property
    def lists(self) -> dict[str, list[Summary]]:
        """The summaries by list."""
        return {name: list(some) for name, some in groupby(self.summaries, key=lambda one: one.of.list)}

    @property
    def lists_and_backends(self) -> dict[tuple[str, str], list[Summary]]:
        """The summaries by list and back-end."""
        order = sorted(self.summaries, key=lambda one: (one.of.list, one.of.backend, one.of.system))
        return {key: list(some) for key, some in groupby(order, key=lambda one: (one.of.list, one.of.backend))}

    @cached_property
    def systems(self) -> list[str]:
        """The systems with valid scores; a system's place in this list is its colour in all figures."""
        return sorted({one.system for one in self.files})

    @cached_property
    def networks(self) -> dict[str, tuple[Network, NetworkConfig]]:
        """The networks among the systems, by name; raises InputError on a damaged one."""
        folders = [self.work / "exp" / name for name in self.systems]
        return {folder.name: load_network(folder) for folder in folders if (folder / "model.safetensors").is_file()}

    @cached_property
    def utterance(self) -> str:
        """The test utterance to draw attention over."""
        return self.chosen_utterance or next(name for name, _ in table_lines(self.work / "data/test/utt2spk"))

    def of_list(self, name: str) -> str:
        """Return the name of a list as titles show it: with a remark if its speakers are simulated."""
        trials = next(one.trials for one in self.files if one.list == name)
        return f"{name}{SIMULATED if has_simulated(trials) else ''}"


SIMULATED = " (simulated speakers, no speech)"


def best_of_systems(summaries: list[Summary]) -> dict[str, Summary]:
    """Return the summary with the lowest EER of each system, by system."""
    ordered = sorted(summaries, key=lambda one: (one.of.system, one.eer))
    return {system: next(some) for system, some in groupby(ordered, key=lambda one: one.of.system)}
