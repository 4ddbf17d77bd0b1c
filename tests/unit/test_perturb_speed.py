"""Copies at other speeds: a valid data directory of new speakers, and refused input."""

import subprocess
import sys

import pytest

from utils.kaldi.data_dir import read_data_dir


def run(*words):
    return subprocess.run([sys.executable, "-m", "utils.kaldi.perturb_speed", *map(str, words)], capture_output=True,
                          text=True, check=False)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "wav.scp").write_text("a-1 /x/a 1.wav\na-2 /x/a2.wav\nb-1 /x/b1.wav\n")
    (folder / "utt2spk").write_text("a-1 a\na-2 a\nb-1 b\n")
    (folder / "spk2utt").write_text("a a-1 a-2\nb b-1\n")
    (folder / "trials").mkdir()
    (folder / "trials/t").write_text("a-1 b-1 nontarget\n")
    return folder


def test_copies(data, tmp_path):
    done = run("--speeds", "1.1,0.9", data, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    out = read_data_dir(tmp_path / "out")
    assert out.ids == ["sp0.9-a-1", "sp0.9-a-2", "sp0.9-b-1", "sp1.1-a-1", "sp1.1-a-2", "sp1.1-b-1"]
    assert out.speakers == ["sp0.9-a", "sp0.9-a", "sp0.9-b", "sp1.1-a", "sp1.1-a", "sp1.1-b"]
    assert out.columns["utt2speed"] == ["0.9"] * 3 + ["1.1"] * 3
    assert out.columns["wav.scp"] == ["/x/a 1.wav", "/x/a2.wav", "/x/b1.wav"] * 2
    assert not (tmp_path / "out/trials").exists() and "utt2formants" not in out.columns


def test_copies_with_other_formants(data, tmp_path):
    done = run("--speeds", "1.1,1x0.9,0.9x1.08", data, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    out = read_data_dir(tmp_path / "out")
    assert out.ids[:3] == ["sp0.9x1.08-a-1", "sp0.9x1.08-a-2", "sp0.9x1.08-b-1"]
    assert out.columns["utt2speed"] == ["0.9"] * 3 + ["1.1"] * 3 + ["1"] * 3
    assert out.columns["utt2formants"] == ["1.08"] * 3 + ["1"] * 3 + ["0.9"] * 3


@pytest.mark.parametrize(("speeds", "message"), [
    ("0.9,1", "'1' is not a factor"), ("fast", "'fast' is not a factor"), ("0.9,0.90", "a factor is given twice"),
    ("1x3", "'1x3' is not a factor"), ("0.9x", "'0.9x' is not a factor"), ("1x1", "'1x1' is not a factor other than 1"),
    ("1x0.9,1.0x0.90", "a factor is given twice"),
    ("-1", "is not a factor"), ("0.9,", "'' is not a factor"), ("99", "'99' is not a factor"),
])
def test_wrong_speeds(data, tmp_path, speeds, message):
    done = run(f"--speeds={speeds}", data, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.startswith("utils.kaldi.perturb_speed: error: ")
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_copies_of_copies_and_onto_itself(data, tmp_path):
    assert "both input and output" in run(data, data).stderr
    assert run(data, tmp_path / "out").returncode == 0
    assert "has utt2speed already" in run(tmp_path / "out", tmp_path / "again").stderr
