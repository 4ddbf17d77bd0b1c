"""The simulated corpus: repeatable bytes, layout, lists, levels, and properties of the synthesiser."""

import hashlib
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import signal
from scipy.io import wavfile

from local import prepare_voxceleb
from local.recording_conditions import draw_conditions, record
from local.simulate_corpus import Task, draw_trials
from local.simulated_voice import FFT, FREQUENCIES, HOP, RATE, Track, draw_speaker, glottal_source, utter, vocal_tract
from tests.in_process import call
from utils.kaldi.data_dir import read_data_dir

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--speakers", 6, "--test-speakers", 4, "--utterances", 4, "--sessions", 2)


def simulate(root: Path, *options: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "local.simulate_corpus", *map(str, options), str(root)], cwd=ROOT,
                          capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})


def step(root: Path, *options: object) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(ROOT / "local/simulate_corpus.sh"), *map(str, options), str(root)],
                          capture_output=True, text=True, check=False)


def digests(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file() and path.name != ".done"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("corpora") / "simulated"
    done = simulate(root, *SMALL, "--telephone", 0.5, "--nj", 2)
    assert done.returncode == 0, done.stderr
    return root


def test_same_bytes_for_any_number_of_jobs_and_others_for_another_seed(corpus: Path, tmp_path: Path) -> None:
    assert simulate(tmp_path / "again", *SMALL, "--telephone", 0.5, "--nj", 1).returncode == 0
    assert simulate(tmp_path / "other", *SMALL, "--telephone", 0.5, "--seed", 2).returncode == 0
    first, again, other = digests(corpus), digests(tmp_path / "again"), digests(tmp_path / "other")
    assert again == first
    assert other.keys() == first.keys()
    assert not {other[name] for name in other if name.endswith(".wav")} & set(first.values())
    assert len({first[name] for name in first if name.endswith(".wav")}) == 24


def test_layout_is_what_the_recipe_reads(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare", "--voxceleb1-root", str(corpus), str(tmp_path / "data")])
    prepare_voxceleb.main()
    train, test = read_data_dir(tmp_path / "data/train"), read_data_dir(tmp_path / "data/test")
    assert Counter(train.speakers) == dict.fromkeys(("simulated00001", "simulated00002"), 4)
    assert Counter(test.speakers) == {f"simulated1000{number}": 4 for number in range(1, 5)}
    assert test.ids[:4] == [f"simulated10001-s{session}-0000{one}" for session, one in ((1, 1), (1, 2), (2, 3), (2, 4))]
    assert sorted(path.name for path in (tmp_path / "data/test/trials").iterdir()) == [
        "simulated_test", "simulated_test_hard"]
    rows = [line.split("\t") for line in (corpus / "meta.csv").read_text().splitlines()]
    assert rows[0] == ["speaker_id", "gender", "vocal_tract_cm", "set"]
    assert Counter((row[1], row[3]) for row in rows[1:]) == {("f", "dev"): 1, ("m", "dev"): 1,
                                                             ("f", "test"): 2, ("m", "test"): 2}
    assert "this is not speech" in (corpus / "README.txt").read_text()


@pytest.mark.parametrize("hard", [False, True])
def test_lists_are_balanced(hard: bool) -> None:
    tasks = [Task(3, number, "test", 7, 3, 0.0) for number in range(5)]
    genders = {task.speaker: task.gender for task in tasks}
    trials = [line.split() for line in draw_trials(tasks, hard)]
    assert len({frozenset(trial[1:]) for trial in trials}) == len(trials)
    counts = Counter()
    for label, first, second in trials:
        (speaker, session, _), (other, other_session, _) = first.split("/"), second.split("/")
        counts[label, speaker] += 1
        assert (label == "1") == (speaker == other)
        assert label == "0" or session != other_session
        assert label == "1" or not hard or genders[speaker] == genders[other]
    across = 21 - 3 - 1 - 1  # pairs of seven utterances, less those within sessions of 3, 2 and 2
    assert set(counts.values()) == {-(-across // 2)}
    assert hard or any(genders[a.split("/")[0]] != genders[b.split("/")[0]] for _, a, b in trials)


def test_recordings_are_loud_enough_and_never_clip(corpus: Path) -> None:
    for path in corpus.rglob("*.wav"):
        rate, samples = wavfile.read(path)
        assert rate == RATE and samples.dtype == np.int16 and 3 * RATE <= len(samples) <= 6 * RATE
        assert np.abs(samples.astype(int)).max() < 32000
        assert -36 < 20 * np.log10(np.sqrt(np.mean((samples / 32768) ** 2))) < -18


def test_a_peak_above_full_scale_is_scaled_down() -> None:
    generator = np.random.default_rng(0)
    click = np.zeros(RATE, np.float32)
    click[5000] = 1000
    conditions = replace(draw_conditions(generator, 1.0, 0.0), level_db=-1.0)
    assert 30000 < np.abs(record(click, conditions, generator).astype(int)).max() <= 0.951 * 32767


def test_telephone_has_its_band_alone() -> None:
    speaker = draw_speaker(np.random.default_rng(1), "m")
    shares = []
    for telephone in (0.0, 1.0):
        generator = np.random.default_rng(2)
        conditions = replace(draw_conditions(generator, 1.0, telephone), noise_db=40.0)
        assert conditions.telephone == bool(telephone)
        samples = record(utter(speaker, 3.0, np.random.default_rng(3)), conditions, generator)
        frequencies, power = signal.welch(samples, RATE, nperseg=1024)
        shares.append(power[(frequencies < 200) | (frequencies > 4000)].sum() / power.sum())
    assert shares[1] < 0.3 * shares[0]


def steady(speaker, vowel: int, frames: int) -> Track:
    """A vowel held for some frames."""
    constant = np.ones(frames)
    return Track(np.tile(speaker.vowels[vowel], (frames, 1)), constant, 0 * constant,
                 np.tile((3000.0, 1000.0), (frames, 1)), 0 * constant, 0 * constant)


def test_formants_scale_with_vocal_tract_length() -> None:
    peaks = []
    for length in (17.0, 13.6):
        speaker = replace(draw_speaker(np.random.default_rng(4), "m", length), nasality=0.0)
        response = np.abs(vocal_tract(speaker, steady(speaker, 3, 1))[0])
        peaks.append(FREQUENCIES[signal.find_peaks(response)[0]][:3])
    assert peaks[0] == pytest.approx(draw_speaker(np.random.default_rng(4), "m", 17.0).vowels[3], rel=0.05)
    assert peaks[1] / peaks[0] == pytest.approx(17.0 / 13.6, rel=0.03)


def test_pitch_jitter_and_open_quotient_are_those_of_the_speaker() -> None:
    speaker = replace(draw_speaker(np.random.default_rng(5), "m"), pitch=125.0, jitter=0.0, shimmer=0.0,
                      open_quotient=0.6)
    for jitter in (0.0, 0.02):
        source, _ = glottal_source(replace(speaker, jitter=jitter), steady(speaker, 0, 400), 400 * HOP + FFT,
                                   np.random.default_rng(6))
        closures = signal.find_peaks(-source, height=0.5, distance=RATE // 200)[0]
        periods = np.diff(closures) / RATE
        assert np.mean(periods) == pytest.approx(1 / 125, rel=0.005)
        assert np.std(periods) * 125 == pytest.approx(jitter, abs=0.005)
        assert np.mean(source != 0) == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(("options", "message"), [
    (("--sessions", 1), "--sessions 1 is not between 2 and 999"),
    (("--telephone", 1.5), "--telephone is '1.5', wanted a share from 0 to 1"),
    (("--speakers", 5), "--speakers 5 is not between 6 and 9999")])
def test_bad_numbers_get_one_line(tmp_path: Path, options: tuple, message: str) -> None:
    done = call("local.simulate_corpus", *SMALL, *options, tmp_path / "new")
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


SPEAKERS = ("--speakers", 12, "--utterances", 2, "--sessions", 2)


@pytest.mark.long
def test_the_step_replaces_its_own_corpus_alone(tmp_path: Path) -> None:
    root = tmp_path / "simulated"
    assert step(root, *SPEAKERS).returncode == 0
    first = digests(root)
    done = step(root, "--speakers", 6)
    assert done.returncode == 1 and "--speakers 6 is not between 12 and 9999" in done.stderr
    assert digests(root) == first
    next(root.rglob("*.wav")).unlink()  # incomplete, but still only its own files
    done = step(root, *SPEAKERS, "--seed", 2)
    assert done.returncode == 0, done.stderr
    second = digests(root)
    assert second.keys() == first.keys() and second["meta.csv"] != first["meta.csv"]
    (root / "dev/mine.txt").write_text("mine")
    (root / "README.txt").write_text("Simulated speakers, and my notes")
    before = digests(root)
    done = step(root, *SPEAKERS, "--seed", 3)
    assert done.returncode == 1
    assert "holds 2 files that were changed or added: README.txt, dev/mine.txt; move" in done.stderr
    assert digests(root) == before


@pytest.mark.long
def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.txt").write_text("Simulated speakers, made by somebody\n")
    (tmp_path / "thesis.txt").write_text("years of work\n")
    (tmp_path / "link").symlink_to(tmp_path / "thesis.txt")
    for listed in (None, "", "0  thesis.txt\n"):
        if listed is not None:
            (tmp_path / "made.sha256").write_text(listed)
        before = digests(tmp_path)
        for done in (step(tmp_path), simulate(tmp_path, *SMALL)):
            assert done.returncode == 1 and "name another folder" in done.stderr
            assert digests(tmp_path) == before and (tmp_path / "link").is_symlink()
