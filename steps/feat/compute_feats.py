"""Compute the features of one part of a data directory: the job that steps/make_feats.sh runs nj times.

Job 3 of 4 takes the third quarter of the utterances and writes into the output directory

    feats.3.ark feats.3.scp    the features, in the data directory's order
    log/utt2num_frames.3       id10270-x6uYqmx31kE-00001 827
    log/report.3.json          utterances that failed, and counts of files that were converted or are silent

An utterance that cannot be read is named and left out; steps.feat.collect_feats decides whether that is acceptable.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.audio import Audio, change_speed, read_audio
from utils.errors import InputError, run_main
from utils.features.augment import augment, read_plan
from utils.features.compute import compute_features
from utils.features.options import FeatureOptions, read_feature_options
from utils.files import write_aside
from utils.formants import move_formants
from utils.jobs.part import part_of
from utils.kaldi.ark import ArkWriter
from utils.kaldi.data_dir import CHANGES, read_audio_table, read_column
from utils.kaldi.segments import SEGMENTS, Segment, cut, segments_of
from utils.progress import progress
from utils.space import require_space

PROBED = 8  # files whose lengths are read before a job writes
BYTES_A_VALUE = {0: 4, 3: 2, 4: 2}  # by Kaldi's compression method; the others take one byte


class Utterance(NamedTuple):
    """What the features of an utterance are computed from."""

    name: str
    path: str     # or a command
    speed: str
    formants: str
    plan: str     # of its augmentation
    segment: Segment | None  # None: the whole file


class Report:
    """A job's failures and notes on its utterances, written to log/report.JOB.json."""

    def __init__(self) -> None:
        self.failed: dict[str, str] = {}             # utterance -> message
        self.notes: dict[str, tuple[int, list[str]]] = {}  # "44100 Hz" -> number of utterances, the first five

    def note(self, note: str, name: str) -> None:
        """Count a note on an utterance."""
        count, names = self.notes.get(note, (0, []))
        self.notes[note] = count + 1, [*names, name][:5]

    def fail(self, name: str, message: object) -> None:
        """Record that an utterance has no features, and log it."""
        self.failed[name] = str(message)
        print(f"warning: {name}: {message}", file=sys.stderr)


def utterances(data: Path, job: int, jobs: int) -> Iterator[Utterance]:
    """Yield the utterances of a part."""
    ids, paths, segments = read_audio_table(data)
    mine = part_of(len(ids), job, jobs)
    part, changes = slice(mine.start, mine.stop), []
    for name, nothing in CHANGES.items():
        values = [nothing] * len(ids)
        if (data / name).exists():
            theirs, values = read_column(data / name)
            if theirs != ids:
                raise InputError(f"{data}/{name} lists other utterances than wav.scp; make {data} again")
        changes.append(values[part])
    cuts = [None] * len(mine) if segments is None else segments_of(segments[part])
    yield from map(Utterance, ids[part], paths[part], *changes, cuts)


class Reader:
    """Reads utterances; the last recording is kept, since its other segments mostly follow."""

    def __init__(self, rate: int, pipes: bool) -> None:
        self.rate, self.pipes, self.recording, self.audio = rate, pipes, "", Audio(np.empty(0, np.float32), ())

    def read(self, path: str, segment: Segment | None = None) -> Audio:
        """Return the audio of a file, or of a part of it; raises InputError."""
        if segment is None:
            return read_audio(path, self.rate, self.pipes)
        if path != self.recording:
            self.audio = read_audio(path, self.rate, self.pipes)
            self.recording = path
        return self.audio.part(cut(self.audio.samples, self.rate, segment))


def features_of(one: Utterance, options: FeatureOptions, reader: Reader) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the features of an utterance, and the notes on reading it."""
    audio = reader.read(one.path, one.segment)
    samples = audio.samples if float(one.speed) == 1 else change_speed(audio.samples, float(one.speed))
    if float(one.formants) != 1:
        samples = move_formants(samples, options.rate, float(one.formants))
    samples = augment(samples, read_plan(one.plan), options.rate, lambda other: reader.read(other).samples)
    try:
        return compute_features(samples, options), audio.notes
    except InputError as error:
        raise InputError(f"{one.path}: {error}; remove it from {SEGMENTS if one.segment else 'wav.scp'}") from error


def seconds_of(one: Utterance, reader: Reader) -> float:
    """Return the length of an utterance, at its speed."""
    if one.segment and one.segment.end:
        return (one.segment.end - one.segment.start) / float(one.speed)
    return len(reader.read(one.path, one.segment).samples) / reader.rate / float(one.speed)


def estimate_bytes(part: list[Utterance], options: FeatureOptions, compression: int) -> float:
    """Estimate the bytes that the features of some utterances take, from the lengths of a few."""
    lengths, reader = [], Reader(options.rate, pipes=False)
    for one in part[::max(1, len(part) // PROBED)]:
        with contextlib.suppress(InputError):  # unreadable files and commands: handled in their turn
            lengths.append(seconds_of(one, reader))
    seconds = sum(lengths) / max(1, len(lengths))
    frames = seconds * 1000 / options.kaldi.frame_opts.frame_shift_ms
    return len(part) * (frames * options.dim * BYTES_A_VALUE.get(compression, 1) + 100)


def compute_part(options: FeatureOptions, data: Path, output: Path, job: int, jobs: int,
                 compression: int, pipes: bool) -> Report:
    """Write the features of part `job` of `jobs` of a data directory; see the module."""
    report, reader = Report(), Reader(options.rate, pipes)
    part = list(utterances(data, job, jobs))
    still = (jobs - job + 1) * estimate_bytes(part, options, compression)  # for this job and those after it
    require_space(output, still, f"the features of {output}")
    with (ArkWriter(output / f"feats.{job}", compression) as writer,
          write_aside(output / f"log/utt2num_frames.{job}") as lengths):
        for one in progress(part, len(part), "features"):
            try:
                features, notes = features_of(one, options, reader)
            except InputError as error:
                report.fail(one.name, error)
                continue
            writer.write(one.name, features)
            lengths.write(f"{one.name} {len(features)}\n")
            for note in notes:
                report.note(note, one.name)
    with write_aside(output / f"log/report.{job}.json") as stream:
        json.dump(vars(report), stream, indent=1)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", type=int, default=1, help="number of the part, from 1")
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--compression", type=int, default=3, choices=range(8),
                        help="Kaldi's method; 0: none")
    parser.add_argument("--allow-pipes", choices=("true", "false"), default="false",
                        help="run commands that wav.scp holds instead of paths")
    parser.add_argument("conf", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    compute_part(read_feature_options(arguments.conf), arguments.data, arguments.output, arguments.job,
                 arguments.nj, arguments.compression, arguments.allow_pipes == "true")


if __name__ == "__main__":
    run_main(main)
