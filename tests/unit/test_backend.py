"""LDA, PLDA and scoring: parity with Kaldi, known answers, and too little data."""

import numpy as np
import pytest

from steps.backend import chains_of, parse_chain
from steps.backend.adaptation import kaldi
from steps.backend.chain import Chain, apply
from steps.backend.cosine import Cosine
from steps.backend.interface import Enrolment
from steps.backend.lda import apply_transform, estimate_lda, normalise_length
from steps.backend.plda import Plda, from_covariances, read_plda, train_gaussian, train_two_covariance, write_plda
from steps.backend.plda_scoring import TwoCovariance, plda_sides
from steps.backend.score import read_models
from steps.backend.scoring import score_trials
from steps.backend.speaker_stats import collect
from steps.backend.transforms import Center, Lda, Length, Wccn
from utils.errors import InputError
from utils.kaldi.ark import read_table, read_vectors
from utils.kaldi.objects import read_matrix, read_vector
from utils.metrics import measure


@pytest.fixture(scope="module")
def reference(shared):
    """Kaldi's files, the training and test i-vectors, and the training speakers."""
    folder = shared / "kaldi_reference/backend"
    ids, train = read_vectors(folder / "ivector_train.ark")
    speaker_of = dict(zip(*read_table(folder / "train_utt2spk"), strict=True))
    return folder, train, [speaker_of[name] for name in ids]


def process(x, mean, transform):
    """Vectors as Kaldi's recipe makes them, with its mean and its LDA matrix."""
    return apply([Center(mean), Lda(transform), Length()], x)


def fit(words, x, speakers):
    return Chain.fit(parse_chain(words.split(), "x"), np.asarray(x, np.float32), speakers)


def scores_of(path) -> dict[tuple[str, str], float]:
    return {tuple(line.split()[:2]): float(line.split()[2]) for line in path.read_text().splitlines()}


def compare(path, expected, tolerance) -> np.ndarray:
    ours, theirs = scores_of(path), scores_of(expected)
    assert ours.keys() == theirs.keys()
    found = np.array(list(ours.values()))
    assert np.abs(found - np.array([theirs[pair] for pair in ours])).max() < tolerance
    return found


def test_mean_lda_and_processing_agree_with_kaldi(reference):
    folder, train, speakers = reference
    mean = read_vector(folder / "mean.vec")
    np.testing.assert_allclose(train.mean(axis=0, dtype=np.float64), mean, atol=1e-6)
    lda, expected = estimate_lda(collect(train - mean, speakers), 100), read_matrix(folder / "lda.mat")
    assert lda.shape == expected.shape == (100, 201)
    signs = np.sign((lda * expected).sum(axis=1, keepdims=True))  # the sign of an eigenvector is arbitrary
    np.testing.assert_allclose(lda * signs, expected, atol=1e-5)
    _, test = read_vectors(folder / "ivector_test.ark")
    _, processed = read_vectors(folder / "processed_test.ark")
    np.testing.assert_allclose(process(test, mean, expected), processed, atol=1e-5)


def test_plda_training_and_scores_agree_with_kaldi(reference, tmp_path):
    folder, train, speakers = reference
    mean, lda = read_vector(folder / "mean.vec"), read_matrix(folder / "lda.mat")
    model = train_two_covariance(collect(process(train, mean, lda), speakers))
    np.testing.assert_allclose(model.psi, read_plda(folder / "plda").psi, rtol=1e-4, atol=1e-5)
    ids, test = read_vectors(folder / "processed_test.ark")
    projected = model.project(test)
    score_trials(folder / "trials", tmp_path / "scores", plda_sides(model, projected, projected), ids, ids)
    found = compare(tmp_path / "scores", folder / "plda_scores", 0.02)
    labels = [line.split()[2] == "target" for line in (folder / "trials").read_text().splitlines()]
    assert measure(found[labels], found[~np.array(labels)]).eer == pytest.approx(5.461, abs=0.001)


def test_adaptation_agrees_with_kaldi(reference, tmp_path):
    folder, *_ = reference
    ids, test = read_vectors(folder / "processed_test.ark")
    model = kaldi(read_plda(folder / "plda"), test, within=0.75, between=0.25)
    np.testing.assert_allclose(model.psi, read_plda(folder / "plda_adapted").psi, atol=1e-8)
    (tmp_path / "trials").write_text("".join(
        f"{first} {second}\n" for first, second in scores_of(folder / "plda_adapted_scores_200")))
    projected = model.project(test)
    score_trials(tmp_path / "trials", tmp_path / "scores", plda_sides(model, projected, projected), ids, ids)
    compare(tmp_path / "scores", folder / "plda_adapted_scores_200", 0.02)


def test_enrolment_of_several_utterances_agrees_with_kaldi(reference, tmp_path):
    folder, *_ = reference
    model = read_plda(folder / "plda")
    ids, enrolment = read_vectors(folder / "enroll_means.ark")
    number = dict(zip(*read_table(folder / "enroll_num_utts"), strict=True))
    counts = np.array([int(number[name]) for name in ids])
    test_ids, test = read_vectors(folder / "processed_test.ark")
    for given in (counts, 3):  # one number per model, and one for all
        sides = plda_sides(model, model.project(enrolment, given), model.project(test), given)
        score_trials(folder / "enroll_trials", tmp_path / "scores", sides, ids, test_ids)
        compare(tmp_path / "scores", folder / "enroll_plda_scores", 0.02)
    mixed = counts.copy()
    mixed[0] += 1  # a different number must matter
    sides = plda_sides(model, model.project(enrolment, mixed), model.project(test), mixed)
    score_trials(folder / "enroll_trials", tmp_path / "scores", sides, ids, test_ids)
    with pytest.raises(AssertionError):
        compare(tmp_path / "scores", folder / "enroll_plda_scores", 0.02)


def test_plda_files_round_trip_byte_by_byte(reference, tmp_path):
    folder, *_ = reference
    model = read_plda(folder / "plda")
    write_plda(tmp_path / "plda", model)
    assert (tmp_path / "plda").read_bytes() == (folder / "plda").read_bytes()
    np.testing.assert_allclose(read_plda(folder / "plda.txt").transform, model.transform, rtol=1e-5, atol=1e-5)


def simulate(rng, speakers=60, utterances=8, dim=12, rank=4):
    """Vectors of a model with known between (rank `rank`) and within covariances."""
    voices, noise = rng.normal(size=(dim, rank)), rng.normal(size=(dim, dim)) / 3
    y = rng.normal(size=(speakers, rank)) @ voices.T
    x = np.repeat(y, utterances, axis=0) + rng.normal(size=(speakers * utterances, dim)) @ noise.T
    return x + 3, [f"s{index:03}" for index in np.repeat(np.arange(speakers), utterances)], voices, noise


def test_llr_equals_its_definition_in_plain_loops():
    rng = np.random.default_rng(0)
    dim, n = 5, 3
    model = Plda(np.zeros(dim), np.eye(dim), np.array([4.0, 2, 1, 0.5, 0]))
    enrolment, test = rng.normal(size=(2, dim)), rng.normal(size=(4, dim))
    sides = plda_sides(model, enrolment, test, n)
    for i in range(2):
        for j in range(4):
            expected = 0.0
            for d in range(dim):
                psi = model.psi[d]
                given_mean, given = n * psi / (n * psi + 1) * enrolment[i, d], 1 + psi / (n * psi + 1)
                expected += -0.5 * (np.log(given) + (test[j, d] - given_mean) ** 2 / given)
                expected -= -0.5 * (np.log(1 + psi) + test[j, d] ** 2 / (1 + psi))
            assert sides.scores(np.array([i]), np.array([j]))[0] == pytest.approx(expected, abs=1e-5)


def test_both_trainings_find_the_simulated_covariances():
    x, speakers, voices, noise = simulate(np.random.default_rng(1), speakers=2000, utterances=6)
    stats = collect(x, speakers)
    for model in (train_two_covariance(stats, 20), train_gaussian(stats, 4)):
        back = np.linalg.inv(model.transform)
        np.testing.assert_allclose(back @ back.T, noise @ noise.T, atol=0.1)
        np.testing.assert_allclose(back @ np.diag(model.psi) @ back.T, voices @ voices.T, atol=0.6)
    assert np.count_nonzero(model.psi > 1e-6) == 4  # the eigenvoice model has its rank


def test_covariances_are_diagonalised_together():
    rng = np.random.default_rng(2)
    within, between = (m @ m.T for m in rng.normal(size=(2, 6, 6)))
    model = from_covariances(np.zeros(6), within, between)
    np.testing.assert_allclose(model.transform @ within @ model.transform.T, np.eye(6), atol=1e-8)
    np.testing.assert_allclose(model.transform @ between @ model.transform.T, np.diag(model.psi), atol=1e-8)
    assert (np.diff(model.psi) <= 0).all()


def test_too_few_data_are_said_or_an_error(capsys):
    rng = np.random.default_rng(3)
    x, speakers, *_ = simulate(rng, speakers=5, utterances=2, dim=40)
    fitted = fit("center lda30 length plda", x, speakers)
    center, lda, _ = fitted.transforms
    assert lda.matrix.shape == (4, 41)
    model = fitted.comparison.plda
    assert all(np.isfinite(part).all()
               for part in (center.mean, lda.matrix, model.mean, model.transform, model.psi))
    said = capsys.readouterr().err
    assert "30 dimensions lowered to 4" in said
    assert "LDA: 10 vectors of 5 speakers are too few" in said
    singles = [*speakers[:-1], "alone"]  # one speaker with one utterance
    assert np.isfinite(fit("center lda3 length plda", x, singles).comparison.plda.psi).all()
    with pytest.raises(InputError, match="all 10 training vectors are of speaker one"):
        fit("center lda3 length plda", x, ["one"] * len(x))
    with pytest.raises(InputError, match="each of the 10 speakers has one vector"):
        fit("center lda3 length plda", x, [f"s{index}" for index in range(10)])
    with pytest.raises(InputError, match="covariance is zero"):
        fit("center lda3 length plda", np.ones((10, 3)), speakers)


def test_a_scatter_without_full_rank_moves_towards_the_identity(capsys):
    """Chen et al. 2010, eq. 23, in plain loops; and a test speaker's scores stay those of a log-likelihood ratio."""
    rng = np.random.default_rng(4)
    x, speakers, *_ = simulate(rng, speakers=6, utterances=5, dim=40)
    stats = collect(x, speakers)
    shrunk = stats.shrunk("LDA")
    n, dim, trace, squares = 24, 40, 0.0, 0.0
    covariance = stats.scatter / n
    for row in range(dim):
        trace += covariance[row, row]
        for column in range(dim):
            squares += covariance[row, column] * covariance[column, row]
    rho = ((1 - 2 / dim) * squares + trace**2) / ((n + 1 - 2 / dim) * (squares - trace**2 / dim))
    assert 0 < rho < 1 and f"(rho {rho:.2f})" in capsys.readouterr().err
    expected = (1 - rho) * covariance
    for row in range(dim):
        expected[row, row] += rho * trace / dim
    np.testing.assert_allclose(shrunk.scatter / n, expected, rtol=1e-12, atol=1e-12)
    assert collect(*simulate(rng, speakers=6, utterances=9, dim=40)[:2]).shrunk("LDA").total == 54
    assert capsys.readouterr().err == ""  # 48 degrees of freedom span 40 dimensions

    others, *_ = simulate(rng, speakers=6, utterances=5, dim=40)
    scores = fit("center lda39 length plda", x, speakers).plain_scorer(Enrolment(others), others).scores(
        *np.indices((30, 30)).reshape(2, -1))
    assert np.abs(scores).max() < 300  # thousands, if the floor of the eigenvalues were all


def test_a_model_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(InputError, match="NaN"):
        write_plda(tmp_path / "plda", Plda(np.array([np.nan]), np.eye(1), np.ones(1)))
    assert not list(tmp_path.iterdir())


def test_cosine_is_of_centred_vectors():
    x = np.random.default_rng(4).normal(size=(3, 7)).astype(np.float32) + 10
    chain = Chain(parse_chain(["center", "cosine"], "x"), (Center(np.full(7, 10.0)),), Cosine())
    found = chain.scorer(Enrolment(x), x).scores(np.array([0]), np.array([1]))[0]
    a, b = x[0] - 10, x[1] - 10
    assert found == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    with pytest.raises(InputError, match="dimension 3, back-end of dimension 7"):
        chain.scorer(Enrolment(x), np.ones((2, 3)))


def test_enrolment_from_raw_vectors_agrees_with_kaldi(reference, tmp_path):
    folder, *_ = reference
    chain = Chain(parse_chain(["center", "lda100", "length", "plda"], "x"),
                  (Center.load(folder), Lda(read_matrix(folder / "lda.mat")), Length()), TwoCovariance.load(folder))
    ids, test = read_vectors(folder / "ivector_test.ark")
    names, models = read_models(folder / "enroll_spk2utt", ids)
    scorer = chain.scorer(Enrolment(test, models), test)
    score_trials(folder / "enroll_trials", tmp_path / "scores", scorer, names, ids)
    compare(tmp_path / "scores", folder / "enroll_plda_scores", 0.02)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_lda_whitens_centres_and_finds_the_best_directions(factor):
    x, speakers, *_ = simulate(np.random.default_rng(5))
    lda = estimate_lda(collect(x, speakers), 3, factor)
    y = apply_transform(x, lda)
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)
    means = np.array([y[np.array(speakers) == name].mean(axis=0) for name in speakers])
    total, within = y.T @ y / len(y), (y - means).T @ (y - means) / len(y)
    np.testing.assert_allclose(factor * total + (1 - factor) * within, np.eye(3), atol=1e-6)
    between = np.diag(total - within)
    assert (np.diff(between) < 0).all()
    np.testing.assert_allclose(total - within, np.diag(between), atol=1e-6)


def test_the_transform_is_for_centred_vectors():
    x, speakers, *_ = simulate(np.random.default_rng(6))
    center, lda, _ = fit("center lda4 length plda", x, speakers).transforms
    np.testing.assert_allclose(center.mean, x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(lda.matrix[:, -1], 0, atol=1e-6)


def test_wccn_makes_the_mean_covariance_of_the_speakers_the_identity():
    """Each speaker counts alike (Hatch et al. 2006), however many vectors there are of it."""
    x, speakers, *_ = simulate(np.random.default_rng(6), speakers=20)
    x, speakers = np.delete(x, np.s_[1:4], axis=0), speakers[:1] + speakers[4:]
    y = Wccn.fit(x, speakers)(x)
    names = np.array(speakers)
    covariances = [np.cov(y[names == name], rowvar=False, bias=True) for name in sorted(set(speakers))]
    np.testing.assert_allclose(np.mean(covariances, axis=0), np.eye(x.shape[1]), atol=1e-4)
    a, b = y[0], y[9]
    scores = fit("wccn cosine", x, speakers).scorer(Enrolment(x.astype(np.float32)), x.astype(np.float32))
    assert scores.scores(np.array([0]), np.array([9]))[0] == pytest.approx(
        a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)


@pytest.mark.parametrize(("words", "files"), [
    ("cosine", set()), ("center length cosine", {"mean.vec"}),
    ("center lda5 length plda", {"mean.vec", "transform.mat", "plda"}),
    ("copies length center lda5 wccn length gplda3 asnorm4",
     {"mean.vec", "transform.mat", "wccn.mat", "plda", "cohort.ark"}),
    ("center cosine tnorm", {"mean.vec", "cohort.ark"}), ("center length pldacosine3", {"mean.vec", "plda"}),
    ("copies parts2 center lda2 length plda5 asnorm4", {"mean.vec", "transform.mat", "plda", "cohort.ark"}),
    ("parts3 center wccn length cosine", {"mean.vec", "wccn.mat"})])
def test_a_loaded_chain_scores_as_the_fitted_one_bit_by_bit(tmp_path, words, files):
    x, speakers, *_ = simulate(np.random.default_rng(7), speakers=20)
    x = x.astype(np.float32)
    fit("center lda3 wccn gplda asnorm2", x, speakers).save(tmp_path)  # whose files must not stay
    fitted = fit(words, x, speakers)
    fitted.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == files | {"chain", "speakers"}
    assert (tmp_path / "chain").read_text() == f"{words}\n"
    i, j = np.arange(8), np.arange(8)[::-1] + 20
    models = [np.arange(row, row + row % 3 + 1) for row in range(8)]
    for rows in (None, models):
        expected = fitted.scorer(Enrolment(x, rows), x).scores(i, j)
        np.testing.assert_array_equal(Chain.load(tmp_path).scorer(Enrolment(x, rows), x).scores(i, j), expected)
        # The enrolment side may have other embeddings than the test side; here they are equal.
        np.testing.assert_allclose(fitted.scorer(Enrolment(x.copy(), rows), x[20:]).scores(i, j - 20), expected,
                                   rtol=1e-5)
    for name in sorted(files):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        if name == "cohort.ark":
            with pytest.raises((InputError, FileNotFoundError)):
                Chain.load(tmp_path)
        else:
            with pytest.raises(InputError, match=f"{name} is missing or empty, but the chain {words} needs it"):
                Chain.load(tmp_path)
        (tmp_path / name).write_bytes(content)


def test_each_part_is_applied_in_its_place():
    """The chain against its equations, part by part."""
    x, speakers, *_ = simulate(np.random.default_rng(9), speakers=12)
    chain = fit("length center lda3 length cosine", x, speakers)
    _, center, lda, _ = chain.transforms
    unit = normalise_length(x.astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(center.mean, unit.mean(axis=0), atol=1e-6)
    wanted = normalise_length(apply_transform(unit - center.mean, lda.matrix))
    np.testing.assert_allclose(chain.process(x.astype(np.float32)), wanted, atol=1e-4)
    order = fit("length lda3 center length cosine", x, speakers)
    assert np.abs(order.transforms[2].mean).max() < 1e-5  # LDA has centred the vectors already


@pytest.mark.parametrize("words", ["center length cosine", "center wccn length cosine", "center lda4 length plda"])
def test_parts_are_treated_apart(words):
    """Cosines: the mean of the parts'. PLDA: the sum of the log-likelihood ratios of models that know one part each."""
    x, speakers, *_ = simulate(np.random.default_rng(11), speakers=40)
    x = np.hstack([x, simulate(np.random.default_rng(12), speakers=40)[0]]).astype(np.float32)
    i, j = np.arange(60), np.arange(60)[::-1] + 100
    found = fit(f"parts2 {words}", x, speakers)
    apart = [fit(words, side, speakers) for side in np.split(x, 2, axis=1)]
    sides = np.split(x, 2, axis=1)
    processed = [one.process(y) for one, y in zip(apart, sides, strict=True)]
    np.testing.assert_allclose(found.process(x), np.hstack(processed), atol=1e-4)
    if words.endswith("cosine"):
        scores = [one.scorer(Enrolment(y), y).scores(i, j) for one, y in zip(apart, sides, strict=True)]
        np.testing.assert_allclose(found.scorer(Enrolment(x), x).scores(i, j), np.mean(scores, axis=0), atol=1e-5)
        return
    whole = found.comparison.plda
    assert (np.diff(whole.psi) <= 0).all()
    projected = [one.comparison.plda.project(y, normalise=False) for one, y in zip(apart, processed, strict=True)]
    scores = [plda_sides(one.comparison.plda, y, y).scores(i, j) for one, y in zip(apart, projected, strict=True)]
    y = whole.project(found.process(x), normalise=False)
    np.testing.assert_allclose(plda_sides(whole, y, y).scores(i, j), np.sum(scores, axis=0), rtol=1e-3, atol=1e-3)


def test_parts_must_divide_the_vectors():
    x, speakers, *_ = simulate(np.random.default_rng(13))
    with pytest.raises(InputError, match=f"have {x.shape[1]} dimensions, which parts7 cannot split evenly"):
        fit("parts7 center cosine", x, speakers)


def test_plda_and_cosine_weigh_alike():
    """On data as the model has them, both deviate as much; the score is their mean."""
    x, speakers, *_ = simulate(np.random.default_rng(14), speakers=200)
    x = x.astype(np.float32)
    i = np.arange(len(x) - 1)
    j = i + 1  # mostly the same speaker
    i, j = np.concatenate([i, i]), np.concatenate([j, (j + len(x) // 2) % len(x)])
    plda, cosine, both = (fit(f"center {word}", x, speakers).scorer(Enrolment(x), x).scores(i, j)
                          for word in ("plda20", "cosine", "pldacosine20"))
    ratio = 2 * np.linalg.lstsq(np.stack([plda, cosine, np.ones_like(plda)], axis=1), both, rcond=None)[0]
    assert ratio[0] == pytest.approx(1, abs=1e-3)
    assert ratio[1] == pytest.approx(plda.std() / cosine.std(), rel=0.15)


@pytest.mark.parametrize("words", ["lda3 plda", "plda", "length plda", "wccn cosine", "parts2 length cosine",
                                   "length cosine asnorm4", "center cosine"])
def test_embeddings_of_another_dimension_are_refused(tmp_path, words):
    x, speakers, *_ = simulate(np.random.default_rng(15))
    trained = fit(words, x, speakers)
    trained.save(tmp_path)
    other = np.hstack([x, x[:, :1]])
    for chain in (trained, Chain.load(tmp_path)):
        assert np.isfinite(chain.scorer(Enrolment(x), x).scores(np.arange(3), np.arange(3))).all()
        with pytest.raises(InputError, match=f"embeddings of dimension {x.shape[1] + 1}, back-end of dimension "):
            chain.scorer(Enrolment(other), other)


def test_the_mean_needs_no_speakers():
    x, speakers, *_ = simulate(np.random.default_rng(8))
    for few in (speakers, ["one"] * len(x), [f"s{row}" for row in range(len(x))]):
        np.testing.assert_allclose(fit("center cosine", x, few).transforms[0].mean, x.mean(axis=0), atol=1e-5)
    with pytest.raises(InputError, match="vectors are of speaker one: snorm needs a cohort of two speakers"):
        fit("center cosine snorm", x, ["one"] * len(x))


@pytest.mark.parametrize(("backend", "message"), [
    (None, "backend is None, wanted a chain or named chains, such as backend: {cosine: .*}"),
    ({}, "backend names no chain; wanted e.g. backend: {cosine: "),
    ({"a": None}, "backend names no chain"),
    ([], r"backend: a chain is \[\], wanted words such as"),
    ({"a": "cosine"}, "backend: a: a chain is 'cosine', wanted words"),
    ([3], r"backend: a chain is \[3\], wanted words"),
    (["lda_dim"], "backend: no part 'lda_dim' of a chain; available: copies, parts, center, lda, wccn, length, "),
    (["center", "lda", "plda"], "backend: the part 'lda' wants a number: lda200"),
    (["center", "lda0", "plda"], "backend: the part 'lda0': wanted at least lda1"),
    (["parts1", "plda"], "backend: the part 'parts1': wanted at least parts2"),
    (["center", "parts2", "plda"], "backend: the chain center parts2 plda: parts2 is out of place"),
    (["center3", "cosine"], "backend: the part 'center3' takes no number"),
    (["cosine", "asnorm"], "backend: the part 'asnorm' wants a number: asnorm200"),
    (["cosine", "asnorm1"], "backend: the part 'asnorm1': wanted at least asnorm2"),
    (["center", "length"], "backend: the chain center length has 0 of cosine, plda, gplda, pldacosine; wanted one"),
    (["cosine", "plda"], "backend: the chain cosine plda has 2 of cosine, plda, gplda, pldacosine; wanted one"),
    (["cosine", "center"], "backend: the chain cosine center: center is out of place"),
    (["snorm", "cosine"], "backend: the chain snorm cosine: snorm is out of place"),
    (["cosine", "snorm", "znorm"], "backend: the chain cosine snorm znorm: snorm is out of place"),
    (["center", "center", "cosine"], "backend: the chain center center cosine: center is out of place"),
    (["center", "copies", "cosine"], "backend: copies is out of place; put it first"),
    (["lda\u0662", "cosine"], "backend: no part 'lda\u0662' of a chain"),
    (["center", "pldacosine100"], "backend: the part 'pldacosine100': wanted pldacosine1 to pldacosine99"),
    ({"a.b": ["cosine"]}, "backend: a chain cannot be called 'a.b'; use letters, digits and _"),
    ({"s": ["segments"]}, r"backend: s: \[segments\] is for networks"),
])
def test_chains_that_mean_nothing_are_refused(backend, message):
    with pytest.raises(InputError, match=r"^x\.yaml: " + message):
        chains_of({"kind": "ivector", "backend": backend}, "x.yaml")


def test_chains_have_names_and_a_null_takes_one_back():
    plda = ["copies", "center", "lda200", "length", "plda", "asnorm300"]
    found = chains_of({"backend": plda}, "x")
    assert {name: str(words) for name, words in found.items()} == {"plda_asnorm300": " ".join(plda)}
    assert list(chains_of({"backend": ["center", "cosine"]}, "x")) == ["cosine"]
    named = {"kind": "network", "backend": {"b": plda, "a": None, "s": ["segments"]}}
    assert list(chains_of(named, "x")) == ["b", "s"]
    assert chains_of(named, "x")["s"] is None
