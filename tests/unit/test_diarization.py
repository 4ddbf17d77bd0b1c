"""Diarization: VBx against plain loops, clusters, windows, error rates by hand, and a conversation from end to end."""

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from steps.diarization.clusters import cluster_windows, clustered, crossing
from steps.diarization.diarize import windows_of
from steps.diarization.error import Errors, compare, errors_of, rate_interval
from steps.diarization.vbx import forward_backward, vbx
from tests.in_process import call
from tests.unit.made_up import FEATURES, RATE
from tests.unit.made_up_systems import write_untrained
from utils.errors import InputError
from utils.features.vad import read_vad_options, vad_written_out
from utils.rttm import Turn, read_rttm, rttm_lines
from utils.speech import loud_frames, regions_of


def made_up_vectors(seed=0, speakers=3, turns=12, dim=4):
    """Vectors of a conversation, with I within speakers and phi between them; the speaker of each."""
    rng = np.random.default_rng(seed)
    phi = np.array([9.0, 4.0, 2.0, 0.5])[:dim]
    centres = rng.normal(size=(speakers, dim)) * np.sqrt(phi)
    who = np.repeat(np.arange(turns) % speakers, rng.integers(4, 12, turns))
    return centres[who] + rng.normal(size=(len(who), dim)), phi, who


def plain_vbx(x, phi, gamma, pi, fa, fb, loop):
    """One iteration of the paper, equation by equation, with loops, the whole transition matrix, and no scaling."""
    frames, dim, speakers = len(x), len(phi), gamma.shape[1]
    rho = [[x[t][d] * math.sqrt(phi[d]) for d in range(dim)] for t in range(frames)]  # (18)
    variance = [[1 / (1 + fa / fb * sum(gamma[t][s] for t in range(frames)) * phi[d]) for d in range(dim)]
                for s in range(speakers)]  # (17)
    alpha = [[fa / fb * variance[s][d] * sum(gamma[t][s] * rho[t][d] for t in range(frames)) for d in range(dim)]
             for s in range(speakers)]  # (16)
    p = [[math.exp(fa * sum(alpha[s][d] * rho[t][d] - 0.5 * phi[d] * (variance[s][d] + alpha[s][d]**2)
                            - 0.5 * (x[t][d]**2 + math.log(2 * math.pi)) for d in range(dim)))
          for s in range(speakers)] for t in range(frames)]  # (23)
    step = [[(1 - loop) * pi[s] + (loop if s == before else 0) for s in range(speakers)]
            for before in range(speakers)]  # (1)
    a = [[p[0][s] * pi[s] for s in range(speakers)]]
    for t in range(1, frames):  # (20)
        a.append([p[t][s] * sum(a[t - 1][before] * step[before][s] for before in range(speakers))
                  for s in range(speakers)])
    b = [[1.0] * speakers]
    for t in range(frames - 2, -1, -1):  # (21)
        b.insert(0, [sum(step[s][after] * p[t + 1][after] * b[0][after] for after in range(speakers))
                     for s in range(speakers)])
    total = sum(a[-1])  # (22)
    found = [[a[t][s] * b[t][s] / total for s in range(speakers)] for t in range(frames)]  # (19)
    elbo = math.log(total) + fb / 2 * sum(1 + math.log(v) - v - m**2 for s in range(speakers)
                                          for v, m in zip(variance[s], alpha[s], strict=True))  # (25)
    new = [found[0][s] + (1 - loop) * pi[s] / total * sum(sum(a[t - 1]) * p[t][s] * b[t][s] for t in range(1, frames))
           for s in range(speakers)]  # (24)
    return np.array(found), np.array(new) / sum(new), elbo


@pytest.mark.parametrize(("fa", "fb", "loop"), [(1, 1, 0.9), (0.3, 17, 0.99), (0.4, 6, 0.0)])
def test_vbx_equals_the_paper_in_plain_loops(fa, fb, loop):
    x, phi, _ = made_up_vectors(turns=5)
    gamma = np.random.default_rng(1).dirichlet(np.ones(4), len(x))
    plain, pi = gamma, np.full(4, 0.25)
    for iterations in range(1, 4):
        plain, pi, elbo = plain_vbx(x, phi, plain, pi, fa, fb, loop)
        found = vbx(x, phi, gamma, fa, fb, loop, iterations, epsilon=-np.inf)
        np.testing.assert_allclose(found.gamma, plain, atol=1e-10)
        np.testing.assert_allclose(found.pi, pi, atol=1e-10)
        assert found.elbos[-1] == pytest.approx(elbo, rel=1e-10)
        assert len(found.elbos) == iterations


def test_the_lower_bound_never_falls():
    for seed in range(4):
        x, phi, _ = made_up_vectors(seed, speakers=2 + seed % 3)
        gamma = np.random.default_rng(seed).dirichlet(np.ones(6), len(x))
        for fa, fb, loop in ((1, 1, 0.9), (0.3, 17, 0.99), (0.5, 3, 0.5)):
            elbos = np.array(vbx(x, phi, gamma, fa, fb, loop, 30, epsilon=-np.inf).elbos)
            assert len(elbos) == 30 and np.diff(elbos).min() > -1e-9 * np.abs(elbos).max()


def test_vbx_finds_the_speakers_of_too_many_clusters():
    x, phi, who = made_up_vectors(5)
    first = np.arange(len(x)) * 8 // len(x)  # eight clusters by time
    gamma = np.exp(5.0 * (first[:, None] == np.arange(8)))
    found = vbx(x, phi, gamma / gamma.sum(axis=1, keepdims=True), 1, 2, 0.9)
    labels = found.gamma.argmax(axis=1)
    assert len(np.unique(labels)) == 3 and (found.pi > 0.01).sum() == 3
    pairs = labels[:, None] == labels
    assert (pairs == (who[:, None] == who)).mean() > 0.95
    assert len(found.elbos) < 40


def test_likelihoods_that_underflow():
    """Scaled: a thousand frames, and speakers whose likelihoods differ by exp(2000), one of them without a prior."""
    log_p = np.zeros((1000, 3)) - 1e4
    log_p[:500, 0] += 2000
    log_p[500:, 1] += 2000
    found = forward_backward(log_p, np.array([1 - 2e-300, 1e-300, 1e-300]), 0.9)
    assert np.isfinite(found.log_p)
    np.testing.assert_allclose(found.gamma.sum(axis=1), 1)
    assert found.gamma[:500, 0].min() > 0.99 and found.gamma[500:, 1].min() > 0.99


def test_clusters():
    rng = np.random.default_rng(0)
    who = rng.integers(3, size=60)
    scores = np.where(who[:, None] == who, 3.0, -3.0) + rng.normal(size=(60, 60))
    assert -1.5 < crossing(scores[~np.eye(60, dtype=bool)]) < 1.5
    labels = clustered(scores, 0)
    assert labels.max() == 2 and ((labels[:, None] == labels) == (who[:, None] == who)).all()
    assert clustered(scores, -9).max() == 0 and clustered(scores, 9).max() == 59
    assert clustered(np.ones((1, 1)), 0).tolist() == [0]
    assert crossing(np.full(9, 2.0)) == 2


def test_more_windows_than_are_clustered(monkeypatch):
    """The others join the cluster with the highest mean score."""
    monkeypatch.setattr("steps.diarization.clusters.MOST", 40)
    rng = np.random.default_rng(0)
    who = rng.integers(2, size=301)
    scores = np.where(who[:, None] == who, 2.0, -2.0) + rng.normal(size=(301, 301))
    windows = np.arange(301)[:, None] + np.array([0.0, 1.0])
    labels = cluster_windows(lambda rows, columns: scores[np.ix_(rows, columns)], windows, 0.0)
    assert ((labels[:, None] == labels) == (who[:, None] == who)).all()


def test_windows_that_overlap_do_not_move_the_threshold():
    """Their scores are far above those of other windows of the same speaker, which still are in one cluster."""
    who = np.repeat([0, 1, 0, 1], 20)
    near = np.abs(np.arange(80)[:, None] - np.arange(80)) < 6
    scores = np.where(who[:, None] == who, 1.0, -1.0) + 0.2 * np.random.default_rng(0).normal(size=(80, 80)) + 20 * near
    for shift, separated in ((0.25, True), (2.5, False)):  # the same scores, but none overlaps
        windows = shift * np.arange(80)[:, None] + np.array([0.0, 1.5])
        labels = cluster_windows(lambda rows, columns: scores[np.ix_(rows, columns)], windows, 0.0)
        assert ((labels[:, None] == labels) == (who[:, None] == who)).all() == separated


def test_windows():
    windows, parts = windows_of(np.array([[1.0, 3.0], [4.0, 4.4]]), 1.5, 0.25)
    assert windows.tolist() == [[1.0, 2.5], [1.25, 2.75], [1.5, 3.0], [4.0, 4.4]]
    assert parts.tolist() == [[1.0, 1.875], [1.875, 2.125], [2.125, 3.0], [4.0, 4.4]]
    windows, parts = windows_of(np.array([[0.0, 1.6]]), 1.5, 0.25)  # the last window ends with the region
    np.testing.assert_allclose(windows, [[0.0, 1.5], [0.1, 1.6]])
    np.testing.assert_allclose(parts, [[0.0, 0.8], [0.8, 1.6]])


def test_speech_by_level():
    samples = np.random.default_rng(0).normal(0, 3000, 4 * 16000)
    samples[16000:24000] *= 1e-3
    samples[40000:41600] *= 1e-3  # 0.1 s: too short for a pause
    found = regions_of(loud_frames(samples, 16000))
    np.testing.assert_allclose(found, [[0, 1.0], [1.5, 4.0]], atol=0.03)
    assert regions_of(np.zeros(0, bool)).shape == (0, 2)
    assert regions_of(np.array([0, 1, 0, 0] * 3, bool)).shape == (0, 2)  # 0.09 s, after pauses are filled


def turns(text):
    """Turns of one recording from `a 0 4, b 4 6`."""
    return [Turn("r", float(start), float(end), name)
            for name, start, end in (one.split() for one in text.split(","))]


@pytest.mark.parametrize(("reference", "result", "collar", "wanted"), [
    ("a 0 4, b 4 6", "x 0 4, y 4 6", 0, (0, 0, 0, 6)),
    ("a 0 4, b 4 6", "x 0 6", 0, (0, 0, 2, 6)),                    # b is taken for a
    ("a 0 4, b 4 6", "x 0 2, y 2 6", 0, (0, 0, 2, 6)),             # y is b or a, for 2 s either way
    ("a 0 4, b 4 6", "x 1 4, y 4 7", 0, (1, 1, 0, 6)),
    ("a 0 4, b 2 6", "x 0 3, y 3 6", 0, (2, 0, 0, 8)),             # of two at once, one is named
    ("a 0 4", "x 0 4, y 1 2", 0, (0, 1, 0, 4)),
    ("a 0 4, b 4 6", "y 10 12", 0, (6, 2, 0, 6)),
    ("a 0 4, b 4 6", "x 0 4.2, y 4.2 6", 0, (0, 0, 0.2, 6)),
    ("a 0 4, b 4 6", "x 0 4.2, y 4.2 6", 0.25, (0, 0, 0, 5)),      # collars at 0, 4 (twice) and 6
    ("a 0 4, b 4 6", "x 0 4.5, y 4.5 6", 0.25, (0, 0, 0.25, 5)),
    ("a 0 2, a 1 4", "x 0 4", 0, (0, 0, 0, 4)),                    # one speaker cannot speak twice at once
])
def test_error_rates_by_hand(reference, result, collar, wanted):
    found = errors_of(turns(reference), turns(result), collar)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_intervals_and_recordings_that_differ():
    errors = [Errors(1, 0, 0, 10)] * 5 + [Errors(3, 0, 0, 10)] * 5
    low, high = rate_interval(errors)
    assert 10 <= low < 18 and 22 < high <= 30
    assert rate_interval(errors[:5]) == (10, 10)
    ours, theirs = turns("a 0 4"), [Turn("other", 0, 1, "x")]
    with pytest.raises(InputError, match="the result lacks 1 recordings: r; name files of the same"):
        compare(ours, theirs, 0)
    with pytest.raises(InputError, match="the reference lacks 1 recordings: other"):
        compare(ours, ours + theirs, 0)
    with pytest.raises(InputError, match="--collar 3 leaves no speech"):
        compare(ours, ours, 3)


def test_rttm(tmp_path):
    path = tmp_path / "a.rttm"
    found = [Turn("r", 0.0, 1.25, "a"), Turn("r", 1.25, 2.0006, "b")]
    path.write_text(";; a remark\nSPKR-INFO r 1 <NA> <NA> <NA> unknown a <NA> <NA>\n" + "".join(rttm_lines(found)))
    assert read_rttm(path) == [found[0], Turn("r", 1.25, 2.001, "b")]
    for line, message in (("SPEAKER r 1 0", "1: 'SPEAKER r 1 0' is not `SPEAKER recording channel start"),
                          ("SPEAKER r 1 x 1 <NA> <NA> a <NA> <NA>", "is not `SPEAKER recording"),
                          ("SPEAKER r 1 1 0 <NA> <NA> a <NA> <NA>", "1: start 1 and duration 0; wanted"),
                          ("SPEAKER r 1 0 nan <NA> <NA> a <NA> <NA>", "is not `SPEAKER recording"),
                          ("SPEAKER r 1 0 1_0 <NA> <NA> a <NA> <NA>", "is not `SPEAKER recording"),
                          ("nothing", "no line SPEAKER")):
        path.write_text(f"{line}\n")
        with pytest.raises(InputError, match=re.escape(message)):
            read_rttm(path)
    path.write_text("SPEAKER r 1 0 1 <NA> <NA> a <NA> <NA>\r\n")
    with pytest.raises(InputError, match="carriage return .Windows line end.; write it with LF line ends"):
        read_rttm(path)
    with pytest.raises(InputError, match="'a b': a recording of an RTTM file is one word"):
        list(rttm_lines([Turn("a b", 0, 1, "x")]))


def voice(speaker, number, seconds):
    """Noise with a speaker's colour, in syllables."""
    kernel = np.random.default_rng(speaker).normal(size=8)
    sound = np.convolve(np.random.default_rng([speaker, number]).normal(size=round(seconds * RATE)), kernel, "same")
    return 0.05 * sound * (0.3 + (np.sin(np.arange(len(sound)) / RATE * 20 + number) > 0))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network with random weights, back-ends trained on 12 made-up voices, and a conversation of two others."""
    folder = tmp_path_factory.mktemp("diarization")
    options = vad_written_out(read_vad_options(FEATURES / "vad.conf"))
    exp = write_untrained(folder / "exp", "mfcc24", frontend={"vad": True}, vad_options=options)
    names = [f"v{speaker:02}-{number}" for speaker in range(12) for number in range(5)]
    for name in names:
        soundfile.write(folder / f"{name}.wav", voice(int(name[1:3]), int(name[4]), 1.5), RATE)
    (folder / "utt2spk").write_text("".join(f"{name} {name[:3]}\n" for name in names))
    (exp / "system.yaml").write_text(
        "backend: {cosine: [center, length, cosine], plda: [center, lda6, length, plda]}\n")
    for words in (("steps.use.embed", exp, *(folder / f"{name}.wav" for name in names), "--out", folder / "x.scp"),
                  ("steps.backend.train_backend", exp / "system.yaml", folder / "utt2spk", folder / "x.scp",
                   exp / "backend")):
        done = call(*words)
        assert done.returncode == 0, done.stderr
    sound, reference = [], []
    for number, (speaker, seconds) in enumerate(((20, 4), (21, 3), (20, 2), (21, 5), (20, 3))):
        start = sum(map(len, sound)) / RATE
        sound += [voice(speaker, number, seconds), np.zeros(RATE // 2) + 1e-4]
        reference.append(Turn("talk", start, start + seconds, f"v{speaker}"))
    soundfile.write(folder / "talk.wav", np.concatenate(sound), RATE)
    (folder / "reference.rttm").write_text("".join(rttm_lines(reference)))
    return folder


@pytest.mark.parametrize("options", [(), ("--chain", "plda"), ("--chain", "plda", "--vbx", "false"),
                                     ("--chain", "plda", "--shift", "0.75")], ids=" ".join)
def test_a_conversation_of_two_speakers(model, tmp_path, options):
    done = call("steps.diarization.diarize", *options, model / "exp", model / "talk.wav", tmp_path / "talk.rttm")
    assert done.returncode == 0, done.stderr
    found = read_rttm(tmp_path / "talk.rttm")
    assert {turn.speaker for turn in found} == {"speaker1", "speaker2"} and found[0].speaker == "speaker1"
    done = call("steps.diarization.error", "--collar", "0.25", model / "reference.rttm", tmp_path / "talk.rttm")
    assert done.returncode == 0, done.stderr
    assert float(re.match(r"DER (.*) % \(one recording, no interval\)", done.stdout)[1]) < 5, done.stdout


def test_a_name_of_several_words_becomes_one(model, tmp_path):
    names = "my meeting .. 1", "other"
    for name in names:
        (tmp_path / f"{name}.wav").symlink_to(model / "talk.wav")
    done = call("steps.diarization.diarize", "--shift", "1", model / "exp",
                *(tmp_path / f"{name}.wav" for name in names), tmp_path / "out.rttm")
    assert done.returncode == 0, done.stderr
    assert {turn.recording for turn in read_rttm(tmp_path / "out.rttm")} == {"my_meeting___1", "other"}
    said = [line for line in done.stderr.splitlines() if "one word" in line]
    assert said == [f"'{tmp_path}/my meeting .. 1.wav' is called my_meeting___1 in {tmp_path}/out.rttm: a name there "
                    "is one word"]
    (tmp_path / "my_meeting___1.wav").symlink_to(model / "talk.wav")
    done = call("steps.diarization.diarize", model / "exp", *sorted(tmp_path.glob("my*.wav")), tmp_path / "x.rttm")
    assert done.returncode == 1 and "two recordings are called my_meeting___1; rename one" in done.stderr


def test_bad_recordings_and_options(model, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "click.wav", np.append(np.zeros(RATE), 0.5), RATE)
    (tmp_path / "text.wav").write_text("no audio")
    for words, message in (((tmp_path / "silence.wav",), "silence.wav: digital silence; there is nobody to tell apart"),
                           ((tmp_path / "click.wav",), "click.wav: no speech of 0.2 s or more"),
                           ((tmp_path / "text.wav",), "text.wav: damaged, or not audio"),
                           ((tmp_path / "none.wav",), "none.wav: No such file"),
                           (("--window", "0", model / "talk.wav"), "--window 0 and --shift 0.25: wanted seconds"),
                           (("--loop", "1", model / "talk.wav"), "--loop 1: wanted fa and fb above 0, loop from 0"),
                           (("--chain", "x", model / "talk.wav"), "has no chain 'x'; available: cosine, plda"),
                           ((model / "talk.wav", model / "talk.wav"), "two recordings are called talk; rename one")):
        options = [word for word in words if not isinstance(word, Path)]
        files = [word for word in words if isinstance(word, Path)]
        done = call("steps.diarization.diarize", *options, model / "exp", *files, tmp_path / "out.rttm")
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1], done.stderr
    assert not (tmp_path / "out.rttm").exists()


def test_an_output_that_is_forgotten_costs_no_recording(model, tmp_path):
    last = shutil.copy(model / "talk.wav", tmp_path / "last.wav")
    done = call("steps.diarization.diarize", model / "exp", model / "talk.wav", last)
    assert done.returncode == 1 and "wanted a name that ends in .rttm, after the recordings" in done.stderr
    assert Path(last).read_bytes() == (model / "talk.wav").read_bytes()


def test_simulated_conversations(tmp_path):
    corpus = tmp_path / "corpus"
    for speaker in range(3):
        for number in range(3):
            (corpus / f"v{speaker}/s1").mkdir(parents=True, exist_ok=True)
            soundfile.write(corpus / f"v{speaker}/s1/{number}.wav", voice(speaker, number, 2), RATE)
    words = "--conversations", 3, "--turns", 6, "--overlap", 1, corpus
    for name in ("out", "again"):
        done = call("local.simulate_conversations", *words, tmp_path / name)
        assert done.returncode == 0, done.stderr
    found = read_rttm(tmp_path / "out/reference.rttm")
    assert (tmp_path / "out/reference.rttm").read_bytes() == (tmp_path / "again/reference.rttm").read_bytes()
    for name in ("conversation001", "conversation002", "conversation003"):
        path = f"wav/{name}.wav"
        assert (tmp_path / "out" / path).read_bytes() == (tmp_path / "again" / path).read_bytes()
        of_this = [turn for turn in found if turn.recording == name]
        seconds = soundfile.info(tmp_path / "out" / path).duration
        assert 2 <= len({turn.speaker for turn in of_this}) <= 3
        assert max(turn.end for turn in of_this) <= seconds + 0.001
        assert 11 < sum(turn.end - turn.start for turn in of_this) < 12.1 and seconds < 12  # the turns overlap
    done = call("local.simulate_conversations", "--speakers", 4, corpus, tmp_path / "x")
    assert done.returncode == 1 and "--speakers 4" in done.stderr and "wanted 2 to 3 speakers" in done.stderr
    done = call("local.simulate_conversations", tmp_path / "none", tmp_path / "x")
    assert done.returncode == 1 and "none: 0 speakers with <speaker>/<session>/<file>" in done.stderr
    (tmp_path / "out/wav/notes.wav").write_text("mine")
    for out in (tmp_path / "out", corpus.rename(tmp_path / "wav").parent):
        done = call("local.simulate_conversations", "--conversations", 1, tmp_path / "wav", out)
        assert done.returncode == 1 and "wav holds other files, which would be deleted: " in done.stderr, done.stderr
    assert (tmp_path / "out/wav/notes.wav").read_text() == "mine" and (tmp_path / "wav/v0/s1/0.wav").is_file()
