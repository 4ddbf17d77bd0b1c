"""Every reader of files meets damaged ones: it reads what it can or raises InputError, and takes little memory.

Files are valid ones with bytes changed, cut, repeated or replaced by numbers that mean trouble. VOX_FUZZ_EXAMPLES says
how many a reader meets (default 150); tests/fuzz/run.sh runs for as long as asked.
"""

import io
import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.trial_lists import TrialList
from nnet.checkpoint import load_checkpoint, save_checkpoint
from steps.backend.metrics import read_kaldi_scores, read_labelled_scores
from steps.backend.plda import from_covariances, read_plda, write_plda
from steps.feat.options import read_feature_options
from steps.ivector.alignments import Alignment, iterate_alignments, write_gselect, write_posteriors
from steps.ivector.extractor import Extractor, read_extractor, write_extractor
from steps.ivector.gmm import DiagGmm, FullGmm
from steps.ivector.gmm_files import read_diagonal, read_full, write_diagonal, write_full
from utils.ark import ArkWriter, RowReader, iterate, read_vectors
from utils.audio import read_audio
from utils.config import load_config
from utils.data_dir import read_data_dir
from utils.errors import InputError
from utils.fingerprint import read_record
from utils.kaldi_io import read_matrix, read_vector, write_matrix
from utils.launch.engine_config import EngineConfig
from utils.lock import WORDS, read_holder
from utils.tensor_file import load_tensors, save_tensors
from utils.trials import blocks

EXAMPLES = int(os.environ.get("VOX_FUZZ_EXAMPLES", "150"))
MEMORY = 4 << 20       # bytes that reading may take besides twice the file
TEXT_BLOCKS = 48 << 20  # long lists are read in blocks of a fixed size
DECODED = 64           # bytes of decoded and resampled audio a byte of a file
TROUBLE = [struct.pack("<i", value) for value in (-1, 0, 1, 2**31 - 1, -2**31, 2**24)] + [
    b"\xff" * 8, b"\0" * 8, struct.pack("<f", float("nan")), b"\n", b"\r\n", b" ", b"\t", b"[", b"]", b";", b"nan",
    b"-1", b"1e400", b"99999999999999999999", b"\xc3\x28", b"../../x", b"|", b"FM ", b"CM2 ",
    b"&a [*a]", b"!!python/object:os.system"]
Change = tuple[int, int, int, bytes]


def damaged(content: bytes, changes: list[Change]) -> bytes:
    """Apply changes (kind, place, length, bytes), each place and length taken modulo what is there."""
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


def fixed_list(path: Path) -> None:
    for _, block in blocks(path):
        assert len(block) % 3 == 0


def rows(path: Path) -> None:
    reader = RowReader(path)
    for index in range(len(reader)):
        reader.read(index)


def data_dir(path: Path) -> None:
    for name in ("utt2spk", "spk2utt", "wav.scp"):
        other = path.with_name(name)
        if not other.exists():
            other.write_text({"utt2spk": "a-1 a\na-2 a\n", "spk2utt": "a a-1 a-2\n",
                              "wav.scp": "a-1 /x/1.wav\na-2 /x/2.wav\n"}[name])
    read_data_dir(path.parent)


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


NETWORK = (torch.nn.Linear(2, 2), torch.optim.SGD([torch.nn.Parameter(torch.ones(1))]))
GMM = DiagGmm(torch.full((2,), 0.5), torch.randn(2, 3), torch.ones(2, 3))
FULL = FullGmm(torch.full((2,), 0.5), torch.randn(2, 3), torch.eye(3).repeat(2, 1, 1))
IE = Extractor(torch.randn(2, 3, 2).double(), torch.eye(3).double().repeat(2, 1, 1), 10.0, torch.ones(2).double())
TRIALS = "a-1 a-2 target\na-1 b-1 nontarget\n"
SCORES = "a-1 a-2 1.5\na-1 b-1 -2\n"
READERS = {  # file name: what writes a valid file, what reads it
    "matrix.ark": (write_table, lambda path: list(iterate(path))),
    "text.ark": (lambda path: write_table(path, binary=False), lambda path: list(iterate(path))),
    "cm.ark": (lambda path: write_table(path, compression=2), lambda path: list(iterate(path))),
    "cm2.ark": (lambda path: write_table(path, compression=3), lambda path: list(iterate(path))),
    "cm3.ark": (lambda path: write_table(path, compression=5), lambda path: list(iterate(path))),
    "vectors.ark": (write_vectors, read_vectors),
    "table.scp": (write_table, lambda path: list(iterate(path))),
    "rows.scp": (write_table, rows),
    "transform.mat": (lambda path: write_matrix(path, np.eye(3)), read_matrix),
    "mean.vec": (lambda path: path.write_bytes(b"\0BFV \4\2\0\0\0\0\0\x80?\0\0\x80?"), read_vector),
    "final.dubm": (lambda path: write_diagonal(path, GMM), read_diagonal),
    "text.dubm": (lambda path: write_diagonal(path, GMM, binary=False), read_diagonal),
    "final.ubm": (lambda path: write_full(path, FULL), read_full),
    "final.ie": (lambda path: write_extractor(path, IE), read_extractor),
    "plda": (lambda path: write_plda(path, from_covariances(np.zeros(3), np.eye(3), np.eye(3))), read_plda),
    "post.ark": (lambda path: write_alignment(path, write_posteriors), lambda path: list(iterate_alignments(path))),
    "post-text.ark": (lambda path: write_alignment(path, write_posteriors, binary=False),
                      lambda path: list(iterate_alignments(path))),
    "gselect.ark": (lambda path: write_alignment(path, write_gselect),
                    lambda path: list(iterate_alignments(path, gselect=True))),
    "state.safetensors": (lambda path: save_tensors(path, {"m": torch.ones(4)}, {"iteration": 1}), load_tensors),
    "checkpoint.safetensors": (lambda path: save_checkpoint(path, *NETWORK, {}, None, {"step": 1}), checkpoint),
    "trials": (lambda path: path.write_text(TRIALS), fixed_list),
    "veri_test.txt": (lambda path: path.write_text("1 id1/v/1.wav id1/v/2.wav\n0 id1/v/1.wav id2/v/1.wav\n"),
                      lambda path: list(TrialList(path, {}).read())),
    "scores": (lambda path: path.write_text(SCORES), lambda path: read_labelled_scores(trials_beside(path), path)),
    "eer-input": (lambda path: path.write_text("1.5 target\n-2 nontarget\n"), read_kaldi_scores),
    "utt2spk": (lambda path: path.write_text("a-1 a\na-2 a\n"), data_dir),
    "wav.scp": (lambda path: path.write_text("a-1 /x/1.wav\na-2 /x/2.wav\n"), data_dir),
    "spk2utt": (lambda path: path.write_text("a a-1 a-2\n"), data_dir),
    "system.yaml": (lambda path: path.write_text("kind: ivector\nubm: {num_gaussians: 2}\nmini:\n  ubm: {x: 1}\n"),
                    lambda path: load_config(path, "mini")),
    "mfcc.conf": (lambda path: path.write_text("--feature-type=mfcc\n--num-ceps=20  # why\n"), read_feature_options),
    "sge.conf": (lambda path: path.write_text("command qsub -V\noption mem=* -l mem=$0\ndefault gpu=0\n"),
                 EngineConfig),
    ".done": (lambda path: path.write_text('{"digest": "x", "options": {}, "inputs": {}, "outputs": {}}'), read_record),
    ".lock": (lambda path: path.write_text(json.dumps(dict.fromkeys(WORDS, "") | {"pid": 1}) + "\n12 345\n6 78\n"),
              read_holder),
    "x.wav": (lambda path: audio(path, "WAV"), read_audio),
    "x.flac": (lambda path: audio(path, "FLAC"), read_audio),
    "x.ogg": (lambda path: audio(path, "OGG"), read_audio),
}


def trials_beside(path: Path) -> Path:
    other = path.with_name("trials")
    other.write_text(TRIALS)
    return other


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_or_read(name, tmp_path):
    write, read = READERS[name]
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    read(path)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize="VOX_FUZZ_EXAMPLES" not in os.environ,
              suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(CHANGES)
    def meet(changes: list[Change]) -> None:
        content = damaged(whole, changes)
        path.write_bytes(content)
        tracemalloc.start()
        try:
            read(path)
        except InputError as error:
            assert str(error).strip()
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        room = TEXT_BLOCKS if name in ("trials", "scores", "eer-input") else MEMORY
        assert peak < room + (DECODED if name.startswith("x.") else 2) * len(content)

    meet()
