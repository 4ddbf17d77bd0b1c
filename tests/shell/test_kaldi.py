"""Kaldi's data directories through the steps and the recipe: segments, commands, features made elsewhere."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.tiny import make_conf
from utils.kaldi.ark import ArkWriter, iterate
from utils.kaldi.data_dir import read_data_dir

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "egs/voxceleb/conf/features"
SPEAKERS, SECONDS = 6, 3.0


def call(script, *words):
    return subprocess.run(["bash", ROOT / script, *map(str, words)], capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})


def succeed(script, *words):
    done = call(script, *words)
    assert done.returncode == 0, done.stderr
    return done


def refused(done, message):
    """The step ended with one line that holds this message."""
    assert done.returncode == 1, done.stderr
    assert message in done.stderr.splitlines()[-1]


def write_set(folder, first, audio):
    """A data directory of whole files, and in <folder>_cut one with two segments of each and a pipe to read it."""
    lines = {name: [] for name in ("wav.scp", "utt2spk")}
    cut = {name: [] for name in ("wav.scp", "segments", "utt2spk", "reco2dur")}
    for speaker in range(first, first + SPEAKERS):
        rng = np.random.default_rng(speaker)
        kernel = rng.normal(size=8)
        for call_number in range(2):
            name = f"s{speaker:02}-c{call_number}"
            sound = 0.02 * np.convolve(rng.normal(size=int(SECONDS * 16000)), kernel, "same")
            soundfile.write(audio / f"{name}.wav", sound, 16000)
            cut["wav.scp"].append(f"{name} cat {audio}/{name}.wav |")
            cut["reco2dur"].append(f"{name} {SECONDS}")
            for part, (start, end) in enumerate(((0, 1.5), (1.5, SECONDS))):
                soundfile.write(audio / f"{name}-{part}.wav", sound[int(start * 16000):int(end * 16000)], 16000)
                lines["wav.scp"].append(f"{name}-{part} {audio}/{name}-{part}.wav")
                for table in (lines, cut):
                    table["utt2spk"].append(f"{name}-{part} s{speaker:02}")
                cut["segments"].append(f"{name}-{part} {name} {start} {end}")
    for target, tables in ((folder, lines), (folder.with_name(f"{folder.name}_cut"), cut)):
        target.mkdir()
        for name, content in tables.items():
            (target / name).write_text("".join(f"{line}\n" for line in content))
        owners = [line.split() for line in tables["utt2spk"]]
        (target / "spk2utt").write_text("".join(
            f"{speaker} {' '.join(name for name, owner in owners if owner == speaker)}\n"
            for speaker in sorted({owner for _, owner in owners})))
        names = [name for name, _ in owners]
        (target / "trials").write_text("".join(
            f"{a} {b} {'target' if a[:3] == b[:3] else 'nontarget'}\n" for a in names for b in names if a < b))


@pytest.fixture(scope="module")
def kaldi(tmp_path_factory):
    """train and test, and train_cut and test_cut: the same utterances as segments of recordings behind pipes."""
    folder = tmp_path_factory.mktemp("kaldi")
    (folder / "a udio").mkdir()
    for name, first in (("train", 0), ("test", 10)):
        write_set(folder / name, first, folder / "a udio")
    for path in folder.glob("*_cut/wav.scp"):
        path.write_text(path.read_text().replace(" cat ", " cat '").replace(" |", "' |"))
    return folder


@pytest.fixture(scope="module")
def feats(kaldi):
    """Features and voice activity of train and train_cut."""
    for name in ("train", "train_cut"):
        (kaldi / name / "trials").rename(kaldi / f"{name}.trials")
        succeed("steps/make_feats.sh", "--nj", 1, "--compression", 0, "--allow-pipes", "true", CONF / "mfcc24.conf",
                kaldi / name, kaldi / f"mfcc/{name}")
        succeed("steps/compute_vad.sh", "--nj", 1, CONF / "vad.conf", kaldi / f"mfcc/{name}")
    return kaldi / "mfcc"


def test_segments_of_piped_recordings_have_the_features_of_the_same_files(feats):
    for script in ("feats.scp", "vad.scp"):
        whole, cut = (dict(iterate(feats / name / script)) for name in ("train", "train_cut"))
        assert list(whole) == list(cut) and len(whole) == 4 * SPEAKERS
        for name, values in whole.items():
            np.testing.assert_allclose(cut[name], values, atol=1e-3)
    assert read_data_dir(feats / "train_cut").columns["segments"][0] == "s00-c0 0 1.5"


def test_commands_run_only_when_they_are_allowed(kaldi, tmp_path):
    done = call("steps/make_feats.sh", CONF / "mfcc24.conf", kaldi / "test_cut", tmp_path / "out")
    refused(done, "test_cut/wav.scp: s10-c0: a command instead of a path; commands run only with --allow-pipes true")
    assert not (tmp_path / "out").exists()


def test_a_segment_after_the_end_of_its_recording(kaldi, tmp_path):
    shutil.copytree(kaldi / "test_cut", tmp_path / "data", ignore=shutil.ignore_patterns("reco2dur", "trials"))
    segments = tmp_path / "data/segments"
    segments.write_text(segments.read_text().replace("s10-c0 1.5 3.0", "s10-c0 1.5 3.6"))
    step = ("--nj", 2, "--allow-pipes", "true", CONF / "mfcc24.conf", tmp_path / "data", tmp_path / "out")
    done = call("steps/make_feats.sh", *step)
    refused(done, "1 of 24 utterances have no features: s10-c0-1")
    assert "warning: s10-c0-1: ends at 3.6 s, but recording s10-c0 lasts 3 s; correct its line" in done.stderr
    succeed("steps/make_feats.sh", "--max-failed", 0.1, *step)
    assert "s10-c0-1" not in read_data_dir(tmp_path / "out").ids


def test_babble_is_not_made_of_recordings_with_several_speakers(kaldi, tmp_path):
    done = call("steps/augment_data.sh", "--kinds", "babble noise", kaldi / "train_cut", tmp_path / "out")
    refused(done, "train_cut has segments: babble adds whole recordings, in which the same speaker may talk; leave it")
    succeed("steps/augment_data.sh", "--kinds", "noise", kaldi / "train_cut", tmp_path / "out")
    succeed("steps/make_feats.sh", "--nj", 1, "--allow-pipes", "true", CONF / "mfcc24.conf", tmp_path / "out",
            tmp_path / "feats")
    assert read_data_dir(tmp_path / "feats").ids[0] == "s00-c0-0-noise"


def made_by_kaldi(source, target):
    """Copy the tables that Kaldi also has, without records, logs and options."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", "log", "*.conf"))
    return target


def test_what_was_made_elsewhere_is_used_where_it_is(feats, kaldi, tmp_path):
    out = made_by_kaldi(feats / "train", tmp_path / "out")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    done = succeed("steps/make_feats.sh", CONF / "fbank80.conf", kaldi / "train", out)
    assert done.stderr.count("\n") == 1 and "out/feats.scp: made elsewhere, used as it is" in done.stderr
    done = succeed("steps/compute_vad.sh", CONF / "vad.conf", out)
    assert done.stderr.count("\n") == 1 and "out/vad.scp: made elsewhere, used as it is" in done.stderr
    with ArkWriter(tmp_path / "embeddings/xvector") as writer:
        for name in read_data_dir(out).ids:
            writer.write(name, np.ones(3))
    done = succeed("steps/extract_embeddings.sh", tmp_path / "no model", out, tmp_path / "embeddings")
    assert "embeddings/xvector.scp: made elsewhere, used as it is" in done.stderr
    assert before == {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    lines = (out / "feats.scp").read_text().splitlines(keepends=True)
    (out / "feats.scp").write_text("".join(lines[1:]))
    done = call("steps/make_feats.sh", CONF / "fbank80.conf", kaldi / "train", out)
    refused(done, "out/feats.scp was made elsewhere and lists other utterances than")


@pytest.mark.long
def test_the_recipe_on_segments_behind_pipes(kaldi, tmp_path):
    """The sets are made of segments, and features and voice activity of them, when commands are allowed."""
    work = tmp_path / "work"
    options = ("--train", kaldi / "train_cut", "--test", kaldi / "test_cut", "--trials", kaldi / "test/trials",
               "--conf", make_conf(tmp_path / "conf"), "--scale", "mini", "--systems", "ivector", "--nj", 1,
               "--valid-speakers", 3, "--cmd", "run", "--work", work)
    refused(call("egs/kaldi/run.sh", *options, "--stop-stage", 1), "commands run only with --allow-pipes true")
    succeed("egs/kaldi/run.sh", "--allow-pipes", "true", *options, "--stop-stage", 1)
    for name, first, count in (("train", "s00", 24), ("test", "s10", 24)):
        found = read_data_dir(work / f"data/mfcc24/{name}")
        assert len(found.ids) == count and {"segments", "reco2dur", "vad.scp"} < set(found.columns)
        assert found.columns["segments"][1] == f"{first}-c0 1.5 3.0"
    assert len(read_data_dir(work / "data/train_sp").columns["segments"]) == 2 * 12
    assert len((work / "data/test/trials/trials").read_text().splitlines()) == 24 * 23 // 2


def test_the_recipe_on_features_of_kaldi(kaldi, feats, tmp_path):
    """Features and voice activity without audio: used as they are, under the name that is given."""
    for name in ("train", "test"):
        target = made_by_kaldi(feats / "train", tmp_path / name)
        (target / "wav.scp").unlink()
    for table in ("feats.scp", "vad.scp", "utt2spk", "spk2utt", "utt2num_frames"):  # other speakers to test
        path = tmp_path / "test" / table
        path.write_text("".join(f"t{line[1:]}".replace(" s0", " t0") + "\n" for line in path.read_text().splitlines()))
    trials = tmp_path / "pairs"
    trials.write_text((kaldi / "train.trials").read_text().replace("s0", "t0"))
    options = ("--train", tmp_path / "train", "--test", tmp_path / "test", "--conf", make_conf(tmp_path / "conf"),
               "--scale", "mini", "--valid-speakers", 3, "--nj", 1, "--cmd", "run", "--work", tmp_path / "work")
    done = call("egs/kaldi/run.sh", "--systems", "ivector", *options, "--stop-stage", 0)
    refused(done, "train has no wav.scp, but ivector needs audio: it takes mfcc24 of the sets train test")
    options += ("--ready-features", "mfcc24", "--systems", "ivector")
    done = call("egs/kaldi/run.sh", *options, "--stop-stage", 0)
    refused(done, "test: no trial list, neither a file `trials` nor files in a folder trials/; name one with --trials")
    done = succeed("egs/kaldi/run.sh", *options, "--trials", trials, "--stop-stage", 1)
    assert done.stderr.count("made elsewhere, used as it is") == 4
    status = succeed("egs/kaldi/run.sh", *options, "--trials", trials, "--stop-stage", 1, "--status").stdout
    assert status.count("done    stage") == 2, status


def test_networks_that_train_on_whole_files_refuse_segments_and_commands_at_once(kaldi, tmp_path):
    commands = Path(shutil.copytree(kaldi / "train_cut", tmp_path / "commands"))
    (commands / "segments").unlink()
    for train, found in ((kaldi / "train_cut", "segments"), (commands, "commands in wav.scp")):
        done = call("egs/kaldi/run.sh", "--train", train, "--test", kaldi / "test_cut", "--allow-pipes", "true",
                    "--systems", "xvector xvector_online", "--work", tmp_path / "work")
        refused(done, f"{train} has {found}, but xvector_online (online:) trains on whole audio files; write them, or")
    assert not (tmp_path / "work/data").exists()


def test_speakers_in_both_sets(kaldi, tmp_path):
    done = call("egs/kaldi/run.sh", "--train", kaldi / "train", "--test", kaldi / "train", "--systems", "ivector",
                "--trials", kaldi / "test/trials", "--stop-stage", 0, "--work", tmp_path / "work")
    refused(done, "6 of its 6 speakers are also in the training data")
    assert not (tmp_path / "work/data").exists()
