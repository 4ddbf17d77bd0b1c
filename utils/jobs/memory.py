"""The memory that a step's jobs need, as the launcher's `--mem`: `python3 -m utils.jobs.memory STEP NAME=VALUE ...`.

A step calls this before it launches its jobs (utils/step.sh). Every estimate is a sum of terms in sizes that are known
then: utterances, frames, dimensions, the model. nnet/memory.py adds the sizes of networks. The last line of a job's log
compares the request with the measured peak (utils/jobs/task.py); docs/clusters.md has the table of both.

Where features or embeddings do not exist yet, as in a dry run, the utterances of the directories that they are made of
count. If these do not exist either, the sizes of VoxCeleb1 and VoxCeleb2 together are assumed, and a line
`# ... assumed` says so.
"""

import contextlib
import math
import os
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import InputError, run_main
from utils.files import count_lines
from utils.strict_yaml import read_yaml

MB, GB = 1 << 20, 1 << 30
SPARE = 1.25         # allocators keep freed blocks, and versions of libraries differ: a quarter more
STEP_MB = 100        # requests are multiples of it
# Resident memory of a process that has imported its libraries and done little else, measured with torch 2.13.0.
NUMPY, AUDIO, TORCH = 40 * MB, 120 * MB, 330 * MB
CUDA = 3 * GB        # libraries and context of a GPU, on the host: not measured yet
NAME = 600           # bytes of an utterance's id, path and place in Python's lists
ASSUMED = {"utterances": 1_240_651, "speakers": 7_205, "frames": 820, "longest": 15_000, "dim": 512}
PROBED = 2000        # audio files whose sizes are looked up
DECODED = {".wav": 2, ".flac": 4}  # bytes of float32 samples per byte of a file; others 16: m4a at 32 kbit/s, 16 kHz
COPIES = 3           # of a recording's samples: as read, at another speed or augmented, and in features
BLOCK_MB = 330       # of a thread's block of frames in the i-vector chain, with what its allocator keeps


class Data(NamedTuple):
    """Sizes of a data directory with features."""

    utterances: int
    frames: float   # mean per utterance
    longest: int    # frames
    dim: int        # values per frame


def assume(what: str, name: str) -> int:
    """Return the assumed value of an unknown size, and say so."""
    print(f"# {what} does not exist yet: {name} {ASSUMED[name]:,} assumed", file=sys.stderr)
    return ASSUMED[name]


def count_of(table: Path) -> int:
    """Return the number of lines in a table of a data directory.

    If data/mfcc24/train_net_sp does not exist yet, count the lines of data/train_net and data/train_sp, from which a
    recipe makes it. If they do not exist either, return the assumed number.
    """
    if not table.is_file():
        data, (first, *more) = table.parent.parent.parent, table.parent.name.split("_")
        sources = [data / name / table.name for name in [f"{first}_{part}" for part in more] or [first]]
        if not all(source.is_file() for source in sources):
            return assume(str(table), "speakers" if table.name == "spk2utt" else "utterances")
        return sum(count_of(source) for source in sources)
    with table.open("rb") as stream:
        return sum(1 for _ in stream)


def data_of(folder: Path, features: str = "") -> Data:
    """Return the sizes of a data directory. features: their name, such as mfcc24, which says their dimension."""
    found = re.search(r"\d+", features)
    dim = int(found[0]) if found else 80
    if not (folder / "feats.scp").is_file():
        return Data(count_of(folder / "utt2spk"), ASSUMED["frames"], ASSUMED["longest"], dim)
    if not found:
        from utils.kaldi.ark import iterate  # numpy, which is not needed otherwise

        with contextlib.suppress(InputError):  # the job will name what is damaged
            dim = next((x.shape[1] for _, x in iterate(folder / "feats.scp")), dim)
    utterances, total, longest = count_of(folder / "feats.scp"), 0, 0
    lengths = folder / "utt2num_frames"  # Kaldi's directories may lack it
    if not lengths.is_file():
        return Data(utterances, ASSUMED["frames"], ASSUMED["longest"], dim)
    with lengths.open("rb") as stream:
        for line in stream:
            words = line.split()
            count = int(words[1]) if len(words) == 2 and words[1].isdigit() else 0
            total, longest = total + count, max(longest, count)
    return Data(utterances, total / max(1, utterances), longest, dim)


def embeddings_of(path: Path) -> tuple[int, int]:
    """Return the number and the bytes of the vectors in a folder of embeddings, or of a script."""
    scripts = [path] if path.is_file() else sorted(path.glob("[xi]vector.scp"))
    if not scripts:
        folder = path.parent if path.suffix == ".scp" else path  # work/exp/xvector/embeddings_train: of work/data/train
        table = folder.parent.parent.parent / "data" / folder.name.partition("_")[2] / "utt2spk"
        count = count_of(table) if table.is_file() else assume(str(path), "utterances")
        return count, 4 * ASSUMED["dim"] * count
    archives = scripts[0].parent.glob(f"{scripts[0].stem}*.ark")
    return count_of(scripts[0]), sum(file.stat().st_size for file in archives)


def make_feats(data: str) -> float:
    """Features: the tables of the whole directory, and one recording, at its rate, at ours, augmented, in frames."""
    table = Path(data, "wav.scp")
    if not table.is_file():
        return AUDIO + NAME * assume(data, "utterances") + 6 * 4 * 160 * ASSUMED["longest"]
    with table.open(encoding="utf-8", errors="surrogateescape") as stream:
        paths = [line.rstrip("\n").partition(" ")[2] for line in stream]
    largest = 0
    for path in paths[::max(1, len(paths) // PROBED)]:
        if os.path.isfile(path):  # not a command
            largest = max(largest, os.path.getsize(path) * DECODED.get(Path(path).suffix.lower(), 16))
    return AUDIO + NAME * len(paths) + COPIES * largest


def compute_vad(data: str) -> float:
    """Voice activity: the script, and an utterance's features and what is computed from them."""
    sizes = data_of(Path(data))
    return NUMPY + NAME * sizes.utterances + 4 * 4 * sizes.longest * sizes.dim


class Ivector(NamedTuple):
    """Sizes of an i-vector system. m, r, v: bytes in float64 of the projections (C D S), of the sums gamma E[x x^T]
    (C S(S+1)/2) and of the covariances (C D D)."""

    data: Data
    gaussians: int
    features: int  # D, after the front end
    frames: int    # drawn for the UBM
    seen: int      # frames of the UBM's later iterations, if they are others
    parts: int     # of the UBM's frames
    gselect: int
    cache: float
    m: float
    r: float
    v: float


def ivector_of(config: str, data: str) -> Ivector:
    """Return the sizes of an i-vector system from its configuration and data."""
    if not Path(config).is_file():
        raise InputError(f"{config} does not exist; name the system's configuration")
    keys: dict[str, Any] = read_yaml(Path(config))
    ubm, extractor, frontend = (keys.get(part, {}) for part in ("ubm", "extractor", "frontend"))
    sizes = data_of(Path(data), str(keys.get("features", "")))
    c, s = int(ubm.get("num_gaussians", 2048)), int(extractor.get("dim", 400))
    d = sizes.dim * (1 + int(frontend.get("deltas", 0)))
    total, subsample = int(sizes.utterances * sizes.frames), int(ubm.get("subsample", 0))
    frames, seen = min(int(ubm.get("num_frames", 1_000_000)), total), total // subsample if subsample else 0
    return Ivector(sizes, c, d, frames, seen, int(ubm.get("parts", 8)), int(ubm.get("num_gselect", 20)),
                   float(extractor.get("cache_gb", 2)) * GB,
                   8 * c * d * s, 8 * c * s * (s + 1) / 2, 8 * c * d * d)


def threads_of_blocks(system: Ivector, threads: int) -> float:
    """Blocks in progress, one per thread and one that waits: a block's frames with each pair's distances and products,
    its share of the sums of x x^T, and the frames of its utterances (32 of them) with the Gaussians' scores."""
    scores = 2 * 4 * 8192 * system.gaussians
    return (threads + 1) * (BLOCK_MB * MB + scores + system.v / 2)


def train_ubm(config: str, data: str, threads: str = "1", job: str = "all", nj: str = "1",
              device: str = "cpu") -> float:
    """job: all, initial, accumulate (of `nj` jobs) or update.

    all          the drawn frames, twice while they are joined, their selected Gaussians (int32), the blocks; in an
                 M-step the sums, the covariances, their eigenvectors, and copies of these
    initial      of these the frames; blocks of 2048 frames with the scores of all Gaussians; a mixture to resume from
    accumulate   the frames and Gaussians of the job's parts, the blocks; the covariances and what is computed from
                 them, a part's sums, and twice these while they are written
    update       what an M-step takes, and the sums of a part
    Frames of later iterations (ubm.subsample) are in memory one part at a time, four times while they are written.
    """
    system = ivector_of(config, data)
    frame, selected = 4 * system.features, 4 * system.gselect
    share = math.ceil(system.parts / int(nj)) / system.parts
    frames = {"all": system.frames * (2 * frame + selected), "initial": system.frames * 2 * frame,
              "accumulate": share * system.frames * (frame + selected), "update": 0}[job]
    matrices = {"all": 6, "initial": 1, "accumulate": 6, "update": 8}[job] * system.v
    blocks = {"initial": (int(threads) + 1) * 4 * 4 * 2048 * system.gaussians, "update": 0}.get(
        job, threads_of_blocks(system, int(threads)))
    part = 0 if job == "update" else 4 * system.seen / system.parts * (frame + selected)
    return TORCH + on_gpu(device) + NAME * system.data.utterances + frames + part + matrices + blocks


def train_extractor(config: str, data: str, threads: str = "1", job: str = "all", device: str = "cpu") -> float:
    """job: all, accumulate or update.

    all          model m, its projections in float32 m/2 and r/2, all sums m + r, a part's sums in both precisions 1.5
                 (m + r), and the statistics kept between iterations
    accumulate   model, projections, a part's sums, and twice these while they are written
    update       all sums, a part's, old and new model, and twice the model while it is written; per thread the S x S
                 matrices of 64 Gaussians, six times
    """
    system = ivector_of(config, data)
    u, c, d = system.data.utterances, system.gaussians, system.features
    cache = min(system.cache, 4 * u * c * (d + 1))
    sizes = {"all": 4 * system.m + 3 * system.r + 4 * system.v + cache,
             "accumulate": 4.5 * system.m + 3.5 * system.r + 6 * system.v,
             "update": 5 * system.m + 2 * system.r + 6 * system.v}
    matrices = 6 * 64 * 2 * system.r / c
    work = int(threads) * matrices if job == "update" else threads_of_blocks(system, int(threads))
    return TORCH + on_gpu(device) + NAME * u + sizes[job] + work


def extract_ivectors(config: str, data: str, device: str = "cpu") -> float:
    """The model as read, twice while it is put together, its projections in float64 and then float32, one block."""
    system = ivector_of(config, data)
    return (TORCH + on_gpu(device) + NAME * system.data.utterances + 3 * system.m + 1.5 * system.r + 4 * system.v
            + threads_of_blocks(system, 1) / 2)


def make_posteriors(config: str, data: str) -> float:
    """The mixture, its inverses and factors, and the frames of an utterance with the scores of all Gaussians."""
    system = ivector_of(config, data)
    return TORCH + NAME * system.data.utterances + 6 * system.v + threads_of_blocks(system, 1) / 2


def train_backend(embeddings: str, copies: str = "") -> float:
    """The embeddings as read and without the held-out ones, and after each transform of a chain while it is fitted;
    D x D matrices in float64."""
    count, size = embeddings_of(Path(embeddings))
    if copies:
        more, bytes_of_copies = embeddings_of(Path(copies))
        count, size = count + more, size + 2 * bytes_of_copies
    dim = size / max(1, count) / 4
    return NUMPY + NAME * count + 5 * size + 20 * 8 * dim * dim


def score(embeddings: str, threads: str = "1", cohort: str = "", trials: str = "") -> float:
    """The embeddings as read; those that a list names transformed, as both sides of a trial, and once more while the
    sides of two scores are joined; per thread a block of the list, as text, as rows and as scores. cohort: embeddings
    to normalise with. trials: the list; where it is short, it names but a part (steps/backend/score.py)."""
    count, size = embeddings_of(Path(embeddings))
    named = min(count, 2 * count_lines(trials, most=count)) if trials and Path(trials).is_file() else count
    compared = size * named / max(1, count)
    if cohort:
        more, bytes_of_cohort = embeddings_of(Path(cohort))
        count, size = count + more, size + 2 * bytes_of_cohort
    return NUMPY + NAME * count + size + 8 * compared + 60 * MB * min(8, int(threads))


def on_gpu(device: str) -> float:
    """What CUDA takes on the host."""
    return 0 if device == "cpu" else CUDA


def request(size: float) -> str:
    """Return bytes as the value of `--mem`, with spare room."""
    return f"{STEP_MB * math.ceil(SPARE * size / MB / STEP_MB)}M"


ESTIMATES = {function.__name__: function for function in (
    make_feats, compute_vad, train_ubm, train_extractor, extract_ivectors, make_posteriors, train_backend, score)}


def main(estimates: dict[str, Any] = ESTIMATES) -> None:
    """Print the request of a step. estimates: functions that return bytes, by step."""
    step, *words = sys.argv[1:]
    print(request(estimates[step](**dict(word.split("=", 1) for word in words))))


if __name__ == "__main__":
    run_main(main)
