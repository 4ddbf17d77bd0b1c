"""Diarization error rates, as NIST's md-eval computes them, with an interval over recordings.

In each recording, the speakers of the result are mapped to those of the reference one to one, such that they agree for
as long as possible. At a time with R speakers in the reference, H in the result, and C who are in both by this mapping:

    miss max(0, R - H)    false alarm max(0, H - R)    confusion min(R, H) - C

The error rate is the time of all three, divided by that of the reference's speakers (R). With a collar, times less than
so many seconds from a start or an end in the reference do not count.
e.g.: python3 -m steps.diarization.error --collar 0.25 reference.rttm result.rttm
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from utils.arguments import seed
from utils.bootstrap import REPLICATES, Interval, draws, interval
from utils.errors import InputError, first_five, run_main
from utils.rttm import Turn, read_rttm


class Errors(NamedTuple):
    """Seconds; speech: of all speakers of the reference."""

    miss: float
    false_alarm: float
    confusion: float
    speech: float


def active(turns: Sequence[Turn], starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return whether each speaker talks in each interval between neighbouring times: speakers x intervals."""
    names = sorted({turn.speaker for turn in turns})
    found = np.zeros((len(names), len(starts)), bool)
    for turn in turns:
        found[names.index(turn.speaker)] |= (turn.start <= starts) & (ends <= turn.end)
    return found


def errors_of(reference: Sequence[Turn], result: Sequence[Turn], collar: float) -> Errors:
    """Return the errors of one recording."""
    times = np.array([(turn.start, turn.end) for turn in [*reference, *result]])
    edges = np.array([(turn.start, turn.end) for turn in reference]).reshape(-1)
    places = np.unique(np.concatenate([times.reshape(-1), edges - collar, edges + collar]))
    starts, ends = places[:-1], places[1:]
    middles = (starts + ends) / 2
    counts = np.ones(len(starts), bool)
    for edge in edges if collar else ():
        counts &= np.abs(middles - edge) >= collar
    seconds = (ends - starts) * counts
    ours, theirs = active(reference, starts, ends), active(result, starts, ends)
    together = (ours * seconds) @ theirs.T  # seconds in which each pair of speakers talks
    rows, columns = linear_sum_assignment(-together)
    correct = sum((ours[row] & theirs[column]).astype(int) for row, column in zip(rows, columns, strict=True))
    r, h = ours.sum(axis=0), theirs.sum(axis=0)
    return Errors(*(float(seconds @ value) for value in (
        np.maximum(0, r - h), np.maximum(0, h - r), np.minimum(r, h) - correct, r)))


def compare(reference: Sequence[Turn], result: Sequence[Turn], collar: float) -> dict[str, Errors]:
    """Return the errors of each recording; raises InputError if the recordings differ, or none counts."""
    ours, theirs = ({turn.recording for turn in turns} for turns in (reference, result))
    if ours != theirs:
        which, names = ("the result lacks", ours - theirs) if ours - theirs else ("the reference lacks", theirs - ours)
        raise InputError(f"{which} {len(names)} recordings: {first_five(sorted(names))}; name files of the same "
                         "recordings")
    found = {name: errors_of([turn for turn in reference if turn.recording == name],
                             [turn for turn in result if turn.recording == name], collar) for name in sorted(ours)}
    if not sum(one.speech for one in found.values()) > 0:
        raise InputError(f"--collar {collar:g} leaves no speech of the reference; lower it")
    return found


def rate(errors: Sequence[Errors], counts: np.ndarray) -> float:
    """Return the error rate in % of recordings that count so many times; NaN without speech."""
    table = np.array(errors)
    speech = float(counts @ table[:, 3])
    return 100 * float(counts @ table[:, :3].sum(axis=1)) / speech if speech else np.nan


def rate_interval(errors: Sequence[Errors], replicates: int = REPLICATES, seed: int = 1) -> Interval:
    """Return the 95 % interval of the error rate, from draws of the recordings with replacement."""
    return interval(np.array([rate(errors, counts) for counts in draws(len(errors), replicates, seed)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--collar", type=float, default=0.0, help="seconds around the reference's starts and ends that "
                        "do not count (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="of the drawn recordings (default: %(default)s)")
    parser.add_argument("reference", type=Path, help="RTTM file")
    parser.add_argument("result", type=Path, help="RTTM file")
    arguments = parser.parse_args()
    if not 0 <= arguments.collar <= 10:
        raise InputError(f"--collar {arguments.collar:g}: wanted 0 to 10 seconds")
    found = list(compare(read_rttm(arguments.reference), read_rttm(arguments.result), arguments.collar).values())
    table = np.array(found)
    parts = 100 * table.sum(axis=0)[:3] / table[:, 3].sum()
    around = "one recording, no interval"
    if len(found) > 1:
        around = "interval {:.2f} to {:.2f}".format(*rate_interval(found, seed=arguments.seed))
    print(f"DER {rate(found, np.ones(len(found))):.2f} % ({around}): miss {parts[0]:.2f}, false alarm {parts[1]:.2f}, "
          f"confusion {parts[2]:.2f}; {len(found)} recordings, {table[:, 3].sum():.0f} s of speech, collar "
          f"{arguments.collar:g} s")


if __name__ == "__main__":
    run_main(main)
