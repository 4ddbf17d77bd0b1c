"""Say who speaks when in recordings, with a bundle or a trained system: RTTM lines.

Speech is found by the voice activity of the model, or by level for models without one. It is cut into windows, whose
embeddings are compared by a chain of the model's back-end and clustered from the bottom up. If the chain ends in PLDA,
VBx then assigns the windows anew (steps/diarization/vbx.py). Speakers are numbered in the order in which they appear;
where several talk at once, one is named.
e.g.: python3 -m steps.diarization.diarize xvector_bundle meeting.wav meeting.rttm
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnet.embed import Model, load
from steps.backend.interface import Enrolment
from steps.backend.plda_scoring import TwoCovariance
from steps.diarization.clusters import cluster_windows
from steps.diarization.vbx import vbx
from steps.use.listen import add_common
from steps.use.scoring import Scoring
from utils.audio import SOUNDLESS, read_audio
from utils.errors import InputError, run_main
from utils.features.compute import compute_features
from utils.features.vad import energy_vad
from utils.files import write_aside
from utils.kaldi.table_values import BAD_ID
from utils.rttm import Turn, rttm_lines
from utils.speech import loud_frames, regions_of

TOGETHER = 256    # windows that are embedded at once
SMOOTHING = 5.0  # the first probability of a window's own cluster is exp(SMOOTHING) times that of another


class Options(NamedTuple):
    """window, shift: seconds; bias: of the clustering's threshold; vbx: whether to assign windows anew, with fa, fb and
    loop (steps/diarization/vbx.py)."""

    window: float
    shift: float
    bias: float
    vbx: bool
    fa: float
    fb: float
    loop: float


def speech_of(model: Model, samples: np.ndarray) -> np.ndarray:
    """Return N x 2 times in seconds where samples at the model's rate have speech."""
    if model.vad is None or model.takes_audio:
        return regions_of(loud_frames(samples, model.rate))
    active = energy_vad(compute_features(samples, model.features), model.vad)
    return regions_of(active > 0, model.features.shift / model.rate)


def windows_of(regions: np.ndarray, window: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the times (N x 2, seconds) of windows at regular distances in each region, and of their parts of it.

    The parts of a region's windows meet halfway between the windows' middles and fill the region. A region shorter than
    a window is one window.
    """
    windows, parts = [], []
    for start, end in regions:
        count = 1 + max(0, int(np.ceil((end - start - window) / shift - 1e-9)))
        starts = np.minimum(start + shift * np.arange(count), max(start, end - window))
        ends = np.minimum(starts + window, end)
        middles = (starts + ends) / 2
        inner = (middles[1:] + middles[:-1]) / 2
        windows.append(np.stack([starts, ends], axis=1))
        parts.append(np.stack([np.append(start, inner), np.append(inner, end)], axis=1))
    return np.concatenate(windows), np.concatenate(parts)


def embed_windows(model: Model, samples: np.ndarray, windows: np.ndarray) -> np.ndarray:
    """Return the embeddings of windows, N x E."""
    places = (windows * model.rate).round().astype(int)
    return np.concatenate([  # an hour of windows at once would take a gigabyte
        model.embed([samples[start:stop] / np.float32(32768) for start, stop in places[first:first + TOGETHER]],
                    rate=model.rate) for first in range(0, len(places), TOGETHER)])


def speakers_of(scoring: Scoring, windows: np.ndarray, x: np.ndarray, options: Options) -> np.ndarray:
    """Return the speaker (a number) of each window, of their times, N x 2, and their embeddings, N x E."""
    def score(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return scoring.scores(Enrolment(x[rows]), x[columns])

    labels = cluster_windows(score, windows, options.bias)
    comparison = scoring.chain.comparison
    if not options.vbx or not isinstance(comparison, TwoCovariance) or labels.max() == 0:
        return labels
    gamma = np.exp(SMOOTHING * (labels[:, None] == np.arange(labels.max() + 1)))
    y = comparison.plda.project(scoring.chain.process(x), normalise=False)
    found = vbx(y, comparison.plda.psi, gamma / gamma.sum(axis=1, keepdims=True), options.fa, options.fb, options.loop)
    return found.gamma.argmax(axis=1)


def turns_of(recording: str, parts: np.ndarray, labels: Sequence[int]) -> list[Turn]:
    """Return the turns: neighbouring parts with the same speaker are joined."""
    names: dict[int, str] = {}
    turns: list[Turn] = []
    for (start, end), label in zip(parts.tolist(), labels, strict=True):
        name = names.setdefault(int(label), f"speaker{len(names) + 1}")
        if turns and turns[-1].speaker == name and start - turns[-1].end < 1e-6:
            turns[-1] = turns[-1]._replace(end=end)
        else:
            turns.append(Turn(recording, start, end, name))
    return turns


def name_of(path: str) -> str:
    """Return a recording's name for RTTM, which is one word: `_` in place of what that format does not take."""
    return BAD_ID.sub("_", Path(path).stem.replace("\n", "_"))


def diarize(model: Model, scoring: Scoring, path: str, options: Options) -> list[Turn]:
    """Return the turns of a recording; raises InputError if it cannot be read or has no speech."""
    model.require_features()
    audio = read_audio(path, model.rate)
    if soundless := [note for note in audio.notes if note in SOUNDLESS]:
        raise InputError(f"{path}: {soundless[0]}; there is nobody to tell apart")
    regions = speech_of(model, audio.samples)
    if not len(regions):
        raise InputError(f"{path}: no speech of 0.2 s or more; there is nobody to tell apart")
    windows, parts = windows_of(regions, options.window, options.shift)
    x = embed_windows(model, audio.samples, windows)
    return turns_of(name_of(path), parts, speakers_of(scoring, windows, x, options))


def read_options(arguments: argparse.Namespace) -> Options:
    """Return the options; raises InputError for values out of range."""
    options = Options(*(getattr(arguments, name) for name in Options._fields))._replace(vbx=arguments.vbx == "true")
    if not 0 < options.shift <= options.window <= 60:
        raise InputError(f"--window {options.window:g} and --shift {options.shift:g}: wanted seconds, 0 < shift <= "
                         "window <= 60")
    if not (options.fa > 0 and options.fb > 0 and 0 <= options.loop < 1 and np.isfinite(options[2:]).all()):
        raise InputError(f"--fa {options.fa:g}, --fb {options.fb:g}, --loop {options.loop:g}: wanted fa and fb above "
                         "0, loop from 0 to below 1")
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--chain", default="", help="name of a back-end (default: the best calibrated one)")
    parser.add_argument("--window", type=float, default=1.5, help="seconds of a window (default: %(default)s)")
    parser.add_argument("--shift", type=float, default=0.25, help="seconds between windows (default: %(default)s)")
    parser.add_argument("--bias", type=float, default=0.0, help="added to the threshold of the clustering; higher: "
                        "more clusters (default: %(default)s)")
    parser.add_argument("--vbx", choices=("true", "false"), default="true", help="assign windows anew by VBx")
    parser.add_argument("--fa", type=float, default=0.3, help="VBx: scale of likelihoods (default: %(default)s)")
    parser.add_argument("--fb", type=float, default=17.0, help="VBx: scale of the speakers' prior; higher: fewer "
                        "speakers (default: %(default)s)")
    parser.add_argument("--loop", type=float, default=0.99, help="VBx: probability that the next window has the same "
                        "speaker (default: %(default)s)")
    add_common(parser)
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("out", type=Path, help="RTTM file")
    arguments = parser.parse_args()
    options = read_options(arguments)
    if arguments.out.suffix != ".rttm":  # for example the last recording, if the output has been forgotten
        raise InputError(f"the output is {arguments.out}, wanted a name that ends in .rttm, after the recordings")
    names = [name_of(path) for path in arguments.recordings]
    if len(set(names)) < len(names):
        raise InputError(f"two recordings are called {next(n for n in names if names.count(n) > 1)}; rename one")
    for path, name in zip(arguments.recordings, names, strict=True):
        if name != Path(path).stem:
            print(f"{ascii(path)} is called {name} in {arguments.out}: a name there is one word", file=sys.stderr)
    model = load(arguments.bundle, arguments.device)  # first: it makes sure that a bundle is unchanged
    scoring = Scoring.load(arguments.bundle, arguments.chain)
    with write_aside(arguments.out) as stream:
        for path in arguments.recordings:
            stream.writelines(rttm_lines(diarize(model, scoring, path, options)))


if __name__ == "__main__":
    run_main(main)
