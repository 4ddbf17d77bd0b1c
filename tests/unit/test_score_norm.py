"""Score normalisation against its equations in plain loops, and bad cohorts."""

import os
import statistics
import subprocess
from pathlib import Path

import numpy as np
import pytest

from steps.backend import Word, parse_chain
from steps.backend.chain import Chain
from steps.backend.interface import Enrolment
from steps.backend.score_norm import cohort_normal, normals
from steps.backend.scoring import Sides
from steps.backend.speaker_stats import speaker_means
from utils.errors import InputError
from utils.kaldi.ark import ArkWriter

ROOT = Path(__file__).resolve().parents[2]


def speakers(count, utterances, seed, dim=6):
    """N x D vectors of speakers, with their speakers' names."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.normal(size=(count, dim)) + 1
    x = np.repeat(centres, utterances, axis=0) + rng.normal(size=(count * utterances, dim))
    return x.astype(np.float32), [f"s{seed}{row // utterances:02}" for row in range(len(x))]


def trained(name):
    x, names = speakers(20, 5, 1)
    return Chain.fit(parse_chain(name.split(), "x"), x, names)


def score(backend, one, other):
    zero = np.array([0])
    return float(backend.scorer(Enrolment(one[None]), other[None]).scores(zero, zero)[0])


def normalised(kind, backend, e, t, cohort, top):
    """The score of one trial, by the equations."""
    s = score(backend, e, t)
    of_e, of_t = [score(backend, e, c) for c in cohort], [score(backend, c, t) for c in cohort]
    if kind == "asnorm":
        of_e, of_t = sorted(of_e)[-top:], sorted(of_t)[-top:]
    z, t = ((s - statistics.fmean(some)) / statistics.pstdev(some) for some in (of_e, of_t))
    return {"znorm": z, "tnorm": t}.get(kind, (z + t) / 2)


@pytest.mark.parametrize("name", ["center length cosine", "center lda4 length plda"])
@pytest.mark.parametrize("kind", ["znorm", "tnorm", "snorm", "asnorm"])
def test_normalised_scores_equal_their_equations(name, kind, monkeypatch):
    monkeypatch.setattr("steps.backend.score_norm.CELLS", 40)  # several blocks
    backend, (x, _) = trained(name), speakers(4, 2, 2)
    cohort = speaker_means(*speakers(9, 3, 3))[1].astype(np.float32)
    norm = Word(kind, 4 if kind == "asnorm" else None)
    e, t = normals(backend.plain_scorer, norm, cohort, Enrolment(x), x, threads=2)
    for i, j in ((0, 1), (0, 5), (7, 2)):
        parts = [side.of(row, score(backend, x[i], x[j])) for side, row in ((e, i), (t, j)) if side]
        assert sum(parts) / len(parts) == pytest.approx(normalised(kind, backend, x[i], x[j], cohort, 4), rel=2e-4)


def test_a_cohort_smaller_than_asked_for_is_said(capsys):
    backend, (x, _) = trained("center length cosine"), speakers(4, 2, 2)
    cohort = speakers(9, 1, 3)[0]
    some, every = (normals(backend.plain_scorer, Word("asnorm", top), cohort, Enrolment(x), x, threads=1)
                   for top in (300, 9))
    np.testing.assert_array_equal(some[0].mean, every[0].mean)
    assert capsys.readouterr().err == "asnorm300: the cohort has 9 speakers, and all are taken\n"


def test_models_of_several_utterances_have_statistics_of_their_own():
    backend, (x, _) = trained("center lda4 length plda"), speakers(4, 3, 2)
    cohort = speakers(9, 1, 3)[0]
    models = [np.array([0, 1, 2]), np.array([3, 4])]
    e, t = normals(backend.plain_scorer, Word("snorm", None), cohort, Enrolment(x, models), x, threads=1)
    assert (len(e.mean), len(t.mean)) == (2, 12)
    scorer = backend.scorer(Enrolment(x, models), cohort)
    scores = scorer.scores(np.repeat([0, 1], 9), np.tile(np.arange(9), 2)).reshape(2, 9)
    np.testing.assert_allclose(e.mean, scores.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(e.deviation, scores.std(axis=1), rtol=1e-5)


def test_a_back_end_without_matrix_products_is_asked_for_each_score():
    class Slow:
        def __init__(self, sides):
            self.scores = sides.scores

    rng = np.random.default_rng(0)
    sides = Sides(*(rng.normal(size=(size, 5)).astype(np.float32) for size in (6, 8)))
    for one, other in zip(cohort_normal(sides, 6, 8, 3), cohort_normal(Slow(sides), 6, 8, 3), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_scores_that_are_all_alike_are_an_error():
    sides = Sides(np.zeros((3, 2), np.float32), np.ones((4, 2), np.float32))
    with pytest.raises(InputError, match="3 of 3 embeddings have the same score with all of the cohort"):
        cohort_normal(sides, 3, 4, 0)


@pytest.fixture
def work(tmp_path):
    """Back-end, training and test data, scores of all pairs of the test set."""
    for number, (part, count) in enumerate((("train", 12), ("test", 4)), start=1):
        x, names = speakers(count, 4, number)
        folder = tmp_path / part
        folder.mkdir()
        with ArkWriter(folder / "xvector") as writer:
            for row, vector in enumerate(x):
                writer.write(f"{names[row]}-u{row:02}", vector)
        (folder / "utt2spk").write_text("".join(f"{name}-u{row:02} {name}\n" for row, name in enumerate(names)))
    ids = [line.split()[0] for line in (tmp_path / "test/utt2spk").read_text().splitlines()]
    (tmp_path / "trials").write_text("".join(f"{a} {b}\n" for a in ids for b in ids if a < b))
    (tmp_path / "system.yaml").write_text("backend:\n  cosine: [center, length, cosine]\n"
                                          "  own: [center, length, cosine, asnorm5]\n")
    for words in (("train_backend.sh", "system.yaml", "train", "train", "backend"),
                  ("score.sh", "backend/cosine", "test", "trials", "raw"),
                  ("score.sh", "backend/own", "test", "trials", "own")):
        done = call(tmp_path, *words)
        assert done.returncode == 0, done.stderr
    return tmp_path


def call(folder, script, *words):
    return subprocess.run(["bash", ROOT / "steps" / script, *words], capture_output=True, text=True, check=False,
                          cwd=folder, env=os.environ)


ARGUMENTS = ["backend/cosine", "train", "train", "test", "test", "raw", "out"]


def test_the_step_writes_the_normalised_scores_in_order(work):
    done = call(work, "normalise_scores.sh", "--kind", "asnorm5", *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    raw, out = ([line.split() for line in (work / name).read_text().splitlines()] for name in ("raw", "out"))
    assert [line[:2] for line in raw] == [line[:2] for line in out]
    own = [line.split() for line in (work / "own").read_text().splitlines()]  # a chain with the same cohort
    assert [line[:2] for line in out] == [line[:2] for line in own]
    np.testing.assert_allclose(*([float(line[2]) for line in lines] for lines in (out, own)), rtol=1e-4, atol=1e-4)
    backend = Chain.load(work / "backend/cosine")
    x, names = speakers(12, 4, 1)
    cohort = speaker_means(x, names)[1].astype(np.float32)
    test, test_names = speakers(4, 4, 2)
    row = {f"{name}-u{number:02}": number for number, name in enumerate(test_names)}
    for (a, b, value), _ in zip(out[::17], raw[::17], strict=True):
        wanted = normalised("asnorm", backend, test[row[a]], test[row[b]], cohort, 5)
        assert float(value) == pytest.approx(wanted, abs=2e-3)
    assert "up to date" in call(work, "normalise_scores.sh", "--kind", "asnorm5", *ARGUMENTS).stderr
    # Other content of any input, here one training vector and one score, reaches the output.
    for name in ("train/xvector.1.ark", "raw"):
        before = (work / "out").read_bytes()
        path = next(work.glob(name.replace(".1", "*")))
        content = path.read_bytes()
        path.write_bytes(content.rsplit(b" ", 1)[0] + b" 0.123\n" if name == "raw" else content[:-4] + b"\0\0\x80\x40")
        done = call(work, "normalise_scores.sh", "--kind", "asnorm5", *ARGUMENTS)
        assert done.returncode == 0, done.stderr
        assert (work / "out").read_bytes() != before, name


def test_the_means_of_cohort_scores_are_a_table(work):
    done = call(work, "cohort_means.sh", "backend/own", "test", "means")
    assert done.returncode == 0, done.stderr
    found = {line.split()[0]: float(line.split()[1]) for line in (work / "means").read_text().splitlines()}
    chain, cohort = Chain.load(work / "backend/cosine"), speaker_means(*speakers(12, 4, 1))[1].astype(np.float32)
    x, names = speakers(4, 4, 2)
    assert len(found) == len(x)
    for row in (0, 9):
        best = sorted(score(chain, x[row], one) for one in cohort)[-5:]
        assert found[f"{names[row]}-u{row:02}"] == pytest.approx(statistics.fmean(best), abs=1e-4)
    done = call(work, "cohort_means.sh", "backend/cosine", "test", "other")
    assert done.returncode == 1
    assert "backend/cosine: the chain center length cosine has no cohort; name one that ends in" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(("options", "change", "message"), [
    (["--kind", "asnorm1"], None, "--kind: the part 'asnorm1': wanted at least asnorm2"),
    (["--kind", "asnorm"], None, "--kind: the part 'asnorm' wants a number: asnorm200"),
    (["--kind", "plda"], None, "--kind plda: wanted one of znorm, tnorm, snorm, asnorm<N>, such as asnorm300"),
    ([], ("test/utt2spk", "s200 ", "s100 "), "the cohort train: test: "),
    ([], ("test/utt2spk", "s200-u00 s200\n", ""), "test/utt2spk: no speaker for 1 embeddings: s200-u00; name the data"),
    ([], ("raw", "s200-u00 s200-u01 ", "s200-u00 s200-u99 "), "raw:1: s200-u99 has no embedding; name the embeddings"),
    ([], ("raw", "s200-u00 s200-u01 ", "s200-u00 s200-u01 x"), "raw:1: score 'x"),
])
def test_what_does_not_fit_is_an_error_and_nothing_is_written(work, options, change, message):
    if change:
        name, old, new = change
        text = (work / name).read_text()
        if name == "test/utt2spk" and new == "s100 ":  # a test speaker who is in the cohort
            text = "".join(f"{line.split()[0]} {line.split()[1].replace('s200', 's100')}\n"
                           for line in text.splitlines())
        else:
            assert old in text
            text = text.replace(old, new)
        (work / name).write_text(text)
    done = call(work, "normalise_scores.sh", *options, *ARGUMENTS)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (work / "out").exists()
