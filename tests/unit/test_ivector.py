"""UBM and i-vector extractor: parity with Kaldi, equations in plain loops, and too little data."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from steps.ivector.config import ExtractorOptions, IvectorConfig, UbmOptions
from steps.ivector.extractor import (
    Extractor,
    Posterior,
    Statistics,
    read_extractor,
    solve_projections,
    update,
    write_extractor,
)
from steps.ivector.frames import blocks, draw_frames
from steps.ivector.gmm import DiagGmm, FullGmm, FullPosteriors, pack, unpack, update_diagonal, update_full
from steps.ivector.gmm_files import read_diagonal, read_full, write_diagonal, write_full
from steps.ivector.grouped import mahalanobis, second_order
from steps.ivector.train_ubm import UbmTraining, diagonal_sums, full_sums, split, summed
from steps.ivector.utterance_stats import block_statistics
from utils.errors import InputError
from utils.features.frontend import FrontendOptions
from utils.kaldi.ark import ArkWriter, iterate
from utils.tensor_file import checksum, load_tensors

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}


@pytest.fixture(scope="module")
def reference(shared):
    """Kaldi's folder and the 20 utterances' frames."""
    folder = shared / "kaldi_reference/ivector"
    return folder, {name: torch.from_numpy(x.copy()) for name, x in iterate(folder / "feats.ark")}


@pytest.fixture(scope="module")
def statistics(reference):
    """Counts, first-order sums and second-order sums from Kaldi's own posteriors."""
    folder, frames = reference
    counts, sums, second = [], [], 0
    for line in (folder / "post.txt").read_text().splitlines():
        name, _, rest = line.partition(" ")
        x = frames[name].double()
        posteriors = torch.zeros(len(x), 16, dtype=torch.float64)
        for row, frame in enumerate(rest.replace("]", "").split("[")[1:]):
            words = frame.split()
            for gaussian, value in zip(words[::2], words[1::2], strict=True):
                posteriors[row, int(gaussian)] = float(value)
        counts.append(posteriors.sum(0))
        sums.append(posteriors.T @ x)
        second = second + torch.einsum("tc,td,te->cde", posteriors, x, x)
    return torch.stack(counts), torch.stack(sums), second


def dense(posteriors_of: FullPosteriors, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Posteriors of all Gaussians, N x C, and log likelihoods, N."""
    chosen, posteriors, total = posteriors_of(x)
    return posteriors.new_zeros(len(x), len(posteriors_of.constants)).scatter_(1, chosen, posteriors), total


def diagonal_step(gmm: DiagGmm, x: torch.Tensor) -> DiagGmm:
    return update_diagonal(gmm, *summed(map(diagonal_sums(gmm), x.split(300)))[:3])


def full_step(gmm: FullGmm, x: torch.Tensor) -> FullGmm:
    posteriors_of = FullPosteriors(gmm, 0)
    return update_full(gmm, *summed(full_sums(posteriors_of)(part, posteriors_of.select(part))
                                    for part in x.split(300))[:3])


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_iteration_of_both_mixtures_agrees_with_kaldi(reference, dtype):
    folder, frames = reference
    x = torch.cat(list(frames.values())).to(dtype)
    old, expected = read_diagonal(folder / "diag0.ubm.txt").to("cpu", dtype), read_diagonal(folder / "diag1.ubm.txt")
    found = diagonal_step(old, x)
    for part in ("weights", "means", "variances"):
        assert relative(getattr(found, part), getattr(expected, part)) < TOLERANCE[dtype]
    old, expected = read_full(folder / "full0.ubm.txt").to("cpu", dtype), read_full(folder / "full1.ubm.txt")
    found = full_step(old, x)
    for part in ("weights", "means", "covariances"):
        assert relative(getattr(found, part), getattr(expected, part)) < TOLERANCE[dtype]
    assert relative(found.covariances.inverse(), expected.covariances.inverse()) < TOLERANCE[dtype]


def test_posteriors_agree_with_kaldi(reference):
    folder, frames = reference
    posteriors_of = FullPosteriors(read_full(folder / "full1.ubm.txt"), 0, min_post=0.025)
    for line in (folder / "post.txt").read_text().splitlines():
        name, _, rest = line.partition(" ")
        x = frames[name].double()
        posteriors, _ = dense(posteriors_of, x)
        for row, frame in enumerate(rest.replace("]", "").split("[")[1:]):
            words = frame.split()
            assert torch.nonzero(posteriors[row]).flatten().tolist() == sorted(map(int, words[::2]))
            assert posteriors[row, list(map(int, words[::2]))].tolist() == pytest.approx(
                list(map(float, words[1::2])), abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("number", [0, 1])
def test_ivectors_agree_with_kaldi(reference, statistics, dtype, number):
    folder, _ = reference
    expected = torch.from_numpy(np.stack([
        vector for _, vector in iterate(folder / f"ivector_from_extractor{number}.txt")])).double()
    posterior = Posterior(read_extractor(folder / f"extractor{number}.txt"), dtype=dtype)
    found = posterior.ivectors(statistics[0].to(dtype), statistics[1].to(dtype))
    assert relative(found, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_iteration_of_the_extractor_agrees_with_kaldi(reference, statistics, dtype):
    folder, _ = reference
    counts, sums, second = (part.to(dtype) for part in statistics)
    start, expected = read_extractor(folder / "extractor0.txt"), read_extractor(folder / "extractor1.txt")
    stats = Statistics(*start.m.shape)
    stats.add(counts, sums, *Posterior(start, dtype=dtype)(counts, sums))
    stats.second += second
    found = update(start, stats)
    tolerance = TOLERANCE[dtype]
    assert relative(found.precision, expected.precision) < tolerance
    assert found.offset == pytest.approx(expected.offset, rel=tolerance)
    assert relative(found.m[:, :, 0], expected.m[:, :, 0]) < tolerance
    signs = (found.m * expected.m).sum((0, 1)).sign()  # signs of eigenvectors are arbitrary
    assert relative(found.m * signs, expected.m) < tolerance


def test_files_round_trip_byte_by_byte(reference, tmp_path):
    folder, _ = reference
    write_extractor(tmp_path / "ie", read_extractor(folder / "extractor1.ie"))
    assert (tmp_path / "ie").read_bytes() == (folder / "extractor1.ie").read_bytes()
    write_extractor(tmp_path / "text", read_extractor(folder / "extractor1.ie"), binary=False)
    again, theirs = read_extractor(tmp_path / "text"), read_extractor(folder / "extractor1.txt")
    assert relative(again.m, theirs.m) < 1e-6
    assert relative(again.precision, theirs.precision) < 1e-6
    assert again.offset == pytest.approx(theirs.offset, rel=1e-6)
    for write, read, name in ((write_diagonal, read_diagonal, "diag1.ubm"), (write_full, read_full, "full1.ubm")):
        write(tmp_path / name, read(folder / name))
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
        write(tmp_path / "text", read(folder / name), binary=False)
        again, theirs = read(tmp_path / "text"), read(folder / f"{name}.txt")
        for part in vars(again):
            assert relative(getattr(again, part), getattr(theirs, part)) < 1e-4


def test_log_likelihoods_equal_the_density_in_plain_loops():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    a = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    gmm = FullGmm(torch.tensor([0.3, 0.7]).double(), torch.randn(2, 3, generator=generator).double(),
                  a @ a.transpose(1, 2) + torch.eye(3))
    diagonal = DiagGmm(gmm.weights, gmm.means, torch.rand(2, 3, generator=generator).double() + 0.5)
    posteriors, total = dense(FullPosteriors(gmm, 0), x)
    scores = diagonal.log_likelihoods(x)
    for t in range(4):
        full = []
        for c in range(2):
            normal = torch.distributions.MultivariateNormal(gmm.means[c], gmm.covariances[c])
            full.append(gmm.weights[c].log() + normal.log_prob(x[t]))
            simple = gmm.weights[c].log() + sum(
                torch.distributions.Normal(diagonal.means[c, d], diagonal.variances[c, d].sqrt()).log_prob(x[t, d])
                for d in range(3))
            assert scores[t, c].item() == pytest.approx(simple.item(), abs=1e-9)
        assert total[t].item() == pytest.approx(torch.stack(full).logsumexp(0).item(), abs=1e-9)
        assert posteriors[t].tolist() == pytest.approx(torch.stack(full).softmax(0).tolist(), abs=1e-9)


def test_selection_keeps_the_gaussians_that_the_diagonal_model_ranks_highest():
    generator = torch.Generator().manual_seed(1)
    gmm = FullGmm(torch.full((8,), 1 / 8), torch.randn(8, 2, generator=generator), torch.eye(2).repeat(8, 1, 1))
    x = torch.randn(50, 2, generator=generator)
    posteriors, _ = dense(FullPosteriors(gmm, 3), x)
    assert ((posteriors > 0).sum(1) <= 3).all()
    best = gmm.diagonal().log_likelihoods(x).topk(3, dim=1).indices
    assert (posteriors.gather(1, best).sum(1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("at_once", [64, 1 << 16])
def test_grouped_sums_equal_plain_loops(monkeypatch, at_once):
    """For any division into batches; Gaussian 2 has no pairs."""
    monkeypatch.setattr("steps.ivector.grouped.PAIRS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, 3, generator=generator).double()
    frames = torch.randint(40, (300,), generator=generator)
    gaussians = torch.tensor([0, 1, 3, 4])[torch.randint(4, (300,), generator=generator)]
    weights = torch.rand(300, generator=generator).double()
    means, factors = torch.randn(5, 3, generator=generator).double(), torch.randn(5, 3, 3, generator=generator).double()
    found = mahalanobis(x, frames, gaussians, means, factors)
    expected = torch.zeros(5, 3, 3).double()
    for pair, (t, c) in enumerate(zip(frames.tolist(), gaussians.tolist(), strict=True)):
        away = x[t] - means[c]
        assert found[pair].item() == pytest.approx((away @ factors[c] @ factors[c].T @ away).item())
        expected[c] += weights[pair] * torch.outer(x[t], x[t])
    torch.testing.assert_close(second_order(x, frames, gaussians, weights, 5), expected)


def test_statistics_of_utterances_equal_plain_loops():
    generator = torch.Generator().manual_seed(2)
    gmm = FullGmm(torch.full((4,), 0.25), torch.randn(4, 3, generator=generator), torch.eye(3).repeat(4, 1, 1))
    posteriors_of = FullPosteriors(gmm, 2, 0.025)
    lengths = np.array([5, 17, 1, 30])
    x = torch.randn(lengths.sum(), 3, generator=generator)
    pairs = posteriors_of.pairs(x)
    counts, sums = block_statistics(pairs, x, lengths, 4)
    second = second_order(x, *pairs, 4)
    posteriors, _ = dense(posteriors_of, x)
    start = 0
    for row, length in enumerate(lengths):
        mine, frames = posteriors[start:start + length], x[start:start + length]
        torch.testing.assert_close(counts[row], mine.sum(0))
        torch.testing.assert_close(sums[row], mine.T @ frames)
        start += length
    torch.testing.assert_close(second, torch.einsum("tc,td,te->cde", posteriors, x, x))


def test_the_sums_over_utterances_leave_the_device_in_one_copy(monkeypatch):
    """A GPU waits at each copy."""
    copies, copy = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: copies.append(x) or copy(x))
    generator = torch.Generator().manual_seed(1)
    counts, sums, means = (torch.rand(size, generator=generator) for size in ((5, 4), (5, 4, 3), (5, 2)))
    covariances = torch.eye(2).repeat(5, 1, 1)
    stats = Statistics(4, 3, 2)
    stats.add(counts, sums, means, covariances.clone())
    assert len(copies) == 1
    torch.testing.assert_close(stats.counts, counts.sum(0).double())
    torch.testing.assert_close(stats.x_sum, means.sum(0).double())
    torch.testing.assert_close(stats.x_scatter, (covariances.sum(0) + means.T @ means).double())


def test_projections_of_nearly_dependent_factors_stay_finite():
    """Where R is singular, the old M stays along the missing direction; elsewhere M is Y R^-1."""
    r = torch.eye(3).double().repeat(2, 1, 1)
    r[1] = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 2]])
    y, old = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1)).double(), torch.ones(2, 4, 3).double()
    y[1, :, 1] = y[1, :, 0]
    found = solve_projections(r, y, old)
    torch.testing.assert_close(found[0], y[0])
    torch.testing.assert_close(found[1, :, :2].sum(1), y[1, :, 0])
    torch.testing.assert_close(found[1, :, 0], found[1, :, 1])
    torch.testing.assert_close(found[1, :, 2], y[1, :, 2] / 2)


def test_a_gaussian_without_data_stays_and_is_said(capsys):
    x = torch.randn(500, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    far = torch.tensor([[0.0, 0], [1e4, 1e4]]).double()
    gmm = DiagGmm(torch.tensor([0.5, 0.5]).double(), far, torch.ones(2, 2).double())
    found = diagonal_step(gmm, x)
    assert torch.isfinite(found.means).all()
    assert found.means[1].tolist() == [1e4, 1e4]
    full = FullGmm(gmm.weights, far, torch.eye(2).double().repeat(2, 1, 1))
    found = full_step(full, x)
    assert torch.isfinite(found.covariances).all()
    assert "1 of 2 Gaussians have too little data" in capsys.readouterr().err


def test_a_gaussian_without_data_keeps_its_part_of_the_extractor(capsys):
    """As when it gets no frame of the training data; if no Gaussian has enough data, the error says so."""
    generator = torch.Generator().manual_seed(6)
    ubm = FullGmm(torch.full((3,), 1 / 3), torch.randn(3, 2, generator=generator), torch.eye(2).repeat(3, 1, 1))
    model = Extractor.from_ubm(ubm, 2, seed=1)
    counts = torch.tensor([[50.0, 60, 0]]).repeat(20, 1).double()
    sums = counts[..., None] * (ubm.means + torch.randn(20, 3, 2, generator=generator)).double()
    stats = Statistics(*model.m.shape)
    stats.add(counts, sums, *Posterior(model, dtype=torch.float64)(counts, sums))
    stats.second += 4 * counts.sum(0)[:, None, None] * torch.eye(2)
    found = update(model, stats)
    sums = stats.tensors()
    new = solve_projections(unpack(sums["r"][:2].double(), 2), sums["y"].double().view_as(model.m)[:2], model.m[:2])
    coordinates = torch.linalg.lstsq(new.flatten(0, 1), found.m[:2].flatten(0, 1)).solution  # those of the new prior
    torch.testing.assert_close(found.m[2], model.m[2] @ coordinates)
    torch.testing.assert_close(found.precision[2], model.precision[2])
    assert not torch.allclose(found.precision[:2], model.precision[:2])
    assert "1 of 3 Gaussians have too little data" in capsys.readouterr().err
    with pytest.raises(InputError, match="no Gaussian has 100 frames"):
        update(model, Statistics(*model.m.shape))


def test_a_precision_that_rounding_spoils_is_floored_and_said(capsys):
    """L is I plus a positive semidefinite matrix; eigenvalues that single precision puts below 1 are raised to 1."""
    model = Extractor(torch.tensor([[[3e7, 1e7]]]).double(), torch.ones(1, 1, 1).double(), 1.0, torch.ones(1).double())
    found, covariances = Posterior(model)(torch.tensor([[100.0], [0]]), torch.tensor([[[10.0]], [[0]]]))
    assert torch.isfinite(found).all()
    assert torch.linalg.eigvalsh(covariances[0].double()).max() < 1.01
    torch.testing.assert_close(found[1], torch.tensor([1.0, 0]))
    assert "precisions of 1 of 2 utterances" in capsys.readouterr().err


def made_up(folder: Path, lengths: list[int], dim: int) -> Path:
    """A data directory of random frames."""
    rng = np.random.default_rng(5)
    with ArkWriter(folder / "feats") as writer:
        for index, length in enumerate(lengths):
            writer.write(f"u{index}", rng.normal(size=(length, dim)))
    (folder / "utt2num_frames").write_text("".join(f"u{i} {n}\n" for i, n in enumerate(lengths)))
    return folder


def ubm_of(folder: Path, work: Path, **options) -> UbmTraining:
    return UbmTraining(IvectorConfig("ivector", "made-up", UbmOptions(**options), ExtractorOptions(2)), folder, work)


def test_too_few_frames_and_models_without_numbers_are_errors(tmp_path):
    training = ubm_of(made_up(tmp_path, [50], 3), tmp_path / "work", num_gaussians=64)
    with pytest.raises(InputError, match="50 frames are too few for 64 Gaussians"):
        training.run(training.last)
    broken = DiagGmm(torch.ones(1), torch.full((1, 2), float("nan")), torch.ones(1, 2))
    with pytest.raises(InputError, match="NaN"):
        write_diagonal(tmp_path / "gmm", broken)
    assert not (tmp_path / "gmm").exists()


@pytest.mark.parametrize("subsample", [0, 4])
def test_parts_of_a_background_model_give_the_same_bits_in_any_number_of_jobs(tmp_path, capsys, subsample):
    """Some parts are utterances of a single frame that is not drawn; there are fewer parts than asked for."""
    made_up(tmp_path, [900, 1, 600, 1, 1, 1500, 300], 3)
    options = {"num_gaussians": 4, "num_frames": 1200, "split_iterations": 3, "diagonal_iterations": 2,
               "full_iterations": 2, "num_gselect": 2, "subsample": subsample}
    one = ubm_of(tmp_path, tmp_path / "one", **options)
    assert one.run(one.last) == 7
    drawn = [len(one.memory[f"drawn.{part}"]) for part in range(1, 8)]
    assert 0 in drawn and 1000 < sum(drawn) < 1400
    for jobs in (1, 2, 3, 9):
        work = tmp_path / f"jobs{jobs}"
        first = ubm_of(tmp_path, work, **options)
        assert first.run(first.initial) == 3
        for iteration in range(4, 8):
            for job in range(1, jobs + 1):
                ubm_of(tmp_path, work, **options).accumulate(iteration, job, jobs)
            ubm_of(tmp_path, work, **options).update(iteration)
        assert not list(work.glob("*.part*"))
        for name in map("{}.safetensors".format, range(1, 8)):
            ours, theirs = (checksum(load_tensors(folder / name)[0], "") for folder in (work, tmp_path / "one"))
            assert ours == theirs, (jobs, name)
    said = capsys.readouterr().err
    assert f"{sum(drawn)} of 3303 frames drawn from 7 utterances" in said
    assert ("and every 4th: 828\n" in said) == (subsample == 4)
    assert f"diagonal UBM, iteration 3: 4 Gaussians, {sum(drawn)} frames" in said
    assert f"full UBM, iteration 1: 4 Gaussians, {828 if subsample else sum(drawn)} frames" in said


def test_splitting_keeps_the_weight_and_the_middle():
    gmm = DiagGmm(torch.tensor([0.6, 0.4]), torch.tensor([[0.0, 1], [5, 5]]), torch.ones(2, 2))
    found = split(gmm, 3, torch.Generator().manual_seed(0))
    assert found.weights.sum().item() == pytest.approx(1)
    assert len(found.weights) == 3
    torch.testing.assert_close((found.means[0] + found.means[2]) / 2, gmm.means[0])


def test_extractor_training_explains_the_data_better(tmp_path):
    """EM increases the likelihood of utterances whose means vary in a 2-dimensional subspace."""
    generator = torch.Generator().manual_seed(4)
    gaussians, dim, frames = 4, 3, 400
    means = 4 * torch.randn(gaussians, dim, generator=generator).double()
    ubm = FullGmm(torch.full((gaussians,), 0.25).double(), means, torch.eye(dim).double().repeat(gaussians, 1, 1))
    subspace = torch.randn(gaussians, dim, 2, generator=generator).double()
    true = torch.randn(300, 2, generator=generator).double()
    counts = torch.full((300, gaussians), float(frames)).double()
    sums = counts[..., None] * (ubm.means + torch.einsum("cds,us->ucd", subspace, true))
    sums += frames**0.5 * torch.randn(sums.shape, generator=generator).double()
    centre = sums / frames
    second = (counts.sum(0)[:, None, None] * torch.eye(dim)
              + torch.einsum("ucd,uce->cde", centre, centre) * frames)
    model = Extractor.from_ubm(ubm, 3, seed=1)
    for _ in range(10):
        stats = Statistics(*model.m.shape)
        stats.add(counts, sums, *Posterior(model, dtype=torch.float64)(counts, sums))
        stats.second += second
        model = update(model, stats)
    ivectors = Posterior(model, dtype=torch.float64).ivectors(counts, sums)
    design = torch.cat([ivectors, torch.ones(300, 1).double()], dim=1)
    left = true - design @ torch.linalg.lstsq(design, true).solution
    assert left.square().mean() < 0.01  # the factors are recovered up to an affine map
    assert ivectors.mean(0).abs().max() < 0.05  # the prior is centred


def test_blocks_join_whole_utterances_and_sampling_is_repeatable(tmp_path):
    made_up(tmp_path, [30, 50, 20, 80, 10], 4)
    options = FrontendOptions()
    found = list(blocks(tmp_path, options, at_once=2))
    assert [ids for ids, *_ in found] == [["u0", "u1"], ["u2", "u3"], ["u4"]]
    assert [sizes.tolist() for *_, sizes in found] == [[30, 50], [20, 80], [10]]
    assert [len(x) for _, x, _ in found] == [80, 100, 10]
    assert [len(x) for x, in draw_frames(tmp_path, options, 1000, seed=1, parts=2)] == [80, 110]
    (half,), (again,) = (next(draw_frames(tmp_path, options, 95, seed=1, parts=1)) for _ in range(2))
    assert 60 < len(half) < 130
    np.testing.assert_array_equal(half, again)
    parts = list(draw_frames(tmp_path, options, 95, seed=1, parts=3, subsample=20))
    np.testing.assert_array_equal(np.concatenate([drawn for drawn, _ in parts]), half)
    np.testing.assert_array_equal(np.concatenate([every for _, every in parts]),
                                  np.concatenate([x[::20] for _, x in iterate(tmp_path / "feats.scp")]))
    lengths = tmp_path / "utt2num_frames"
    lengths.write_text(re.sub(r"\d+\n", "many\n", lengths.read_text(), count=1))
    with pytest.raises(InputError, match=r"utt2num_frames:1: 'many' is not a number of frames above 0"):
        next(draw_frames(tmp_path, options, 95, seed=1, parts=1))


def test_models_whose_parts_do_not_fit_are_errors(reference, tmp_path):
    folder, _ = reference
    diagonal, full = read_diagonal(folder / "diag1.ubm"), read_full(folder / "full1.ubm")
    extractor = read_extractor(folder / "extractor1.ie")
    damaged = [
        (write_diagonal, read_diagonal, replace(diagonal, weights=diagonal.weights[1:]), "sizes do not match"),
        (write_diagonal, read_diagonal, replace(diagonal, variances=-diagonal.variances), "not above 0"),
        (write_full, read_full, replace(full, stored=full.stored[1:]), "sizes do not match"),
        (write_full, read_full, replace(full, covariances=-full.covariances), "not positive definite"),
        (write_extractor, read_extractor, replace(extractor, weights=extractor.weights[1:]), "sizes do not match"),
        (write_extractor, read_extractor, replace(extractor, precision=extractor.precision[:, 1:, 1:]), "sizes do not"),
    ]
    for write, read, model, reason in damaged:
        write(tmp_path / "model", model)
        with pytest.raises(InputError, match=f"model: .*{reason}"):
            read(tmp_path / "model")


def test_packing():
    a = torch.randn(3, 5, 5)
    a = a + a.transpose(1, 2)
    torch.testing.assert_close(unpack(pack(a), 5), a)


def test_drawn_frames_are_counted_without_the_unvoiced_ones(tmp_path):
    """A third of the frames is voiced: all of these are drawn if at least as many are asked for."""
    rng = np.random.default_rng(0)
    with ArkWriter(tmp_path / "feats") as feats, ArkWriter(tmp_path / "vad") as vad:
        for name in ("a", "b"):
            feats.write(name, rng.normal(size=(300, 4)).astype(np.float32))
            vad.write(name, (np.arange(300) % 3 == 0).astype(np.float32))
    assert len(next(draw_frames(tmp_path, FrontendOptions(vad=True), 200, 1, 1))[0]) == 200
