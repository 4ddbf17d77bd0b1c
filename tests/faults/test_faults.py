"""What a run of the recipe survives: damage, a full or read-only disk, bad audio, changed inputs, a folder that moves.

Each test copies one finished run, disturbs it and runs the recipe again. What is made again from the same inputs is the
same bit by bit; where an input differs, what depends on it differs as in a fresh run.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import soundfile
import yaml

from tests.conftest import ROOT
from tests.tiny import command, make_conf, make_corpus, results

TO_THE_TABLE = ("--systems", "ivector", "--stop-stage", "7")
MODELS = ("exp/ivector/ubm/final.ubm", "exp/ivector/final.ie", "exp/ivector/backend/plda/plda")


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def corpus(shared, made_once):
    return made_once("corpus of faults", lambda folder: make_corpus(shared, folder))


@pytest.fixture(scope="module")
def conf(made_once):
    return made_once("conf", make_conf)


@pytest.fixture(scope="module")
def whole(corpus, conf, made_once):
    """The undisturbed run."""
    return made_once("whole", lambda folder: finish(corpus, conf, folder))


@pytest.fixture
def work(whole, tmp_path):
    """A copy of the undisturbed run."""
    return shutil.copytree(whole, tmp_path / "work")


@pytest.fixture
def own_corpus(corpus, tmp_path):
    """A copy of the corpus, to be changed; the files keep their times."""
    return shutil.copytree(corpus, tmp_path / "own corpus")


def run(corpus, conf, work, *more):
    done = subprocess.run(command(corpus, conf, work, *TO_THE_TABLE, *more), capture_output=True, text=True,
                          check=False)
    assert "Traceback" not in done.stderr
    return done


def finish(corpus, conf, work, *more):
    """Run to the end; return what was said."""
    done = run(corpus, conf, work, *more)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def assert_same(work, whole):
    assert results(work) == results(whole)
    assert_same_models(work, whole, MODELS)


def assert_same_models(work, whole, names):
    for name in names:
        assert (work / name).read_bytes() == (whole / name).read_bytes(), name


def flip(path):
    """Flip one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


DAMAGE = {"cut": lambda path: os.truncate(path, path.stat().st_size // 2), "flipped": flip, "deleted": Path.unlink}


@pytest.mark.parametrize(("kind", "output"), [
    *((kind, "data/mfcc24/train/feats.1.ark") for kind in DAMAGE),
    ("flipped", "exp/ivector/embeddings_test/ivector.2.ark"), ("flipped", "exp/ivector/backend/plda/plda")])
def test_damaged_outputs_are_made_again(kind, output, work, whole, corpus, conf):
    DAMAGE[kind](work / output)
    said = finish(corpus, conf, work)
    again = [line for line in said.splitlines() if "runs again" in line]
    assert str(work / output) in again[0]
    # What depends on it was made from the same, and stays.
    folder = next(one for one in (work / output).parents if (one / ".done").is_file())
    assert all(line.startswith(f"{folder}: ") for line in again)
    assert_same(work, whole)
    assert (work / output).read_bytes() == (whole / output).read_bytes()


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_parts_of_a_killed_step_are_made_again(kind, work, whole, corpus, conf):
    """A part ended well, the step was killed, and the part was damaged: it is not sealed into the step's record."""
    out = work / "exp/ivector/embeddings_test"
    (out / ".done").unlink()
    shutil.copytree(out, work / "kept")
    program = work / "program/python3"  # a job that is killed, in place of the second one's
    program.parent.mkdir()
    program.write_text('#!/bin/bash\n[[ "$*" != *"--job 2 "* ]] || kill -9 $$\nexec "$REAL_PYTHON" "$@"\n')
    program.chmod(0o755)
    real = subprocess.run(["bash", "-c", f". '{ROOT}/path.sh' && command -v python3"], capture_output=True, text=True,
                          check=True).stdout.strip()
    words = [ROOT / "steps/extract_ivectors.sh", "--nj", "2", work / "exp/ivector", work / "data/mfcc24/test", out]
    subprocess.run(["python3", "-m", "utils.jobs.place", work], cwd=ROOT, check=True)
    path = {"PATH": f"{program.parent}:{Path(real).parent}:{ROOT}/utils:{os.environ['PATH']}", "VOX_READY": str(ROOT),
            "REAL_PYTHON": real}
    killed = subprocess.run(words, env=os.environ | path, capture_output=True, text=True, check=False)
    assert killed.returncode != 0
    assert [path.name for path in (out / "unfinished").glob("*.?")] == ["ivector.1"]
    DAMAGE[kind](out / "ivector.1.ark")
    finish(corpus, conf, work)
    assert (out / "ivector.1.ark").read_bytes() == (work / "kept/ivector.1.ark").read_bytes()
    assert_same(work, whole)


def test_a_small_disk(whole, corpus, conf, tmp_path):
    with mounted(tmp_path / "small", "size=1m") as disk:
        done = run(corpus, conf, disk / "work")
        assert done.returncode == 1
        assert "No space left" in done.stderr or "are free on that disk" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        finish(corpus, conf, disk / "work", "--stop-stage", "2")
        assert_same_models(disk / "work", whole, MODELS[:2])


def test_a_disk_that_becomes_read_only(whole, corpus, conf, tmp_path):
    with mounted(tmp_path / "shut", "size=400m") as disk:
        shutil.copytree(whole, disk / "work")
        subprocess.run(["python3", "-m", "utils.jobs.place", disk / "work"], cwd=ROOT, check=True)
        for name in ("embeddings_train", "embeddings_test", "backend", "held_out", "scores_test"):
            shutil.rmtree(disk / "work/exp/ivector" / name)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        done = run(corpus, conf, disk / "work")
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        finish(corpus, conf, disk / "work")
        assert_same(disk / "work", whole)


class mounted:  # noqa: N801  (used as a function)
    """A disk of its own in memory; skips where none may be mounted."""

    def __init__(self, place, options):
        self.place, self.options = place, options

    def __enter__(self):
        self.place.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", self.options, "tmpfs", self.place]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
        return self.place

    def __exit__(self, *_):
        subprocess.run(["umount", self.place], check=True)


@pytest.mark.parametrize("year", ["2001", "2099"])
def test_a_clock_that_was_set(year, work, whole, corpus, conf):
    subprocess.run(["find", work, "-exec", "touch", "-d", f"{year}-01-01", "{}", "+"], check=True)
    assert "runs again" not in finish(corpus, conf, work)
    assert_same(work, whole)


def test_audio_that_is_cut_stops_the_run_or_is_left_out(whole, own_corpus, conf, tmp_path):
    path = sorted((own_corpus / "dev").rglob("*.flac"))[40]
    name = f"{path.parts[-3]}-{path.parts[-2]}-{path.stem}"
    kept = path.read_bytes()
    path.write_bytes(kept[:len(kept) // 2])
    done = run(own_corpus, conf, tmp_path / "new")
    assert done.returncode == 1
    assert name in done.stderr
    assert "--max-failed" in done.stderr
    finish(own_corpus, conf, tmp_path / "new", "--max-failed", "0.02", "--stop-stage", "1")  # which run.sh has
    assert name not in (tmp_path / "new/data/mfcc24/train/feats.scp").read_text()
    path.write_bytes(kept)  # repaired in place
    said = finish(own_corpus, conf, tmp_path / "new", "--max-failed", "0.02")
    assert "make_feats.sh runs again" in said
    assert_same(tmp_path / "new", whole)


def test_an_empty_file_that_is_left_out_and_then_repaired(whole, own_corpus, conf, tmp_path):
    path = sorted((own_corpus / "dev").rglob("*.flac"))[40]
    kept = path.read_bytes()
    path.write_bytes(b"")
    finish(own_corpus, conf, tmp_path / "new", "--max-missing", "0.1", "--stop-stage", "1")
    path.write_bytes(kept)
    said = finish(own_corpus, conf, tmp_path / "new", "--max-missing", "0.1", "--stop-stage", "2")
    assert "prepare_data.sh runs again" in said
    assert_same_models(tmp_path / "new", whole, MODELS[:2])


def test_audio_that_cannot_be_opened(own_corpus, conf, tmp_path):
    path = sorted((own_corpus / "dev").rglob("*.flac"))[40]
    path.unlink()
    path.symlink_to(path)  # a link that leads to itself
    done = run(own_corpus, conf, tmp_path / "new", "--stop-stage", "1")
    assert done.returncode == 1
    assert any(path.stem in line and "error" in line.lower() for line in done.stderr.splitlines())


def test_audio_that_is_replaced_reaches_the_scores(whole, own_corpus, conf, tmp_path):
    """The same name and length, another voice: features, embeddings, scores are those of a fresh run."""
    work, fresh = tmp_path / "new", tmp_path / "fresh"
    finish(own_corpus, conf, work)
    assert_same(work, whole)
    one, other = sorted((own_corpus / "test").rglob("*.flac"))[::20][:2]
    samples, rate = soundfile.read(other)
    size = soundfile.info(one).frames
    soundfile.write(one, samples[:size], rate)
    assert states(own_corpus, conf, work)[:2] == ["stale", "stale"]
    said = finish(own_corpus, conf, work)
    assert "data/mfcc24/test: make_feats.sh runs again" in said
    assert f"{work}/data/mfcc24/train: up to date" in said
    for name in MODELS:
        assert (work / name).read_bytes() == (whole / name).read_bytes()
    assert results(work) != results(whole)
    finish(own_corpus, conf, fresh)
    assert results(work) == results(fresh)


def states(corpus, conf, work, *more):
    """The words that `--status` says of the stages."""
    done = run(corpus, conf, work, "--status", *more)
    assert done.returncode == 0, done.stderr
    return [line.split()[0] for line in done.stdout.splitlines() if " stage " in line]


def test_features_removed_and_made_from_other_audio_reach_the_embeddings(work, corpus, conf):
    """By hand, step by step: what the records of later steps say of a folder is what is in it."""
    subprocess.run(["python3", "-m", "utils.jobs.place", work], cwd=ROOT, check=True)
    test = work / "data/mfcc24/test"
    other = shutil.copytree(work / "data/test", work / "data/other")
    lines = (other / "wav.scp").read_text().splitlines()
    paths = [line.split(" ", 1)[1] for line in lines]
    (other / "wav.scp").write_text("".join(f"{line.split()[0]} {path}\n"
                                           for line, path in zip(lines, paths[8:] + paths[:8], strict=True)))
    shutil.rmtree(test)
    for words in (["make_feats.sh", conf / "features/mfcc24.conf", other, test],
                  ["compute_vad.sh", conf / "features/vad.conf", test]):
        subprocess.run([ROOT / "steps" / words[0], *words[1:]], check=True, capture_output=True)
    done = subprocess.run([ROOT / "steps/extract_ivectors.sh", work / "exp/ivector", test,
                           work / "exp/ivector/embeddings_test"], capture_output=True, text=True, check=True)
    assert "runs again" in done.stderr


def test_status_writes_nothing(work, corpus, conf):
    """Not even of another scale, nor where nothing is."""
    def times():
        return {path: path.stat().st_mtime_ns for path in work.rglob("*")}

    before = times()
    assert set(states(corpus, conf, work)) == {"done"}
    assert "stale" in states(corpus, conf, work, "--scale", "full")
    assert times() == before
    states(corpus, conf, work / "nothing here")
    assert times() == before


@pytest.mark.parametrize("copied", [True, False])
def test_a_work_folder_elsewhere(work, whole, corpus, conf, tmp_path, copied):
    """A copy works on its own files; a moved folder stays done, and its features are found."""
    finish(corpus, conf, work)  # in its place now
    new = tmp_path / "elsewhere"
    (shutil.copytree if copied else shutil.move)(work, new)
    assert set(states(corpus, conf, new)) == {"done"}
    said = finish(corpus, conf, new)
    assert "runs again" not in said
    assert f"moved or copied from {work}" in said
    (new / "exp/ivector/embeddings_test/.done").unlink()
    if copied:  # nobody looks there
        shutil.rmtree(work / "data")
    finish(corpus, conf, new)
    assert_same(new, whole)
    assert str(work) not in "".join(path.read_text() for path in new.rglob("*.scp"))


def test_voice_activity_made_anew_reaches_the_networks_that_use_it(work, corpus, conf, tmp_path):
    """vad.conf changes: a network that leaves unvoiced frames out is stale, one that does not stays done."""
    own = shutil.copytree(conf, tmp_path / "own conf")
    small = yaml.safe_load((own / "xvector.yaml").read_text())
    small["mini"]["train"] |= {"epochs": 1}
    small["mini"] |= {"features": "mfcc24", "train_set": "train_net"}
    del small["mini"]["backend"]["copies"]  # whose embeddings of other utterances would be computed, too
    (own / "xvector.yaml").write_text(yaml.safe_dump(small))
    (own / "voiced.yaml").write_text("base: xvector\nfrontend: {vad: true}\n")
    both = ("--systems", "xvector voiced")
    finish(corpus, own, work, *both, "--stop-stage", "4")
    assert set(states(corpus, own, work, *both, "--stop-stage", "4")) == {"done"}
    vad = own / "features/vad.conf"
    vad.write_text(vad.read_text().replace("threshold=5.5", "threshold=4.5"))
    said = finish(corpus, own, work, *both, "--stop-stage", "4")
    assert f"{work}/exp/voiced: train_network.sh runs again" in said
    assert f"{work}/exp/xvector: up to date" in said
    assert f"{work}/exp/voiced/embeddings_test: extract_embeddings.sh runs again" in said
    assert f"{work}/exp/xvector/embeddings_test: up to date" in said
