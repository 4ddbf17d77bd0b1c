"""Every reader of files, given damaged ones, reads what it can or raises InputError, and takes little memory.

Its result must be that of a second reader (tests/fuzz/plain.py), if there is one. Files are valid ones with bytes
changed, cut, repeated or replaced by troublesome numbers. A failure prints the changes and a line that reproduces it.
VOX_FUZZ_EXAMPLES sets the number of files per reader (default 30; tests/run.sh --all: 150), VOX_FUZZ_SEED the seed
(default: the date). tests/fuzz/run.sh runs for a given time, with a new seed each time.
"""

import io
import json
import os
import resource
import shutil
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from local.trial_lists import TrialList
from nnet.config import network_config
from nnet.embed import load_network
from nnet.model import Network
from nnet.training.checkpoint import load_checkpoint, save_checkpoint
from steps.backend.plda import from_covariances, read_plda, write_plda
from steps.ivector.alignments import Alignment, iterate_alignments, write_gselect, write_posteriors
from steps.ivector.extractor import Extractor, read_extractor, write_extractor
from steps.ivector.gmm import DiagGmm, FullGmm
from steps.ivector.gmm_files import read_diagonal, read_full, write_diagonal, write_full
from tests.fuzz import plain
from tests.unit.made_up import CONFIG
from utils.audio import read_audio
from utils.config import load_config
from utils.errors import InputError
from utils.features.options import read_feature_options
from utils.jobs.engine_config import EngineConfig
from utils.jobs.fingerprint import read_record
from utils.jobs.lock import WORDS, read_holder
from utils.kaldi.ark import ArkWriter, RowReader, iterate, read_vectors
from utils.kaldi.data_dir import read_data_dir
from utils.kaldi.fix_data_dir import fix
from utils.kaldi.objects import read_matrix, read_vector, write_matrix
from utils.kaldi.trials import trial_lines
from utils.labelled_scores import read_kaldi_scores, read_labelled_scores
from utils.tensor_file import load_tensors, save_tensors

EXAMPLES = int(os.environ.get("VOX_FUZZ_EXAMPLES", "30"))
SEED = int(os.environ.get("VOX_FUZZ_SEED") or f"{date.today():%Y%m%d}")
MEMORY = 4 << 20       # bytes that reading may take in addition to twice the file
TEXT_BLOCKS = 50 << 20  # long lists are read in blocks of a fixed size
AUDIO_BLOCK = 40 << 20  # and audio, of up to eight channels
DECODED = 64           # bytes of decoded and resampled audio per byte of a file
TROUBLE = [struct.pack("<i", value) for value in (-1, 0, 1, 2**31 - 1, -2**31, 2**24)] + [
    b"\xff" * 8, b"\0" * 8, struct.pack("<f", float("nan")), b"\n", b"\r\n", b" ", b"\t", b"[", b"]", b";", b"nan",
    b"-1", b"1e400", b"99999999999999999999", b"\xc3\x28", b"../../x", b"|", b"FM ", b"CM2 ",
    b"&a [*a]", b"!!python/object:os.system"]
Change = tuple[int, int, int, bytes]


def damaged(content: bytes, changes: list[Change]) -> bytes:
    """Apply changes (kind, place, length, bytes); places are taken modulo the length, parts end at the end."""
    for kind, place, length, new in changes:
        place %= len(content) + 1
        end = min(len(content), place + length)
        if kind == 0:    # replace
            content = content[:place] + new + content[place + len(new):]
        elif kind == 1:  # insert
            content = content[:place] + new + content[place:]
        elif kind == 2:  # delete
            content = content[:place] + content[end:]
        elif kind == 3:  # repeat
            content = content[:end] + content[place:end] + content[end:]
        else:            # cut off
            content = content[:place]
    return content


CHANGES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1 << 16), st.integers(1, 64),
                             st.sampled_from(TROUBLE) | st.binary(min_size=1, max_size=8)), min_size=1, max_size=4)


def fixed_list(path: Path) -> list[str]:
    return [word for line in trial_lines(path) for word in line.rstrip("\n").split(" ")]


def rows(path: Path) -> list[tuple[str, np.ndarray]]:
    reader = RowReader(path)
    return [(name.strip(), reader.read(index)) for index, name in enumerate(reader.ids)]


def table(path: Path) -> list[tuple[str, np.ndarray]]:
    return [(name.strip(), value) for name, value in iterate(path)]


def vectors(path: Path) -> tuple[list[str], np.ndarray]:
    ids, values = read_vectors(path)
    return [name.strip() for name in ids], values


DATA = {"utt2spk": "a-1 a\na-2 a\n", "spk2utt": "a a-1 a-2\n", "wav.scp": "a-1 /x/1.wav\na-2 /x/2.wav\n"}


def data_dir(path: Path) -> dict[str, dict[str, str]]:
    for name, content in DATA.items():
        if name != path.name:
            path.with_name(name).write_text(content)
    data = read_data_dir(path.parent)
    return {name: dict(zip(data.ids, values, strict=True)) for name, values in data.columns.items()}


def mended(path: Path) -> None:
    """Mend the data directory of a damaged table: the result is valid, and contains only lines of the damaged table."""
    folder = path.parent / "mended"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "trials").mkdir(parents=True)
    for name, content in (DATA | {"trials/list": "a-1 a-2 target\n"}).items():
        (folder / name).write_text(content)
    name = path.name.removeprefix("mended-").replace("list", "trials/list")
    shutil.copy(path, folder / name)
    fix(folder)
    data = read_data_dir(folder)
    known = [line.replace("\r", "").split(maxsplit=1)
             for line in path.read_bytes().decode("utf-8", "replace").split("\n")]
    for one, value in zip(data.ids, data.columns.get(name, ()), strict=False):
        assert any(words[:1] == [one] and words[1:] and words[1].strip() == value for words in known)


def checkpoint(path: Path) -> None:
    load_checkpoint(path, *NETWORK, None)


def write_table(path: Path, binary: bool = True, compression: int = 0) -> None:
    rng = np.random.default_rng(0)
    with ArkWriter(path.with_suffix(""), compression, binary) as writer:
        for name in ("a", "b"):
            writer.write(name, rng.normal(size=(12, 4)))


def write_vectors(path: Path) -> None:
    with ArkWriter(path.with_suffix("")) as writer:
        for name in ("a", "b"):
            writer.write(name, np.arange(4))


def write_alignment(path: Path, write, binary: bool = True) -> None:
    entry = Alignment(np.array([2, 1]), np.array([3, 0, 1]), np.array([0.5, 0.5, 1], np.float32))
    with ArkWriter(path.with_suffix(""), binary=binary) as writer:
        writer.write_object("a", lambda kaldi: write(kaldi, entry))


def audio(path: Path, kind: str) -> None:
    stream = io.BytesIO()
    soundfile.write(stream, np.sin(np.arange(4000) / 9) / 2, 16000, format=kind)
    path.write_bytes(stream.getvalue())


def aac(path: Path, kind: str) -> None:
    with av.open(str(path), "w", format=kind) as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        values = (np.sin(np.arange(8192) / 9) / 2).astype(np.float32)
        for start in range(0, 8192, 1024):
            frame = av.AudioFrame.from_ndarray(values[None, start:start + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def heard(path: Path) -> np.ndarray:
    samples = read_audio(path).samples
    assert samples.dtype == np.float32 and samples.ndim == 1 and len(samples) and np.isfinite(samples).all()
    return samples


def model(path: Path) -> None:
    """Write a small trained network: weights, and a configuration as training writes it."""
    mapping = CONFIG | {"feature_dim": 10, "speakers": 3}
    network = Network(network_config(mapping, "test"), 10, 3)
    save_file(network.state_dict(), path.with_name("model.safetensors"))
    path.with_name("config.yaml").write_text(yaml.safe_dump(mapping))


def with_base(path: Path) -> None:
    path.with_name("other.yaml").write_text("kind: network\nubm: {num: 2, list: [1, 2]}\nmini:\n  ubm: {num: 1}\n")
    path.write_text("base: other\nubm: {more: 1e-3}\nname: 'a b'\nmini:\n  ubm: {list: [3]}\n")


def feature_options(path: Path) -> dict[str, float]:
    """Return the numbers in a file of options, as our reader understood them."""
    kaldi = read_feature_options(path).kaldi
    known = {"num-ceps": kaldi.num_ceps, "low-freq": kaldi.mel_opts.low_freq,
             "frame-shift": kaldi.frame_opts.frame_shift_ms}
    return {name: float(known[name]) for name in plain.options(path) if name in known}


NETWORK = (torch.nn.Linear(2, 2), torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]))
GMM = DiagGmm(torch.full((2,), 0.5), torch.randn(2, 3), torch.ones(2, 3))
FULL = FullGmm(torch.full((2,), 0.5), torch.randn(2, 3), torch.eye(3).repeat(2, 1, 1))
IE = Extractor(torch.randn(2, 3, 2).double(), torch.eye(3).double().repeat(2, 1, 1), 10.0, torch.ones(2).double())
TRIALS = "a-1 a-2 target\na-1 b-1 nontarget\n"
SCORES = "a-1 a-2 1.5\na-1 b-1 -2\n"
# By file: a function that writes a valid one, our reader, and second readers if there are any.
READERS: dict[str, tuple[Callable[..., Any], ...]] = {
    "matrix.ark": (write_table, table, plain.table, plain.plain_table),
    "text.ark": (lambda path: write_table(path, binary=False), table, plain.table),
    "cm.ark": (lambda path: write_table(path, compression=2), table, plain.compressed),
    "cm2.ark": (lambda path: write_table(path, compression=3), table, plain.compressed),
    "cm3.ark": (lambda path: write_table(path, compression=5), table, plain.compressed),
    "vectors.ark": (write_vectors, vectors, plain.vectors, plain.plain_vectors),
    "table.scp": (write_table, table, plain.script),
    "rows.scp": (write_table, rows, plain.script),
    "transform.mat": (lambda path: write_matrix(path, np.eye(3)), read_matrix, plain.one_value),
    "mean.vec": (lambda path: path.write_bytes(b"\0BFV \4\2\0\0\0\0\0\x80?\0\0\x80?"), read_vector, plain.one_value),
    "final.dubm": (lambda path: write_diagonal(path, GMM), read_diagonal),
    "text.dubm": (lambda path: write_diagonal(path, GMM, binary=False),
                  lambda path: (lambda gmm: (gmm.weights, gmm.means, gmm.variances))(read_diagonal(path)),
                  plain.diagonal),
    "final.ubm": (lambda path: write_full(path, FULL), read_full),
    "final.ie": (lambda path: write_extractor(path, IE), read_extractor),
    "plda": (lambda path: write_plda(path, from_covariances(np.zeros(3), np.eye(3), np.eye(3))), read_plda),
    "post.ark": (lambda path: write_alignment(path, write_posteriors), lambda path: list(iterate_alignments(path))),
    "post-text.ark": (lambda path: write_alignment(path, write_posteriors, binary=False),
                      lambda path: list(iterate_alignments(path)), plain.posteriors),
    "gselect.ark": (lambda path: write_alignment(path, write_gselect),
                    lambda path: list(iterate_alignments(path, gselect=True))),
    "state.safetensors": (lambda path: save_tensors(path, {"m": torch.ones(4)}, {"iteration": 1}),
                          lambda path: (load_tensors(path) or [None])[0], plain.tensors),
    "checkpoint.safetensors": (lambda path: save_checkpoint(path, *NETWORK, {}, None, {"step": 1}), checkpoint),
    "model.safetensors": (model, lambda path: load_network(path.parent)[0].state_dict(), plain.tensors),
    "config.yaml": (model, lambda path: load_network(path.parent)),
    "trials": (lambda path: path.write_text(TRIALS), fixed_list, plain.trials),
    "veri_test.txt": (lambda path: path.write_text("1 id1/v/1.wav id1/v/2.wav\n0 id1/v/1.wav id2/v/1.wav\n"),
                      lambda path: [label for _, _, label in TrialList(path, {}).read()],
                      plain.labels),
    "scores": (lambda path: path.write_text(SCORES), lambda path: read_labelled_scores(trials_beside(path), path),
               plain.scores),
    "eer-input": (lambda path: path.write_text("1.5 target\n-2 nontarget\n"), read_kaldi_scores,
                  plain.labelled_numbers),
    **{name: (lambda path: path.write_text(DATA[path.name]), data_dir, plain.columns)
       for name in ("utt2spk", "wav.scp", "spk2utt")},
    **{f"mended-{name}": (lambda path, content=content: path.write_text(content), mended)
       for name, content in (DATA | {"list": "a-1 a-2 target\n"}).items()},
    "system.yaml": (lambda path: path.write_text("kind: ivector\nubm: {num_gaussians: 2}\nmini:\n  ubm: {x: 1}\n"),
                    lambda path: load_config(path, "mini"), plain.configuration),
    "derived.yaml": (with_base, lambda path: load_config(path, "mini"), plain.configuration),
    "mfcc.conf": (lambda path: path.write_text("--feature-type=mfcc\n--num-ceps=20  # why\n--low-freq=20.5\n"
                                               "--frame-shift=10\n"), feature_options,
                  lambda path: {name: value for name, value in plain.options(path).items()
                                if name in ("num-ceps", "low-freq", "frame-shift")}),
    "sge.conf": (lambda path: path.write_text("command qsub -V\noption mem=* -l mem=$0\ndefault gpu=0\n"),
                 EngineConfig),
    ".done": (lambda path: path.write_text('{"digest": "x", "made": "y", "options": {}, "inputs": {}, "outputs": {}}'),
              read_record, plain.record),
    ".lock": (lambda path: path.write_text(json.dumps(dict.fromkeys(WORDS, "") | {"pid": 1}) + "\n12 345\n6 78\n"),
              read_holder),
    "x.wav": (lambda path: audio(path, "WAV"), heard, plain.samples),
    "x.flac": (lambda path: audio(path, "FLAC"), heard, plain.samples),
    "x.ogg": (lambda path: audio(path, "OGG"), heard),
    "x.mp3": (lambda path: audio(path, "MP3"), heard),
    "x.m4a": (lambda path: aac(path, "mp4"), heard),
    "x.aac": (lambda path: aac(path, "adts"), heard),
}


def trials_beside(path: Path) -> Path:
    other = path.with_name("trials")
    other.write_text(TRIALS)
    return other


@contextmanager
def limited_memory() -> Iterator[None]:
    """Let this process take 4 GB more than it has, so that a damaged size causes an error instead of filling memory."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 30), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_or_read(name, tmp_path):
    write, read, *again = READERS[name]
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    ours = read(path)
    for reader in again:
        assert plain.same(ours, reader(path))

    @seed(SEED)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, print_blob=True,
              suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(CHANGES)
    def meet(changes: list[Change]) -> None:
        content = damaged(whole, changes)
        path.write_bytes(content)
        tracemalloc.start()
        found = None
        try:
            with limited_memory():
                found = read(path)
        except InputError as error:
            assert str(error).strip()
        except OSError as error:  # as run_main prints it: a file that this one names is missing
            assert error.filename
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        is_audio = name.startswith("x.")
        in_blocks = name.startswith("mended") or name in ("trials", "scores", "eer-input")
        room = AUDIO_BLOCK if is_audio else TEXT_BLOCKS if in_blocks else MEMORY
        assert peak < room + (DECODED if is_audio else 2) * len(content)
        for reader in again if found is not None else ():
            theirs = reader(path)
            assert theirs is None or plain.same(found, theirs), f"read {found}, another reader {theirs}"

    meet()
