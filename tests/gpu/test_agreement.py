"""What the GPU computes is what the CPU computes, in single precision: networks, losses, features, i-vectors.

VOX_TEST_DEVICE names another device (cpu checks the tests themselves). tests/gpu/run.sh runs this and the benchmarks.
"""

import copy
import os

import numpy as np
import pytest
import torch

from nnet.config import network_config
from nnet.embed import load
from nnet.frontends.kaldi import KaldiFeatures, frontend_of_batch
from nnet.losses import LOSSES
from nnet.model import Network
from steps.ivector.extractor import Extractor, Posterior, Statistics
from steps.ivector.gmm import FullGmm, FullPosteriors
from steps.ivector.train_ubm import diagonal_sums, full_sums
from steps.ivector.utterance_stats import block_statistics
from tests.unit.made_up import FEATURES
from tests.unit.made_up_systems import write_untrained
from tests.unit.test_nnet_configs import CONF, NETWORKS
from utils.config import choose, load_config
from utils.device import find_device
from utils.features.frontend import FrontendOptions
from utils.features.options import read_feature_options

DEVICE = os.environ.get("VOX_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(autouse=True)
def single_precision():
    """As in all programs: convolutions in fp32, not in PyTorch's TF32."""
    find_device(DEVICE)


def near(ours, theirs, tolerance):
    """Whether the difference is small against the values; in double precision."""
    ours, theirs = ours.detach().cpu().double(), theirs.detach().cpu().double()
    return (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_gradients_and_embeddings(name):
    config = network_config(load_config(CONF / f"{name}.yaml", "mini"), name)
    torch.manual_seed(0)
    network = Network(config, read_feature_options(CONF / f"features/{config.features}.conf").dim, 6)
    network.eval()  # without dropout and masks, which the devices draw differently
    for module in network.modules():
        module.training |= isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
    x, labels = torch.randn(6, 120, network.frontend.output_dim), torch.arange(6) // 2
    # Gradients are compared in double precision. In fp32, rounding decides which of two near values a maximum takes,
    # and which side of 0 a ReLU sees. That changes a gradient by up to 1 %, even on one device.
    for dtype, loss_tolerance, tolerance in ((torch.float32, 1e-4, 1e-4), (torch.float64, 1e-9, 1e-7)):
        found = []
        for device in ("cpu", DEVICE):
            one = copy.deepcopy(network).to(device, dtype)
            loss, accuracy = one(x.to(device, dtype), labels.to(device))
            loss.backward()
            gradients = torch.cat([p.grad.flatten().cpu() for p in one.parameters() if p.grad is not None])
            lengths = torch.tensor([120, 120, 100, 90, 120, 70], device=device)
            with torch.inference_mode():
                embeddings = one.eval().embed_features(x.to(device, dtype), lengths)
            found.append((loss.item(), accuracy.item(), gradients, embeddings))
        (loss, accuracy, gradients, embeddings), (its_loss, its_accuracy, its_gradients, its_embeddings) = found
        assert its_loss == pytest.approx(loss, rel=loss_tolerance) and its_accuracy == accuracy
        assert near(its_embeddings, embeddings, tolerance)
        assert dtype == torch.float32 or near(its_gradients, gradients, tolerance)


@pytest.mark.parametrize("conf", sorted(path.stem for path in FEATURES.glob("*.conf") if path.stem != "vad"))
def test_features_of_samples(conf):
    samples = 3000 * torch.randn(3, 16000, generator=torch.Generator().manual_seed(1))
    features = KaldiFeatures(read_feature_options(FEATURES / f"{conf}.conf"))
    ours = features(samples)
    theirs = copy.deepcopy(features).to(DEVICE)(samples.to(DEVICE))
    assert near(theirs, ours, 1e-5)
    options = FrontendOptions(deltas=2, cmn="sliding", cmn_window=60)
    assert near(frontend_of_batch(theirs, options), frontend_of_batch(ours, options), 1e-3)


def test_a_model_folder(tmp_path):
    """As utils/embed --device cuda: batches of files of several lengths."""
    folder, rng = write_untrained(tmp_path / "model"), np.random.default_rng(0)
    waves = [(0.1 * rng.standard_normal(length)).astype(np.float32) for length in (16000, 40000, 23456)]
    ours, theirs = (load(folder, device).embed(waves, 16000) for device in ("cpu", DEVICE))
    np.testing.assert_allclose(theirs, ours, atol=1e-3 * np.abs(ours).max())


@pytest.mark.parametrize("options", [
    {"type": "softmax"}, {"type": "a_softmax", "margin": 2}, {"type": "a_softmax", "margin": 4}, {"type": "am_softmax"},
    {"type": "aam_softmax", "sub_centres": 3}, {"type": "aam_softmax", "top_k": 2, "label_smoothing": 0.1},
    {"type": "prototypical"}, {"type": "normalised_prototypical", "utterances": 3, "softmax": True},
    {"type": "angular_prototypical"}], ids=lambda options: " ".join(map(str, options.values())))
def test_each_loss_and_its_gradient(options):
    torch.manual_seed(0)
    kind, built = choose(LOSSES, options, "loss")
    loss, x = kind(8, 6, built).double(), torch.randn(6, 8, dtype=torch.float64)
    labels = torch.arange(6) // (built.utterances or 1)
    found = []
    for device in ("cpu", DEVICE):
        one, own = copy.deepcopy(loss).to(device), x.to(device, copy=True).requires_grad_()
        value, accuracy = one(own, labels.to(device))
        value.backward()
        found.append((value, accuracy, own.grad, *(p.grad for p in one.parameters() if p.grad is not None)))
    assert len(found[0]) == len(found[1]) and all(near(theirs, ours, 1e-9) for ours, theirs in zip(*found, strict=True))


def made_up_ubm():
    """A full mixture of 16 Gaussians, and 500 frames of 12 dimensions."""
    generator = torch.Generator().manual_seed(2)
    count, dim = 16, 12
    root = torch.randn(count, dim, dim, generator=generator) / dim ** 0.5
    weights = torch.rand(count, generator=generator) + 0.5
    ubm = FullGmm(weights / weights.sum(), 2 * torch.randn(count, dim, generator=generator),
                  root @ root.transpose(1, 2) + torch.eye(dim))
    return ubm, 2 * torch.randn(500, dim, generator=generator)


def test_the_statistics_of_background_models():
    ubm, x = made_up_ubm()
    found = []
    for device in ("cpu", DEVICE):
        of = FullPosteriors(ubm.to(device, torch.float32), 5)
        own = x.to(device)
        diagonal = diagonal_sums(ubm.to(device, torch.float32).diagonal())
        found.append([*diagonal(own), *full_sums(of)(own, of.select(own))])
    assert all(near(theirs, ours, 1e-4) for ours, theirs in zip(*found, strict=True))


def test_posteriors_statistics_and_ivectors():
    ubm, x = made_up_ubm()
    count, dim = ubm.means.shape
    model, lengths = Extractor.from_ubm(ubm, 10, seed=1), np.array([200, 180, 120])
    found = []
    for device in ("cpu", DEVICE):
        of, own = FullPosteriors(ubm.to(device, torch.float32), 5), x.to(device)
        chosen, posteriors, likelihoods = of(own)
        dense = torch.zeros(len(x), count, device=device).scatter(1, chosen, posteriors)
        block, posterior = block_statistics(of.pairs(own), own, lengths, count), Posterior(model, device)
        half, whole = (Statistics(count, dim, 10) for _ in range(2))
        half.add(*posterior.with_statistics(block))
        whole.merge(half.tensors())
        sums = [tensor for name, tensor in whole.tensors().items() if name != "second"]  # which stays zero here
        found.append((dense, likelihoods, *block, posterior.ivectors(*block), *sums))
    for ours, theirs in zip(*found, strict=True):
        assert near(theirs, ours, 1e-3)
