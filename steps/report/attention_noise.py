"""Do attention weights avoid noise? Their share on a third of an utterance, with and without an overlay.

The middle third of each utterance is overlaid with synthetic noise, another speaker's voice or music, at several ratios
of the speech's level to that of the overlay, or muted: replaced by noise QUIET_DB dB below the speech. Of the weights a
of head j over an utterance, the middle third M has the share

    s_j = sum_{t in M} a_tj

where the weight of an encoder's frame is spread evenly over the frames of the utterance that it stands for. Beside it
are the share of the same frames without the overlay and that of uniform weights, which is the frames' share. All
systems get the same sounds. Levels are those of loud frames (utils/speech.py). Intervals come from drawing utterances
anew (utils/bootstrap.py).

attention_noise.tsv has a line per system and overlay: means over the utterances of the mean share of the heads (share),
of that without the overlay (before), of uniform weights, and of share - before (change), with 95 % intervals; and of
the heads' mean shares, the smallest and the largest.
"""

import argparse
import math
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from nnet.attention import Attention, attention_of
from nnet.embed import Model, load
from nnet.poolings import POOLINGS
from steps.report.material import SIMULATED
from steps.report.plotting import mark_style, new_figure, save_figure
from utils.arguments import seed
from utils.audio import Recording, read_audio
from utils.bootstrap import REPLICATES, draws, interval
from utils.errors import InputError, run_main
from utils.features.augment import fit, made_up_noise
from utils.files import write_aside
from utils.kaldi.data_dir import CHANGES, DataDir, read_data_dir, spread
from utils.kaldi.segments import SEGMENTS, cut, segments_of
from utils.progress import progress
from utils.simulated import is_simulated
from utils.speech import SHIFT, loud_frames

NAME = "attention_noise"  # of the files
QUIET_DB = 40.0  # of the muted third, below the speech
COLUMNS = ("system", "overlay", "snr_db", "utterances", "share", "share_low", "share_high", "before", "uniform",
           "change", "change_low", "change_high", "head_min", "head_max")


class Overlay(NamedTuple):
    """What the middle third gets: none, noise, voice, music or silence; snr_db: for those that are added."""

    kind: str
    snr_db: float | None = None

    def __str__(self) -> str:
        return self.kind if self.snr_db is None else f"{self.kind} {self.snr_db:g} dB"


NONE = Overlay("none")


class Shares(NamedTuple):
    """A system's shares on the middle third of one utterance."""

    heads: np.ndarray  # (K,)
    uniform: float


class Sounds:
    """The utterances of a data directory and what is laid over them. music: files; rate: of the samples, Hz."""

    def __init__(self, data: DataDir, music: Sequence[str], rate: int, seed: int) -> None:
        self.data, self.music, self.rate, self.seed = data, music, rate, seed

    def samples(self, row: int) -> np.ndarray:
        """Return the samples of an utterance, 16-bit scale."""
        samples = read_audio(self.data.columns["wav.scp"][row], self.rate).samples
        if SEGMENTS in self.data.columns:
            return cut(samples, self.rate, *segments_of(self.data.columns[SEGMENTS][row:row + 1]))
        return samples

    def added(self, kind: str, row: int, length: int) -> np.ndarray:
        """Return `length` samples of a kind for an utterance, at any level; the same for every ratio and system."""
        rng = np.random.default_rng((self.seed, zlib.crc32(f"{self.data.ids[row]} {kind}".encode())))
        if kind == "voice":
            return fit(self.samples(int(rng.choice(self._others[self.data.speakers[row]]))), length, rng)
        if kind == "music":
            return fit(Recording(self.music[int(rng.integers(len(self.music)))], self.rate), length, rng)
        return made_up_noise(length, self.rate, rng)

    @cached_property
    def _others(self) -> dict[str, np.ndarray]:
        """The rows of all other speakers, by speaker."""
        speakers = np.array(self.data.speakers)
        return {speaker: np.flatnonzero(speakers != speaker) for speaker in set(self.data.speakers)}

    def overlaid(self, samples: np.ndarray, row: int, overlay: Overlay) -> np.ndarray:
        """Return an utterance whose middle third is overlaid."""
        if overlay == NONE:
            return samples
        start, stop = middle_third(len(samples))
        added, changed = self.added(overlay.kind, row, stop - start), samples.copy()
        ratio_db = QUIET_DB if overlay.snr_db is None else overlay.snr_db
        own = speech_power(added, self.rate)
        gain = math.sqrt(speech_power(samples, self.rate) / own / 10 ** (ratio_db / 10)) if own else 0.0
        if overlay.kind == "silence":
            changed[start:stop] = 0
        changed[start:stop] += np.float32(gain) * added
        return changed


def middle_third(length: int) -> tuple[int, int]:
    """Return where the middle third of `length` samples begins and ends."""
    return length // 3, length - length // 3


def speech_power(samples: np.ndarray, rate: int) -> float:
    """Return the mean square of the samples (16-bit scale) in loud frames; 0 for samples shorter than a frame."""
    loud = np.repeat(loud_frames(samples, rate), round(SHIFT * rate))
    return float(np.mean(np.square(samples[:len(loud)][loud], dtype=np.float64))) if loud.any() else 0.0


def shares_of(attention: Attention) -> Shares:
    """Return the shares of the weights on the frames whose middle lies in the middle third."""
    frames, encoded = attention.frames, len(attention.weights)
    place = (np.arange(len(frames)) + 0.5) / len(frames)
    overlaid = (place > 1 / 3) & (place < 2 / 3)
    whole = np.bincount(frames[frames >= 0], minlength=encoded)
    part = np.bincount(frames[(frames >= 0) & overlaid], minlength=encoded) / np.maximum(whole, 1)
    return Shares(part @ attention.weights, float(part.mean()))


def load_systems(folders: Sequence[str]) -> dict[str, Model]:
    """Return the systems by name; raises InputError if one has no attention weights."""
    names = [Path(folder).name for folder in folders]
    if len(set(names)) < len(names):
        names = list(folders)
    systems = {}
    for name, folder in zip(names, folders, strict=True):
        model = load(folder)
        if model.network is None or not hasattr(model.network.pooling, "weights"):
            able = [kind for kind, (module, _) in POOLINGS.items() if hasattr(module, "weights")]
            raise InputError(f"{folder} has no attention weights; name a network whose pooling has: {', '.join(able)}")
        if model.rate is None:
            raise InputError(f"{folder} does not state its feature options, so features of overlaid audio cannot be "
                             "computed; train it on features of steps/make_feats.sh")
        systems[name] = model
    if len(rates := {model.rate for model in systems.values()}) > 1:
        raise InputError(f"the systems take {' and '.join(map(str, sorted(rates)))} Hz; name systems of one rate")
    return systems


Measured = dict[str, dict[Overlay, list[Shares]]]  # by system and overlay, one per utterance


def measure(systems: dict[str, Model], sounds: Sounds, rows: Sequence[int], overlays: Sequence[Overlay],
            ) -> tuple[Measured, list[str]]:
    """Return the shares, and the utterances left out: silent, or with too few frames for an encoder."""
    found: Measured = {name: {overlay: [] for overlay in overlays} for name in systems}
    left_out = []
    for row in progress(rows, len(rows), NAME):
        samples = sounds.samples(row)
        if not speech_power(samples, sounds.rate):
            left_out.append(sounds.data.ids[row])
            continue
        weights: dict[tuple[str, Overlay], Attention | None] = {}
        for overlay in overlays:
            changed = sounds.overlaid(samples, row, overlay)
            weights |= {(name, overlay): attention_of(model, changed) for name, model in systems.items()}
        if any(one is None for one in weights.values()):
            left_out.append(sounds.data.ids[row])
            continue
        for (name, overlay), one in weights.items():
            found[name][overlay].append(shares_of(one))
    return found, left_out


class Row(NamedTuple):
    """A line of the table, for one system and overlay; fields as in COLUMNS."""

    system: str
    overlay: Overlay
    utterances: int
    share: tuple[float, float, float]   # with the ends of its interval
    before: float
    uniform: float
    change: tuple[float, float, float]
    heads: tuple[float, float]

    def line(self) -> str:
        """Return the line of the table."""
        numbers = (*self.share, self.before, self.uniform, *self.change, *self.heads)
        snr_db = "-" if self.overlay.snr_db is None else f"{self.overlay.snr_db:g}"
        return "\t".join((self.system, self.overlay.kind, snr_db, str(self.utterances),
                          *(f"{number:.4f}" for number in numbers))) + "\n"


def summarise(found: Measured, seed: int) -> list[Row]:
    """Return the rows of the table; the same utterances are drawn for all of them."""
    rows = []
    for name, by_overlay in found.items():
        before = np.array([one.heads.mean() for one in by_overlay[NONE]])
        counts = np.stack(list(draws(len(before), REPLICATES, seed)))
        for overlay, shares in by_overlay.items():
            heads = np.stack([one.heads for one in shares])  # utterances x K
            share, of_heads = heads.mean(axis=1), heads.mean(axis=0)
            rows.append(Row(name, overlay, len(share), with_interval(share, counts), float(before.mean()),
                            float(np.mean([one.uniform for one in shares])), with_interval(share - before, counts),
                            (float(of_heads.min()), float(of_heads.max()))))
    return rows


def with_interval(values: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Return the mean of N values with the ends of its interval. counts: replicates x N, how often each is drawn."""
    return (float(values.mean()), *interval(counts @ values / len(values)))


def draw_points(axis: Axes, rows: Sequence[Row], overlays: Sequence[Overlay], field: str) -> None:
    """Draw a group per overlay and in it, per system, a mean with its interval: `share` or `change` of the rows."""
    systems = list(dict.fromkeys(row.system for row in rows))
    for number, system in enumerate(systems):
        own = [row for row in rows if row.system == system]
        apart = 0.7 / len(systems) * (number - (len(systems) - 1) / 2)
        x = np.array([overlays.index(row.overlay) for row in own]) + apart
        mean, low, high = np.array([getattr(row, field) for row in own]).T
        axis.errorbar(x, mean, (mean - low, high - mean), linestyle="none", label=system, markersize=5, elinewidth=1.2,
                      **mark_style(number))
        if field == "share":
            axis.plot(x, [row.uniform for row in own], "_", color="0.4", markersize=9,
                      label="" if number else "uniform weights")
    axis.set_xticks(range(len(overlays)), [str(overlay) for overlay in overlays])
    axis.set_xlim(-0.5, len(overlays) - 0.5)
    axis.grid(axis="y", color="0.9", linewidth=0.6)


def write_figure(rows: Sequence[Row], remark: str, stem: Path) -> None:
    """Write <stem>.png and <stem>.pdf: above the shares, below their changes. remark: for the title."""
    overlays = list(dict.fromkeys(row.overlay for row in rows))
    figure = new_figure(max(6.4, len(overlays) + 1.6), 5.2)
    above, below = figure.subplots(2, 1, sharex=True)
    draw_points(above, rows, overlays, "share")
    above.set(title=f"attention weight on the middle third{remark}", ylabel="share of the weight")
    draw_points(below, [row for row in rows if row.overlay != NONE], overlays, "change")
    below.axhline(0, color="0.4", linewidth=0.8)
    below.set(title="against the same frames without the overlay", ylabel="change of the share")
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save_figure(figure, stem, ("png", "pdf"))


def ratios(text: str) -> list[float]:
    """Read the value of --snrs; raises InputError unless it is finite numbers."""
    try:
        found = list(map(float, text.split()))
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)):
        raise InputError(f"--snrs is {text!r}, wanted numbers in dB, separated by spaces: \"10 0\"")
    return list(dict.fromkeys(found))


def read_recordings(folder: Path) -> DataDir:
    """Read a data directory; raises InputError if its audio is changed or made by commands, or of a single speaker."""
    data = read_data_dir(folder)
    changed = [name for name in CHANGES if name in data.columns]
    if "wav.scp" not in data.columns or changed:
        fault = f"has {changed[0]}" if changed else "has no wav.scp"
        raise InputError(f"{folder} {fault}; name the raw data directory of the original recordings")
    if commands := [path for path in data.columns["wav.scp"] if path.endswith("|")]:
        raise InputError(f"{folder}/wav.scp names commands: {commands[0]!r}; name a directory with audio files")
    if len(set(data.speakers)) < 2:
        raise InputError(f"{folder} has one speaker; the voice that is laid over an utterance needs another")
    return data


def music_of(musan: Path) -> list[str]:
    """Return the music files of MUSAN; raises InputError if there are none."""
    found = sorted(map(str, musan.glob("music/**/*.wav")))
    if not found:
        raise InputError(f"no music/**/*.wav in {musan}; name the unpacked corpus")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--utterances", type=int, default=40, help="at most, evenly spread (default: %(default)s)")
    parser.add_argument("--snrs", type=ratios, default=[10.0, 0.0], help="dB from overlay to speech: \"10 0\"")
    parser.add_argument("--musan-root", type=Path, help="MUSAN, for music; without it, there is none")
    parser.add_argument("--seed", type=seed, default=1, help="(default: %(default)s)")
    parser.add_argument("data", type=Path, help="data directory with audio")
    parser.add_argument("out", type=Path, help=f"folder to write {NAME}.tsv, .png and .pdf into")
    parser.add_argument("systems", nargs="+", help="trained networks whose pooling has weights")
    arguments = parser.parse_args()
    if arguments.utterances < 1:
        raise InputError(f"--utterances is {arguments.utterances}, wanted 1 or more")
    data = read_recordings(arguments.data)
    music = music_of(arguments.musan_root) if arguments.musan_root else []
    kinds = ["noise", "voice", *["music"] * bool(music)]
    overlays = [NONE, *(Overlay(kind, snr_db) for kind in kinds for snr_db in arguments.snrs), Overlay("silence")]
    systems = load_systems(arguments.systems)
    sounds = Sounds(data, music, next(iter(systems.values())).rate, arguments.seed)
    rows = spread(range(len(data.ids)), min(arguments.utterances, len(data.ids)))
    found, left_out = measure(systems, sounds, rows, overlays)
    if len(left_out) == len(rows):
        raise InputError(f"{arguments.data}: all {len(rows)} utterances are silent or have too few frames for an "
                         f"encoder, such as {left_out[0]}; name longer ones")
    table = summarise(found, arguments.seed)
    with write_aside(arguments.out / f"{NAME}.tsv") as stream:
        stream.write("\t".join(COLUMNS) + "\n")
        stream.writelines(map(Row.line, table))
    write_figure(table, SIMULATED if is_simulated(data.ids[0]) else "", arguments.out / NAME)
    for row in table:
        print(f"{row.system}, {row.overlay}: {row.share[0]:.3f} of the weight, before {row.before:.3f}, uniform "
              f"{row.uniform:.3f}")
    if left_out:
        print(f"left out, silent or too short: {len(left_out)} of {len(rows)} utterances, such as {left_out[0]}")


if __name__ == "__main__":
    run_main(main)
