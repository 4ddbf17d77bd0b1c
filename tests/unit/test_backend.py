"""LDA, PLDA and scoring: parity with Kaldi, known answers, and too little data."""

import numpy as np
import pytest
from steps.backend.lda_plda import LdaPlda, LdaPldaOptions, plda_sides

from steps.backend import BACKENDS, describe, options_of
from steps.backend.adaptation import kaldi
from steps.backend.cosine import Cosine, CosineOptions
from steps.backend.interface import Enrolment
from steps.backend.lda import apply_transform, estimate_lda, process
from steps.backend.plda import Plda, from_covariances, read_plda, train_gaussian, train_two_covariance, write_plda
from steps.backend.score import read_models
from steps.backend.scoring import score_trials
from steps.backend.speaker_stats import collect
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


def test_too_few_data_get_a_floor_that_is_said_or_an_error(capsys):
    rng = np.random.default_rng(3)
    x, speakers, *_ = simulate(rng, speakers=5, utterances=2, dim=40)
    fitted = LdaPlda.fit(x, speakers, LdaPldaOptions(lda_dim=30))
    assert fitted.transform.shape == (4, 41)
    model = fitted.plda
    assert all(np.isfinite(part).all()
               for part in (fitted.mean, fitted.transform, model.mean, model.transform, model.psi))
    said = capsys.readouterr().err
    assert "30 dimensions lowered to 4" in said
    assert "eigenvalues" in said
    singles = [*speakers[:-1], "alone"]  # one speaker with one utterance
    assert np.isfinite(LdaPlda.fit(x, singles, LdaPldaOptions(lda_dim=3)).plda.psi).all()
    with pytest.raises(InputError, match="all 10 training vectors are of speaker one"):
        LdaPlda.fit(x, ["one"] * len(x), LdaPldaOptions(lda_dim=3))
    with pytest.raises(InputError, match="each of the 10 speakers has one vector"):
        LdaPlda.fit(x, [f"s{index}" for index in range(10)], LdaPldaOptions(lda_dim=3))
    with pytest.raises(InputError, match="covariance is zero"):
        LdaPlda.fit(np.ones((10, 3)), speakers, LdaPldaOptions(lda_dim=3))


def test_a_model_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(InputError, match="NaN"):
        write_plda(tmp_path / "plda", Plda(np.array([np.nan]), np.eye(1), np.ones(1)))
    assert not list(tmp_path.iterdir())


def test_cosine_is_of_centred_vectors():
    x = np.random.default_rng(4).normal(size=(3, 7)).astype(np.float32) + 10
    mean, model = np.full(7, 10.0), Plda(np.zeros(7), np.eye(7), np.ones(7))
    found = Cosine(mean).scorer(Enrolment(x), x).scores(np.array([0]), np.array([1]))[0]
    a, b = x[0] - 10, x[1] - 10
    assert found == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    with pytest.raises(InputError, match="dimension 3, back-end of dimension 7"):
        LdaPlda(mean, np.eye(7), model).scorer(Enrolment(x), np.ones((2, 3)))


def test_enrolment_from_raw_vectors_agrees_with_kaldi(reference, tmp_path):
    folder, *_ = reference
    backend = LdaPlda(read_vector(folder / "mean.vec"), read_matrix(folder / "lda.mat"), read_plda(folder / "plda"))
    ids, test = read_vectors(folder / "ivector_test.ark")
    names, models = read_models(folder / "enroll_spk2utt", ids)
    scorer = backend.scorer(Enrolment(test, models), test)
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
    fitted = LdaPlda.fit(x, speakers, LdaPldaOptions(lda_dim=4))
    np.testing.assert_allclose(fitted.mean, x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(fitted.transform[:, -1], 0, atol=1e-6)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_loaded_back_end_scores_as_the_fitted_one_bit_by_bit(tmp_path, name):
    x, speakers, *_ = simulate(np.random.default_rng(7), speakers=20)
    x = x.astype(np.float32)
    kind, _ = BACKENDS[name]
    fitted = kind.fit(x, speakers, options_of({"scoring": [name], "backend": {"lda_dim": 5} if name == "plda" else {}},
                                              "x.yaml")[name])
    fitted.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kind.files)
    i, j = np.arange(8), np.arange(8)[::-1] + 20
    models = [np.arange(row, row + row % 3 + 1) for row in range(8)]
    for rows in (None, models):
        expected = fitted.scorer(Enrolment(x, rows), x).scores(i, j)
        np.testing.assert_array_equal(kind.load(tmp_path).scorer(Enrolment(x, rows), x).scores(i, j), expected)
        # The enrolment side may have other embeddings than the test side; here they are equal.
        np.testing.assert_array_equal(fitted.scorer(Enrolment(x.copy(), rows), x[20:]).scores(i, j - 20), expected)


def test_the_mean_is_one_for_all_back_ends_and_needs_no_speakers():
    x, speakers, *_ = simulate(np.random.default_rng(8))
    with_lda = LdaPlda.fit(x, speakers, LdaPldaOptions(lda_dim=4))
    np.testing.assert_array_equal(Cosine.fit(x, speakers, CosineOptions()).mean, with_lda.mean)
    for few in (["one"] * len(x), [f"s{row}" for row in range(len(x))]):
        np.testing.assert_allclose(Cosine.fit(x, few, CosineOptions()).mean, with_lda.mean, rtol=1e-6)


@pytest.mark.parametrize(("config", "message"), [
    ({"scoring": ["cosine"], "backend": {"lda_dim": 3}}, "'lda_dim' is not an option of cosine, .* allowed: none"),
    ({"scoring": ["cosine"], "backend": {"lda_dims": None}}, "'lda_dims' is not an option of cosine"),
    ({"kind": "network", "scoring": ["segments"], "backend": {"lda_dim": 3}}, "'lda_dim' is not an option of any"),
    ({"scoring": ["segments"]}, r"scoring is \['segments'\], wanted a list of cosine, plda, or of one of them"),
    ({"scoring": ["cosine+asnorm"]}, "scoring is .*, wanted a list of .* with .znorm, .tnorm, .snorm or .asnorm<N>"),
    ({"scoring": ["cosine", "plda+znorm", "plda"]}, r"scoring: plda.znorm is made of plda; list plda before it"),
    ({"scoring": ["cosine", "cosine+asnorm1"]}, "scoring: cosine.asnorm1: a mean and a deviation need two"),
    ({"kind": "network", "scoring": ["segments+snorm"]}, "scoring is .*, wanted a list of"),
    ({"scoring": ["cosine", "cosine+snorm"], "backend": {"lda_dim": 3}},
     "'lda_dim' is not an option of cosine, .* allowed: none"),
    ({"scoring": ["plda"], "backend": {"lda_dim": None}}, "backend: key 'lda_dim' is missing"),
])
def test_options_that_the_chosen_back_ends_lack_are_refused(config, message):
    with pytest.raises(InputError, match=r"^x\.yaml: (backend: )?" + message):
        options_of(config, "x.yaml")


def test_normalised_scores_need_the_back_end_that_they_are_of():
    config = {"scoring": ["cosine", "plda", "plda+asnorm300", "plda+znorm"], "backend": {"lda_dim": 3}}
    assert options_of(config, "x.yaml") == {"cosine": CosineOptions(), "plda": LdaPldaOptions(3)}
    assert describe("plda+asnorm300") == (
        f"{describe('plda')}, normalised by asnorm with the 300 nearest training speakers")
    assert describe("cosine+tnorm") == f"{describe('cosine')}, normalised by tnorm with the training speakers"
    assert describe("mine") == "mine"


def test_options_that_a_base_gives_are_taken_back_by_null():
    for backend in (None, {"lda_dim": None, "plda": None}, {}):
        assert options_of({"scoring": ["cosine"], "backend": backend}, "x.yaml") == {"cosine": CosineOptions()}
    given = {"lda_dim": 9, "plda": "gaussian", "eigenvoices": None}
    wanted = {"cosine": CosineOptions(), "plda": LdaPldaOptions(9, 0.0, "gaussian")}
    assert options_of({"backend": given}, "x.yaml") == wanted
