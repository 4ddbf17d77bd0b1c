"""Checkpoints of other toolkits: the same embeddings as an independent forward pass, and what is refused.

`Reference` computes each network from the tensors of a checkpoint alone, by the toolkit's names and in its order of
operations.
"""

import json

import numpy as np
import pytest
import torch
from torch.nn.functional import batch_norm, conv1d, conv2d, linear

from nnet.embed import load, load_network
from tests.in_process import call

BANDS = 80


class Tensors(dict):
    """Random tensors of a checkpoint, by name."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(1)

    def random(self, *shape):
        return torch.randn(*shape, generator=self.generator)

    def layer(self, name, outputs, inputs, *kernel, bias=True):
        size = (inputs * np.prod(kernel or 1)) ** -0.5
        self[f"{name}.weight"] = self.random(outputs, inputs, *kernel) * float(size)
        if bias:
            self[f"{name}.bias"] = 0.3 * self.random(outputs)

    def norm(self, name, size):
        self |= {f"{name}.weight": 1 + 0.2 * self.random(size), f"{name}.bias": 0.2 * self.random(size),
                 f"{name}.running_mean": 0.3 * self.random(size),
                 f"{name}.running_var": 0.5 + self.random(size).square(),
                 f"{name}.num_batches_tracked": torch.tensor(7)}


class Reference:
    """The operations of a network over the tensors of its checkpoint."""

    def __init__(self, tensors):
        self.tensors = tensors

    def norm(self, x, name):
        of = self.tensors
        return batch_norm(x, of[f"{name}.running_mean"], of[f"{name}.running_var"], of[f"{name}.weight"],
                          of[f"{name}.bias"])

    def layer(self, x, name, operation=conv1d, **options):
        return operation(x, self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias"), **options)


def wespeaker_resnet(channels=2, blocks=(1, 2, 1, 1), dim=5):
    tensors, width = Tensors(), channels
    tensors.layer("conv1", width, 1, 3, 3, bias=False)
    tensors.norm("bn1", width)
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            name, outputs = f"layer{stage}.{block}", channels * 2 ** (stage - 1)
            for number, inputs in ((1, width), (2, outputs)):
                tensors.layer(f"{name}.conv{number}", outputs, inputs, 3, 3, bias=False)
                tensors.norm(f"{name}.bn{number}", outputs)
            if width != outputs:
                tensors.layer(f"{name}.shortcut.0", outputs, width, 1, 1, bias=False)
                tensors.norm(f"{name}.shortcut.1", outputs)
            width = outputs
    tensors.layer("seg_1", dim, 2 * width * BANDS // 8)
    tensors.layer("projection", 3, dim, bias=False)
    return tensors


def embed_wespeaker_resnet(tensors, frames):
    net = Reference(tensors)
    x = net.norm(net.layer(frames.transpose(1, 2)[:, None], "conv1", conv2d, padding=1), "bn1").relu()  # B x C x F x T
    for name in dict.fromkeys(key.rsplit(".", 2)[0] for key in tensors if key.startswith("layer") and "conv1" in key):
        stride = 2 if name.endswith(".0") and name != "layer1.0" else 1
        y = net.norm(net.layer(x, f"{name}.conv1", conv2d, padding=1, stride=stride), f"{name}.bn1").relu()
        y = net.norm(net.layer(y, f"{name}.conv2", conv2d, padding=1), f"{name}.bn2")
        if f"{name}.shortcut.0.weight" in tensors:
            x = net.norm(net.layer(x, f"{name}.shortcut.0", conv2d, stride=stride), f"{name}.shortcut.1")
        x = (x + y).relu()
    pooled = torch.cat([x.mean(dim=3).flatten(1), (x.var(dim=3) + 1e-7).sqrt().flatten(1)], dim=1)
    return net.layer(pooled, "seg_1", linear)


CASES = {"wespeaker resnet": (wespeaker_resnet, embed_wespeaker_resnet)}


def write(folder, tensors, name="avg_model.pt"):
    torch.save(dict(tensors), folder / name)
    return folder / name


def bring(toolkit, path, out, *options):
    return call("steps.use.import_checkpoint", "--from", toolkit, *options, path, out)


@pytest.mark.parametrize("case", CASES)
def test_an_imported_network_gives_the_toolkits_embeddings(case, tmp_path):
    make, embed = CASES[case]
    tensors = make()
    done = bring(case.split()[0], write(tmp_path, tensors), tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    network, config = load_network(tmp_path / "bundle")
    assert config.feature_dim == BANDS
    x = 2 * torch.randn(2, 61, BANDS, generator=torch.Generator().manual_seed(2)) + 0.5
    with torch.inference_mode():
        together = network.embed_features(x, torch.tensor([61, 40]))
        for length, found in zip((61, 40), together, strict=True):
            wanted = embed(tensors, x[:, :length])
            torch.testing.assert_close(network.embed_features(x[:, :length]), wanted, atol=1e-4, rtol=0)
            torch.testing.assert_close(found, wanted[0 if length == 61 else 1], atol=1e-4, rtol=0)
            assert wanted.abs().mean() > 0.1 and (wanted[0] - wanted[1]).abs().max() > 0.01


def test_wespeakers_bundle_embeds_and_verifies_recordings(tmp_path):
    done = bring("wespeaker", write(tmp_path, wespeaker_resnet()), tmp_path / "bundle", "--licence", "CC-BY-4.0")
    assert done.returncode == 0, done.stderr
    assert "resnet34_tstp of wespeaker" in done.stderr
    model = load(tmp_path / "bundle")
    features = model.kept_features
    assert (model.rate, features["window-type"], features["high-freq"]) == (16000, "hamming", 8000)
    assert features["snip-edges"] is True and model.frontend.cmn == "chunk"
    manifest = json.loads((tmp_path / "bundle/bundle.json").read_text())
    assert (manifest["system"], manifest["licence"]) == ("resnet34_tstp", "CC-BY-4.0")
    assert manifest["trained_with"]["checkpoint"] == "avg_model.pt" and len(manifest["trained_with"]["sha256"]) == 64
    recording = tmp_path / "bundle/self_check.flac"
    done = call("steps.use.verify", tmp_path / "bundle", recording, recording)
    assert done.returncode == 0, done.stderr
    assert "score        1.0000 (chain cosine: length cosine" in done.stdout and "not calibrated" in done.stdout
