"""What the GPU computes is what the CPU computes, in single precision: networks, features, i-vectors.

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
from nnet.model import Network
from steps.ivector.extractor import Extractor, Posterior
from steps.ivector.gmm import FullGmm, FullPosteriors
from tests.unit.made_up import FEATURES
from tests.unit.made_up_systems import write_untrained
from tests.unit.test_nnet_configs import CONF, NETWORKS
from utils.config import load_config
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


def test_posteriors_and_ivectors():
    generator = torch.Generator().manual_seed(2)
    count, dim, size = 16, 12, 10
    root = torch.randn(count, dim, dim, generator=generator) / dim ** 0.5
    weights = torch.rand(count, generator=generator) + 0.5
    ubm = FullGmm(weights / weights.sum(), 2 * torch.randn(count, dim, generator=generator),
                  root @ root.transpose(1, 2) + torch.eye(dim))
    model = Extractor.from_ubm(ubm, size, seed=1)
    x = 2 * torch.randn(500, dim, generator=generator)
    found = []
    for device in ("cpu", DEVICE):
        chosen, posteriors, likelihoods = FullPosteriors(ubm.to(device, torch.float32), 5)(x.to(device))
        dense = torch.zeros(len(x), count, device=device).scatter(1, chosen, posteriors)
        counts, sums = dense.sum(0)[None], (dense.T @ x.to(device))[None]
        found.append((dense, likelihoods, Posterior(model, device).ivectors(counts, sums)))
    for ours, theirs in zip(*found, strict=True):
        assert near(theirs, ours, 1e-3)
