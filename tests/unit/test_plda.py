"""PLDA training, smoothing and adaptation against definitions, and data with singular covariances."""

import numpy as np
import pytest

from steps.backend.adaptation import coral, coral_plus, kaldi
from steps.backend.lda import estimate_lda
from steps.backend.plda import Plda, from_covariances, read_plda, train_gaussian, train_two_covariance, write_plda
from steps.backend.plda_scoring import plda_sides
from steps.backend.speaker_stats import SpeakerStats, collect
from utils.errors import InputError


def draw(seed=0, speakers=30, dim=6, rank=6, most=5):
    """Vectors N x D of speakers with 1 to `most` utterances each, shuffled, and the speakers' names."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, speakers)
    counts[0] = most
    voices, noise = rng.normal(size=(dim, rank)), rng.normal(size=(dim, dim))
    labels = np.repeat(np.arange(speakers), counts)
    x = (rng.normal(size=(speakers, rank)) @ voices.T)[labels] + rng.normal(size=(len(labels), dim)) @ noise.T + 2
    order = rng.permutation(len(labels))
    return x[order], [f"s{label}" for label in labels[order]]


def covariances(model: Plda) -> tuple[np.ndarray, np.ndarray]:
    back = np.linalg.inv(model.transform)
    return back @ back.T, back * model.psi @ back.T


def log_likelihood(model: Plda, stats: SpeakerStats) -> float:
    """Log density of all vectors up to a constant: sqrt(n) times a speaker's mean has covariance W + n B, and each of
    the N - S directions within speakers has W."""
    within, between = covariances(model)
    value = -0.5 * ((stats.total - len(stats.counts)) * np.linalg.slogdet(within)[1]
                    + np.trace(np.linalg.solve(within, stats.scatter)))
    for n, mean in zip(stats.counts, stats.means - model.mean, strict=True):
        total = within + n * between
        value -= 0.5 * (np.linalg.slogdet(total)[1] + n * mean @ np.linalg.solve(total, mean))
    return value


def test_statistics_equal_their_definition_in_plain_loops():
    x, speakers = draw()
    stats = collect(x.astype(np.float32), speakers)
    scatter = np.zeros((6, 6))
    for row, name in enumerate(sorted(set(speakers))):
        own = [vector for vector, speaker in zip(x.astype(np.float32), speakers, strict=True) if speaker == name]
        mean = sum(own) / len(own)
        assert stats.counts[row] == len(own)
        np.testing.assert_allclose(stats.means[row], mean, atol=1e-5)
        for vector in own:
            scatter += np.outer(vector - mean, vector - mean)
    np.testing.assert_allclose(stats.scatter, scatter, rtol=1e-4)
    np.testing.assert_allclose(stats.mean, x.mean(axis=0), atol=1e-5)
    assert (stats.total, stats.dim) == x.shape


@pytest.mark.parametrize("train", [train_two_covariance, lambda stats, n: train_gaussian(stats, 3, n)])
def test_each_iteration_raises_the_likelihood(train):
    stats = collect(*draw(1))
    values = [log_likelihood(train(stats, iterations), stats) for iterations in range(1, 12)]
    assert (np.diff(values) > 0).all()


def test_two_covariance_em_equals_the_textbook_with_inverses():
    stats = collect(*draw(2))
    mean = stats.means.mean(axis=0)
    within, between = np.eye(6), np.eye(6)
    for _ in range(4):
        within_sum, between_sum = stats.scatter.copy(), np.zeros((6, 6))
        for n, m in zip(stats.counts, stats.means - mean, strict=True):
            covariance = np.linalg.inv(np.linalg.inv(between) + n * np.linalg.inv(within))
            y = covariance @ (n * np.linalg.inv(within)) @ m
            between_sum += covariance + np.outer(y, y)
            within_sum += n * (covariance + np.outer(m - y, m - y))
        within, between = within_sum / stats.total, between_sum / len(stats.counts)
    found = covariances(train_two_covariance(stats, 4))
    np.testing.assert_allclose(found[0], within, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found[1], between, rtol=1e-8, atol=1e-10)


def test_shrinking_moves_within_towards_the_identity_and_keeps_its_trace():
    stats = collect(*draw(2))
    within, between = covariances(train_two_covariance(stats))
    found = covariances(train_two_covariance(stats, shrink=0.25))
    np.testing.assert_allclose(found[0], 0.75 * within + 0.25 * np.trace(within) / 6 * np.eye(6), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found[1], between, rtol=1e-8, atol=1e-10)


def test_gaussian_em_equals_the_textbook_with_inverses():
    x, speakers = draw(3)
    stats = collect(x, speakers)
    start = train_gaussian(stats, 2, 0)
    within, between = covariances(start)
    values, vectors = np.linalg.eigh(between)
    voices = vectors[:, -2:] * np.sqrt(values[-2:])
    centred = x - x.mean(axis=0)
    for _ in range(3):
        cross, second = np.zeros((6, 2)), np.zeros((2, 2))
        for n, f in zip(stats.counts, stats.counts[:, None] * (stats.means - stats.mean), strict=True):
            precision = np.eye(2) + n * voices.T @ np.linalg.inv(within) @ voices
            z = np.linalg.inv(precision) @ voices.T @ np.linalg.inv(within) @ f
            cross += np.outer(f, z)
            second += n * (np.linalg.inv(precision) + np.outer(z, z))
        voices = cross @ np.linalg.inv(second)
        within = (centred.T @ centred - voices @ cross.T) / len(x)
    found = covariances(train_gaussian(stats, 2, 3))
    np.testing.assert_allclose(found[0], within, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(found[1], voices @ voices.T, rtol=1e-7, atol=1e-8)


def test_eigenvoice_model_scores_as_its_full_covariances_say():
    x, speakers = draw(4)
    model = train_gaussian(collect(x, speakers), 2)
    assert np.count_nonzero(model.psi > 1e-9) == 2
    within, between = covariances(model)
    projected = model.project(x[:4], normalise=False)
    found = plda_sides(model, projected, projected).scores(np.array([0, 1]), np.array([2, 3]))
    both = np.block([[within + between, between], [between, within + between]])
    alone = np.block([[within + between, 0 * between], [0 * between, within + between]])
    for row, score in enumerate(found):
        pair = np.concatenate([x[row], x[row + 2]]) - np.tile(model.mean, 2)
        logs = [-0.5 * (np.linalg.slogdet(c)[1] + pair @ np.linalg.solve(c, pair)) for c in (both, alone)]
        assert score == pytest.approx(logs[0] - logs[1], abs=1e-3)


def test_smoothing_adds_between_to_within():
    model = train_two_covariance(collect(*draw(5)))
    within, between = covariances(model)
    expected = from_covariances(model.mean, within + 0.3 * between, between)
    found = model.smooth(0.3)
    np.testing.assert_allclose(found.psi, expected.psi, rtol=1e-8)
    np.testing.assert_allclose(np.abs(found.transform), np.abs(expected.transform), rtol=1e-6, atol=1e-9)
    assert model.smooth(0).psi.tolist() == model.psi.tolist()


def test_adapting_to_data_of_the_model_itself_changes_little_and_wider_data_add_variance():
    rng = np.random.default_rng(6)
    within, between = np.diag([1.0, 2, 3]), np.diag([4.0, 1, 0.5])
    model = from_covariances(np.zeros(3), within, between)
    y = rng.normal(size=(20000, 3)) * np.sqrt(np.diag(between))
    x = y + rng.normal(size=(20000, 3)) * np.sqrt(np.diag(within))
    same = covariances(kaldi(model, x))
    np.testing.assert_allclose(same[0], within, atol=0.15)
    np.testing.assert_allclose(same[1], between, atol=0.15)
    wide = kaldi(model, x * [3, 1, 1] + 5, within=0.6, between=0.4)
    np.testing.assert_allclose(wide.mean, [5, 5, 5], atol=0.2)
    total = covariances(wide)[0] + covariances(wide)[1]
    seen = np.cov((x * [3, 1, 1]).T) + np.full((3, 3), 25)
    assert np.trace(total) == pytest.approx(np.trace(seen), rel=0.1)


def test_coral_is_training_on_vectors_with_the_new_covariance():
    """Feature by feature: whiten with the old covariance, colour with the new one, train again."""
    rng = np.random.default_rng(8)
    x, labels = draw(3, speakers=60, dim=4, rank=4)
    model = train_two_covariance(collect(x, labels), iterations=60)
    new = rng.normal(size=(5000, 4)) @ rng.normal(size=(4, 4)) + 3
    within, between = covariances(coral(model, new))
    np.testing.assert_allclose(within + between, np.cov(new, rowvar=False, bias=True), atol=1e-8)
    values, vectors = np.linalg.eigh(sum(covariances(model)))
    new_values, new_vectors = np.linalg.eigh(np.cov(new, rowvar=False, bias=True))
    aligned = x @ (vectors / np.sqrt(values) @ vectors.T) @ (new_vectors * np.sqrt(new_values) @ new_vectors.T)
    again = covariances(train_two_covariance(collect(aligned, labels), iterations=60))
    np.testing.assert_allclose(within, again[0], rtol=0.05, atol=0.05 * np.abs(within).max())
    np.testing.assert_allclose(between, again[1], rtol=0.05, atol=0.05 * np.abs(between).max())
    half = covariances(coral(model, new, 0.5, 0))
    np.testing.assert_allclose(half[0], (covariances(model)[0] + within) / 2, atol=1e-8)
    np.testing.assert_allclose(half[1], covariances(model)[1], atol=1e-8)


def test_coral_plus_adds_variance_and_never_takes_any():
    rng = np.random.default_rng(9)
    model = from_covariances(np.zeros(3), np.diag([1.0, 2, 3]), np.diag([4.0, 1, 0.5]))
    old = covariances(model)
    narrow = coral_plus(model, rng.normal(size=(5000, 3)) * 0.1)
    for one, other in zip(covariances(narrow), old, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)
    spread = rng.normal(size=(20000, 3)) * [9, 1e-3, 1e-3] + 1
    wide = coral_plus(model, spread, within=0.5, between=1)
    np.testing.assert_allclose(wide.mean, [1, 1, 1], atol=0.3)
    for one, other, share in zip(covariances(wide), old, (0.5, 1), strict=True):
        gain = 81 / 5  # of the first axis, whose total was 5
        assert one[0, 0] == pytest.approx(other[0, 0] * (1 + share * (gain - 1)), rel=0.05)
        np.testing.assert_allclose(one[1:, 1:], other[1:, 1:], rtol=0.05, atol=0.05)


def test_text_is_what_kaldi_writes(shared, tmp_path):
    folder = shared / "kaldi_reference/backend"
    write_plda(tmp_path / "plda.txt", read_plda(folder / "plda"), binary=False)
    assert (tmp_path / "plda.txt").read_bytes() == (folder / "plda.txt").read_bytes()


def test_damaged_files_are_named(tmp_path):
    write_plda(tmp_path / "plda", train_two_covariance(collect(*draw(7))))
    content = (tmp_path / "plda").read_bytes()
    (tmp_path / "plda").write_bytes(content[:-100])
    with pytest.raises(InputError, match="plda: .*truncated"):
        read_plda(tmp_path / "plda")
    (tmp_path / "plda").write_bytes(content.replace(b"<Plda>", b"<Mean>"))
    with pytest.raises(InputError, match="expected <Plda>, found '<Mean>'"):
        read_plda(tmp_path / "plda")


@pytest.mark.parametrize("damage", ["copied column", "constant column", "no spread within", "fewer vectors than dims"])
@pytest.mark.parametrize("train", [train_two_covariance, lambda stats: train_gaussian(stats, 3)])
def test_singular_covariances_are_regularised_and_said(train, damage, capsys):
    x, speakers = draw(8)
    if damage == "copied column":
        x[:, 5] = x[:, 0]
    elif damage == "constant column":
        x[:, 5] = 1
    elif damage == "no spread within":
        x[:, 5] = [float(name[1:]) for name in speakers]
    else:
        x, speakers = np.random.default_rng(9).normal(size=(5, 30)), ["a", "a", "b", "b", "c"]
    stats = collect(x, speakers)
    model = train(stats)
    assert all(np.isfinite(part).all() for part in (model.mean, model.transform, model.psi))
    scores = plda_sides(model, model.project(x), model.project(x)).scores(np.arange(4), np.arange(1, 5))
    assert np.isfinite(scores).all()
    assert np.isfinite(estimate_lda(stats, 2)).all()
    said = "too few to estimate the variation" if damage == "fewer vectors than dims" else "eigenvalues raised to"
    assert said in capsys.readouterr().err


def test_eigenvoices_are_lowered_to_what_speakers_span(capsys):
    model = train_gaussian(collect(*draw(10, speakers=4)), 5)
    assert np.count_nonzero(model.psi > 1e-9) <= 3
    assert "5 eigenvoices lowered to 3: vectors of dimension 6, 4 speakers" in capsys.readouterr().err


def test_covariances_that_are_no_numbers_are_an_error():
    with pytest.raises(InputError, match="NaN"):
        from_covariances(np.zeros(2), np.full((2, 2), np.nan), np.eye(2))
    with pytest.raises(InputError, match="is zero"):
        from_covariances(np.zeros(2), np.zeros((2, 2)), np.eye(2))
