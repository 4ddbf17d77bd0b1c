"""Verify, enrol, identify: scores and decisions on recordings, and what is said of bad ones."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from scipy.signal import resample_poly

from local.simulated_voice import draw_speaker, utter
from nnet.embed import load
from steps.backend.chain import Chain
from steps.backend.interface import Enrolment
from steps.use import quality
from steps.use.identify import answer
from steps.use.quality import judge
from steps.use.scoring import Scoring, probability
from steps.use.store import check_name
from tests.in_process import call
from tests.unit.made_up import RATE, write_speech
from tests.unit.made_up_systems import train_network
from utils.audio import read_audio
from utils.errors import InputError

SPEAKERS, RECORDINGS = 6, 5
CHAINS = {"cosine": ["center", "length", "cosine"], "plda": ["center", "lda3", "length", "plda"],
          "normalised": ["center", "length", "cosine", "asnorm4"]}


def voice(speaker, number, seconds=4.0):
    """A recording of one of the made-up speakers."""
    kernel = np.random.default_rng(speaker).normal(size=8)
    rng = np.random.default_rng([speaker, number])
    drift = np.random.default_rng([7, speaker, number]).normal(size=8)
    sound = np.convolve(rng.normal(size=round(seconds * RATE)), kernel + 0.3 * drift, "same")
    return 0.05 * sound * (0.1 + (np.sin(np.arange(len(sound)) / RATE * 20 + number) > 0))


def succeed(module, *words):
    done = call(module, *words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """exp/network with back-ends and a calibration, its bundle, and recordings <speaker>-<number>.wav."""
    folder = tmp_path_factory.mktemp("use")
    # Without cepstral mean normalisation, which would remove the colour that tells these voices apart.
    train_network(write_speech(folder / "data", speakers=5), folder / "exp/network", frontend={"vad": True})
    exp, data = folder / "exp/network", folder / "valid"
    (data / "trials").mkdir(parents=True)
    names = [f"s{speaker}-{number}" for speaker in range(SPEAKERS) for number in range(RECORDINGS)]
    for name in names:
        soundfile.write(folder / f"{name}.wav", voice(int(name[1]), int(name[3])), RATE)
    (data / "utt2spk").write_text("".join(f"{name} {name[:2]}\n" for name in names))
    (data / "trials/valid").write_text("".join(
        f"{a} {b} {'target' if a[:2] == b[:2] else 'nontarget'}\n" for i, a in enumerate(names) for b in names[:i]))
    system = yaml.safe_load((exp / "config.yaml").read_text()) | {"backend": CHAINS}
    (exp / "system.yaml").write_text(yaml.safe_dump(system))
    succeed("steps.use.embed", exp, *(folder / f"{name}.wav" for name in names), "--out", folder / "x.scp")
    succeed("steps.backend.train_backend", exp / "system.yaml", data / "utt2spk", folder / "x.scp", exp / "backend")
    for chain in CHAINS:
        succeed("steps.backend.score", "--max-shared-speakers", "1", exp / f"backend/{chain}", folder / "x.scp",
                data / "trials/valid", folder / f"valid.{chain}")
    succeed("steps.backend.train_calibration", "--", data / "trials/valid",
            *(folder / f"valid.{chain}" for chain in ("cosine", "plda")), exp / "calibration.json")
    succeed("steps.use.bundle", exp, folder / "bundle")
    return folder


@pytest.fixture
def bundle(folder, tmp_path, monkeypatch):
    """A copy of the bundle, in a folder of its own that is the working folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(folder / "bundle", tmp_path / "bundle")


def figures(text):
    """The values of the lines that verify prints."""
    return {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines()}


def test_a_bundle_holds_what_scoring_needs_and_no_path_of_its_machine(folder):
    inside = (folder / "bundle/backend").rglob("*")
    held = {str(path.relative_to(folder / "bundle")) for path in inside if path.is_file()}
    assert held == {f"backend/{name}" for name in (
        "cosine/chain", "cosine/mean.vec", "plda/chain", "plda/mean.vec", "plda/transform.mat", "plda/plda",
        "normalised/chain", "normalised/mean.vec", "normalised/cohort.ark")}
    for path in (folder / "bundle").rglob("*"):
        assert not path.is_file() or str(folder).encode() not in path.read_bytes(), path
    assert (load(folder / "bundle").mean == load(folder / "exp/network").mean).all()


@pytest.mark.parametrize("place", ["bundle", "exp/network"])
@pytest.mark.parametrize("chain", CHAINS)
def test_verify_prints_the_score_of_the_chain_and_the_ratio_of_the_calibration(folder, place, chain):
    paths = [folder / "s1-0.wav", folder / "s1-3.wav"]
    done = succeed("steps.use.verify", "--chain", chain, "--prior", "0.2", folder / place, *paths)
    x = load(folder / place).embed([str(path) for path in paths])
    score = float(Chain.load(folder / place / "backend" / chain).scorer(
        Enrolment(x[:1]), x[1:]).scores(np.array([0]), np.array([0]))[0])
    found = figures(done.stdout)
    assert float(found["score"].split()[0]) == pytest.approx(score, abs=2e-3 * max(1, abs(score)))
    assert f"chain {chain}: {' '.join(CHAINS[chain])};" in found["score"]
    if chain == "normalised":
        assert found["decision"].startswith("none: the chain is not calibrated")
        return
    known = json.loads((folder / place / "calibration.json").read_text())[chain]
    ratio = known["weights"][0] * score + known["offset"]
    assert float(found["ratio"].split()[0]) == pytest.approx(ratio, abs=0.02 * max(1, abs(ratio)))
    assert ("same speaker" in found["decision"]) == (ratio >= math.log(4))
    assert "threshold 1.386 at prior 0.2" in found["decision"]
    assert float(found["probability"].split()[0]) == pytest.approx(1 / (1 + 4 * math.exp(-ratio)), abs=0.01)
    assert found["calibration"].startswith("435 trials of held-out training speakers, EER ")


def test_one_speaker_is_found_and_two_are_told_apart(folder):
    """Over many pairs; the default prior is that of the calibration, and the default chain the best calibrated one."""
    right = []
    for a, b, same in (("s0-0", "s0-1", True), ("s1-0", "s1-1", True), ("s2-1", "s2-3", True), ("s0-0", "s1-0", False),
                       ("s2-0", "s4-0", False), ("s5-1", "s3-0", False)):
        done = succeed("steps.use.verify", folder / "bundle", folder / f"{a}.wav", folder / f"{b}.wav")
        found = figures(done.stdout)
        assert done.stderr == "" and "at prior 0.05" in found["decision"]
        right.append((float(found["ratio"].split()[0]) > 0) == same)
    assert sum(right) >= 5
    known = json.loads((folder / "bundle/calibration.json").read_text())
    best = min(known, key=lambda chain: known[chain]["cllr"])
    assert f"chain {best}:" in found["score"]


def test_a_calibration_keeps_the_histogram_of_its_trials(folder):
    labels = [line.split()[2] for line in (folder / "valid/trials/valid").read_text().splitlines()]
    for chain in ("cosine", "plda"):
        scores = np.array([float(line.split()[2]) for line in (folder / f"valid.{chain}").read_text().splitlines()])
        found = Scoring.load(folder / "bundle", chain).calibration.histogram
        assert (found.low, found.high) == pytest.approx((scores.min(), scores.max()))
        edges = np.linspace(found.low, found.high, 61)
        for counts, kind in ((found.targets, "target"), (found.nontargets, "nontarget")):
            mine = scores[np.array(labels) == kind]
            assert len(counts) == 60 and sum(counts) == len(mine)
            assert sum(counts[:30]) == pytest.approx((mine < edges[30]).sum(), abs=1)


def test_any_format_and_rate_gives_almost_the_same_score(folder, tmp_path):
    sound = resample_poly(resample_poly(voice(1, 3), 3, 4), 4, 3)  # filters differ at the end of the band
    soundfile.write(tmp_path / "x.wav", sound, RATE)
    soundfile.write(tmp_path / "x.flac", np.stack([resample_poly(sound, 441, 160)] * 2, 1), 44100)
    scores = []
    for name in ("x.wav", "x.flac"):
        done = succeed("steps.use.verify", "--chain", "cosine", folder / "bundle", folder / "s1-0.wav", tmp_path / name)
        scores.append(float(figures(done.stdout)["score"].split()[0]))
    assert scores[0] == pytest.approx(scores[1], abs=0.02)


def bad_recordings(folder):
    """Recordings that commands refuse, with what they say."""
    sound = voice(1, 9)
    (folder / "text.wav").write_text("not audio")
    (folder / "empty.wav").touch()
    for name, samples in (("tenth", sound[2400:4000]), ("silent", np.zeros(32000)), ("constant", np.full(32000, 0.1)),
                          ("nan", np.where(np.arange(len(sound)) == 7, np.nan, sound)),
                          ("cancels", np.stack([sound, -sound], 1)), ("few", sound[:100])):
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="FLOAT")
    return {"text": "damaged, or not audio", "empty": "empty, 0 bytes", "tenth": "s of sound; wanted at least 0.5 s",
            "silent": "digital silence; it cannot identify a speaker", "constant": "one constant value; it cannot",
            "nan": "NaN or infinite samples", "cancels": "channels that cancel each other; it cannot",
            "few": "s of sound; wanted at least", "missing": "No such file or directory"}


def test_recordings_that_cannot_identify_a_speaker_change_no_store(folder, bundle, tmp_path):
    good = str(folder / "s1-0.wav")
    succeed("steps.use.enrol", bundle, "ada", good)
    store = tmp_path / "bundle.speakers"
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    for name, message in bad_recordings(tmp_path).items():
        path = tmp_path / f"{name}.wav"
        for words in (("verify", bundle, good, path), ("enrol", bundle, "bob", good, path),
                      ("enrol", "--replace", bundle, "ada", path), ("identify", bundle, path, good)):
            done = call(f"steps.use.{words[0]}", *words[1:])
            assert done.returncode == 1 and done.stdout == ""
            assert done.stderr.count("\n") == 1 and f"{name}.wav" in done.stderr and message in done.stderr, done.stderr
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before


def faulty(sound):
    """Recordings that are used, with a warning, by the word that it begins with."""
    return {"narrow band": (sound[::2], 8000), "its channels differ": (np.stack([sound, voice(2, 1)], 1), RATE),
            "clipped": (np.clip(6 * sound / np.abs(sound).max(), -0.99, 0.99), RATE), "short": (sound[:24000], RATE)}


def test_what_makes_a_score_less_reliable_is_said(folder, tmp_path):
    for word, (sound, rate) in faulty(voice(1, 3)).items():
        path = tmp_path / "x.wav"
        soundfile.write(path, sound, rate)
        done = succeed("steps.use.verify", folder / "bundle", folder / "s1-0.wav", path)
        assert len(done.stderr.splitlines()) == 1 and f"warning: {path}: {word}" in done.stderr
        assert "decision" in done.stdout


def test_recordings_of_corpora_are_judged_sound_and_faults_in_them_are_found(shared, tmp_path):
    """Real speech and simulated voices: a rule that warns of every second recording would be ignored."""
    paths = sorted((shared / "corpora/minivox/test/wav").rglob("*.flac"))[::97][:12]
    voices = [read_audio(path).samples / 32768 for path in paths]
    rng = np.random.default_rng(0)
    voices += [0.05 * utter(draw_speaker(rng, "fm"[number % 2]), 5.0, rng) for number in range(4)]
    remarks = []
    for number, sound in enumerate(voices):
        for name, samples, rate in (
                ("as it is", sound, RATE), ("clipped", np.clip(4 * sound / np.abs(sound).max(), -1, 1), RATE),
                ("narrow band", resample_poly(resample_poly(sound, 1, 2), 2, 1), RATE)):
            soundfile.write(tmp_path / "x.wav", 0.9 * samples, rate)
            found = judge(read_audio(tmp_path / "x.wav"), RATE, "x").remarks
            remarks.append((number, name, [remark for remark in found if not remark.startswith("short")]))
    assert not [one for one in remarks if one[1] == "as it is" and one[2]]
    for fault in ("clipped", "narrow band"):
        found = [any(remark.startswith(fault) for remark in one[2]) for one in remarks if one[1] == fault]
        assert sum(found) >= len(voices) - 1, fault


def test_the_seconds_of_sound_leave_pauses_out():
    sound = np.concatenate([np.zeros(RATE), 3000 * np.random.default_rng(0).normal(size=2 * RATE), np.full(RATE, 9.0)])
    assert quality.active_seconds(sound.astype(np.float32), RATE) == pytest.approx(2, abs=0.05)
    assert quality.active_seconds(sound[:100].astype(np.float32), RATE) == 0


def test_enrol_then_identify_and_say_unknown(folder, bundle, tmp_path):
    for speaker in range(4):
        files = [folder / f"s{speaker}-{number}.wav" for number in range(3)]
        done = succeed("steps.use.enrol", bundle, f"speaker {speaker}", *files)
        assert f"bundle.speakers/speaker {speaker}.json: 3 recordings" in done.stderr
    paths = [folder / f"s{speaker}-{number}.wav" for speaker in range(SPEAKERS) for number in (3, 4)]
    done = succeed("steps.use.identify", bundle, *paths)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == [str(path) for path in paths]
    wanted = ["unknown" if speaker > 3 else f"speaker {speaker}" for speaker in range(SPEAKERS) for _ in range(2)]
    assert sum(row[1] == one for row, one in zip(rows, wanted, strict=True)) >= 9, rows
    assert {row[1] for row in rows} >= {"unknown", "speaker 0"}
    for row in rows:  # the answer and its probability follow from the ratios of all speakers
        assert row[3].startswith("speaker ") and 0.2 < float(row[2]) <= 1
    sure = succeed("steps.use.identify", "--prior", "1e-9", bundle, *paths).stdout.splitlines()
    assert {line.split("\t")[1] for line in sure} == {"unknown"}
    elsewhere = succeed("steps.use.enrol", "--store", tmp_path / "mine", bundle, "x", folder / "s0-0.wav")
    assert "mine/x.json" in elsewhere.stderr
    done = succeed("steps.use.identify", "--store", tmp_path / "mine", "--prior", "0.999999", bundle, paths[0])
    assert done.stdout.split("\t")[1] == "x"


def test_the_answer_weighs_the_prior_and_the_number_of_speakers():
    assert answer(np.array([2.0]), 0.5) == (0, pytest.approx(math.exp(2) / (1 + math.exp(2))))
    assert answer(np.array([-2.0]), 0.5)[0] == 1
    best, sure = answer(np.array([1.0, 2.0, 0.0]), 0.4)  # odds .4/3 e^r and .6
    odds = [0.4 / 3 * math.exp(r) for r in (1, 2, 0)] + [0.6]
    assert (best, sure) == (int(np.argmax(odds)), pytest.approx(max(odds) / sum(odds)))
    assert answer(np.array([1e9, -1e9]), 0.5) == (0, 1.0)
    assert probability(1000, 0.5) == 1 and probability(-1000, 0.5) == 0 and probability(0, 0.2) == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["", "a/b", "../x", "/etc/x", ".hidden", "-x", "a\\b", " a", "a ", "a\nb", "a\0b",
                                  "é" * 101, "\udc80"])
def test_names_that_cannot_be_file_names_are_refused(folder, bundle, tmp_path, name):
    with pytest.raises(InputError, match="wanted 1 to 200 printable characters"):
        check_name(name)
    with pytest.raises(InputError, match="unknown is what identification answers where no enrolled speaker fits"):
        check_name("unknown")
    if name and not name.startswith("-"):
        before = sorted(tmp_path.rglob("*"))
        done = call("steps.use.enrol", bundle, name, folder / "s1-0.wav")
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before


def test_what_is_not_calibrated_gives_no_decision(folder, bundle, tmp_path):
    exp = shutil.copytree(folder / "exp/network", tmp_path / "exp")
    (exp / "calibration.json").unlink()
    done = succeed("steps.use.verify", exp, folder / "s1-0.wav", folder / "s1-3.wav")
    assert "chain cosine:" in done.stdout and "decision     none" in done.stdout and "\nratio" not in done.stdout
    succeed("steps.use.enrol", exp, "ada", folder / "s1-0.wav")
    done = call("steps.use.identify", exp, folder / "s1-0.wav")
    assert done.returncode == 1 and "the chain cosine is not calibrated" in done.stderr
    shutil.rmtree(exp / "backend")
    done = call("steps.use.verify", exp, folder / "s1-0.wav", folder / "s1-3.wav")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "exp has no back-end; train one" in done.stderr


@pytest.mark.parametrize(("content", "message"), [
    ("{", "calibration.json: damaged"), ("[]", "calibration.json: not an object"),
    ('{"cosine": {}}', "calibration.json: cosine: no calibration of one chain"),
    ('{"cosine": {"weights": [1, 2], "offset": 0}}', "cosine: no calibration of one chain"),
    ('{"cosine": {"weights": [1], "offset": 0, "prior": 0.1, "trials": 1, "eer": 1, "cllr": 1, "histogram": 1}}',
     "cosine: no histogram of scores"),
    ('{"cosine": {"weights": [1], "offset": 0, "prior": 0.1, "trials": 1, "eer": 1, "cllr": 1, "histogram": '
     '{"low": 1, "high": 0, "targets": [1], "nontargets": [1]}}}', "a histogram of scores without bins"),
    ('{"cosine": {"weights": [NaN], "offset": 0, "prior": 0.1, "trials": 1, "eer": 1, "cllr": 1}}', "not finite"),
    ('{"cosine": {"weights": [1], "offset": 0, "prior": 1, "trials": 1, "eer": 1, "cllr": 1}}', "prior outside 0")])
def test_a_damaged_calibration_is_refused(folder, tmp_path, content, message):
    exp = shutil.copytree(folder / "exp/network", tmp_path / "exp")
    (exp / "calibration.json").write_text(content)
    with pytest.raises(InputError, match=message) as error:
        Scoring.load(exp)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("words", "message"), [
    (["--prior", "1"], "--prior is '1', wanted more than 0 and less than 1"), (["--prior", "x"], "--prior is 'x'"),
    (["--prior", "nan"], "--prior is 'nan'"),
    (["--chain", "lda"], "no chain 'lda'; available: cosine, normalised, plda")])
def test_bad_options_end_in_one_line(folder, words, message):
    done = call("steps.use.verify", *words, folder / "bundle", folder / "s1-0.wav", folder / "s1-3.wav")
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1


def test_a_changed_bundle_is_refused_by_every_command(folder, bundle):
    path = bundle / "backend/plda/plda"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    for command, words in (("verify", 2), ("identify", 1), ("enrol", 1), ("embed", 1)):
        more = {"embed": ["--out", "x.npz"], "enrol": ["--store", "store"]}.get(command, [])
        name = ["ada"] if command == "enrol" else []
        done = call(f"steps.use.{command}", *more, bundle, *name, *[folder / "s1-0.wav"] * words)
        assert done.returncode == 1 and "backend/plda/plda has changed since the bundle was made" in done.stderr
        assert done.stderr.count("\n") == 1


def test_the_command_runs_from_any_folder(folder, bundle, tmp_path):
    """As a user types it, once."""
    done = subprocess.run([Path(__file__).resolve().parents[2] / "utils/verify", "bundle", folder / "s1-0.wav",
                           folder / "s1-3.wav"], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**{key: value for key, value in os.environ.items() if not key.startswith("VOX_READY")},
                               "VOX_VENV": sys.prefix})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^decision     (same speaker|different speakers) \(", done.stdout, re.MULTILINE)
