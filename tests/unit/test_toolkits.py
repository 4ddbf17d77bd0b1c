"""Checkpoints of other toolkits: the same embeddings as an independent forward pass, and what is refused.

`Reference` computes each network from the tensors of a checkpoint alone, by the toolkit's names and in its order of
operations.
"""

import json
import os
import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import batch_norm, conv1d, conv2d, linear, pad

from nnet.embed import load, load_network
from tests.in_process import call
from tests.unit.made_up import FEATURES

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


def wespeaker_ecapa(context=True, normed=False, channels=12, groups=4, output=10):
    tensors, part = Tensors(), channels // groups

    def convolution(name, number, outputs, inputs, kernel, dotted="."):
        tensors.layer(f"{name}{dotted}conv{number}", outputs, inputs, kernel)
        tensors.norm(f"{name}{dotted}bn{number}", outputs)

    convolution("layer1", "", channels, BANDS, 5)
    for layer in (2, 3, 4):
        name = f"layer{layer}.se_res2block"
        convolution(f"{name}.0", "", channels, channels, 1)
        for number in range(groups - 1):
            convolution(f"{name}.1", f"s.{number}", part, part, 3)
        convolution(f"{name}.2", "", channels, channels, 1)
        tensors.layer(f"{name}.3.linear1", 5, channels)
        tensors.layer(f"{name}.3.linear2", channels, 5)
    tensors.layer("conv", output, 3 * channels, 1)
    tensors.layer("pool.linear1", 7, output * (3 if context else 1), 1)
    tensors.layer("pool.linear2", output, 7, 1)
    tensors.norm("bn", 2 * output)
    tensors.layer("linear", 6, 2 * output)
    if normed:
        tensors.norm("bn2", 6)
    return tensors


def weighted(x, weights, floor):
    mean = (weights * x).sum(dim=2)
    variance = (weights * (x - mean[:, :, None]).square()).sum(dim=2)
    return torch.cat([mean, variance.clamp_min(floor).sqrt()], dim=1)


def embed_wespeaker_ecapa(tensors, frames):
    net = Reference(tensors)

    def convolution(x, name, number="", **options):
        return net.norm(net.layer(x, f"{name}.conv{number}", **options).relu(), f"{name}.bn{number}")

    x, outputs = convolution(frames.transpose(1, 2), "layer1", padding=2), []
    for layer in (2, 3, 4):
        name = f"layer{layer}.se_res2block"
        groups = convolution(x, f"{name}.0").chunk(4, dim=1)
        found = []
        for number, group in enumerate(groups[:3]):
            found.append(convolution(group + found[-1] if found else group, f"{name}.1", f"s.{number}", padding=layer,
                                     dilation=layer))
        y = convolution(torch.cat([*found, groups[3]], dim=1), f"{name}.2")
        scale = net.layer(net.layer(y.mean(dim=2), f"{name}.3.linear1", linear).relu(), f"{name}.3.linear2", linear)
        x = x + y * scale.sigmoid()[:, :, None]
        outputs.append(x)
    x = net.layer(torch.cat(outputs, dim=1), "conv").relu()
    seen = [x]
    if tensors["pool.linear1.weight"].shape[1] > x.shape[1]:
        seen += [x.mean(dim=2, keepdim=True).expand_as(x), (x.var(dim=2, keepdim=True) + 1e-7).sqrt().expand_as(x)]
    scores = net.layer(net.layer(torch.cat(seen, dim=1), "pool.linear1").tanh(), "pool.linear2")
    found = net.layer(net.norm(weighted(x, scores.softmax(dim=2), 1e-7), "bn"), "linear", linear)
    return net.norm(found, "bn2") if "bn2.weight" in tensors else found


def speechbrain_ecapa(channels=12, groups=4, output=10):
    tensors, part = Tensors(), channels // groups

    def block(name, outputs, inputs, kernel=1):
        tensors.layer(f"{name}.conv.conv", outputs, inputs, kernel)
        tensors.norm(f"{name}.norm.norm", outputs)

    block("blocks.0", channels, BANDS, 5)
    for number in (1, 2, 3):
        name = f"blocks.{number}"
        block(f"{name}.tdnn1", channels, channels)
        for place in range(groups - 1):
            block(f"{name}.res2net_block.blocks.{place}", part, part, 3)
        block(f"{name}.tdnn2", channels, channels)
        tensors.layer(f"{name}.se_block.conv1.conv", 5, channels, 1)
        tensors.layer(f"{name}.se_block.conv2.conv", channels, 5, 1)
    block("mfa", output, 3 * channels)
    block("asp.tdnn", 7, 3 * output)
    tensors.layer("asp.conv.conv", output, 7, 1)
    tensors.norm("asp_bn.norm", 2 * output)
    tensors.layer("fc.conv", 6, 2 * output, 1)
    return tensors


def embed_speechbrain_ecapa(tensors, frames):
    net = Reference(tensors)

    def block(x, name, reach=0, **options):
        x = pad(x, (reach, reach), mode="reflect") if reach else x
        return net.norm(net.layer(x, f"{name}.conv.conv", **options).relu(), f"{name}.norm.norm")

    x, outputs = block(frames.transpose(1, 2), "blocks.0", 2), []
    for number in (1, 2, 3):
        name, dilation = f"blocks.{number}", number + 1
        first, *groups = block(x, f"{name}.tdnn1").chunk(4, dim=1)
        found = [first]
        for place, group in enumerate(groups):
            found.append(block(group + found[-1] if place else group, f"{name}.res2net_block.blocks.{place}", dilation,
                               dilation=dilation))
        y = block(torch.cat(found, dim=1), f"{name}.tdnn2")
        scale = net.layer(y.mean(dim=2, keepdim=True), f"{name}.se_block.conv1.conv").relu()
        x = x + y * net.layer(scale, f"{name}.se_block.conv2.conv").sigmoid()
        outputs.append(x)
    x = block(torch.cat(outputs, dim=1), "mfa")
    context = weighted(x, torch.full_like(x, 1 / x.shape[2]), 1e-12)[:, :, None].expand(-1, -1, x.shape[2])
    scores = net.layer(block(torch.cat([x, context], dim=1), "asp.tdnn").tanh(), "asp.conv.conv")
    pooled = weighted(x, scores.softmax(dim=2), 1e-12)[:, :, None]
    return net.layer(net.norm(pooled, "asp_bn.norm"), "fc.conv")[:, :, 0]


CASES = {"wespeaker resnet": (wespeaker_resnet, embed_wespeaker_resnet),
         "wespeaker ecapa": (partial(wespeaker_ecapa, normed=True), embed_wespeaker_ecapa),
         "wespeaker ecapa without context": (partial(wespeaker_ecapa, context=False), embed_wespeaker_ecapa),
         "speechbrain ecapa": (speechbrain_ecapa, embed_speechbrain_ecapa)}


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


def test_speechbrains_bundle_is_for_fine_tuning_only(tmp_path):
    out = tmp_path / "bundle"
    done = bring("speechbrain", write(tmp_path, speechbrain_ecapa()), out)
    assert done.returncode == 0 and "for fine-tuning only" in done.stderr
    config = load_network(out)[1]
    assert (config.features, config.feature_options, config.frontend.cmn) == ("fbank80", None, "chunk")
    (tmp_path / "a.wav").write_bytes(b"")
    for words in (("verify", out, tmp_path / "a.wav", tmp_path / "a.wav"),
                  ("embed", "--out", tmp_path / "a.npz", out, tmp_path / "a.wav")):
        done = call(f"steps.use.{words[0]}", *words[1:])
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "bundle: its network takes features that cannot be computed here, so it embeds no audio" in done.stderr
    assert not (tmp_path / "a.npz").exists()
    options = FEATURES / "fbank80.conf"
    done = bring("speechbrain", write(tmp_path, speechbrain_ecapa()), tmp_path / "other", "--features", options)
    assert done.returncode == 1 and "fbank80.conf: the features of speechbrain are of another kind" in done.stderr
    assert not (tmp_path / "other").exists()


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


@pytest.mark.parametrize("kind", ["safetensors", "state_dict", "half"])
def test_other_files_of_the_same_tensors(kind, tmp_path):
    tensors = {name: value.half().float() if value.is_floating_point() else value
               for name, value in wespeaker_ecapa().items()}
    path = tmp_path / f"x.{kind}"
    if kind == "safetensors":
        save_file(tensors, path)
    else:
        half = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
        torch.save({"state_dict": tensors} if kind == "state_dict" else half, path)
    done = bring("wespeaker", path, tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    found, wanted = load_network(tmp_path / "bundle")[0].head.layers[0].affine.weight, tensors["linear.weight"]
    assert found.dtype == torch.float32 and (found == wanted).all()


class Harm:
    """Pickled, it runs a command when it is read."""

    def __reduce__(self):
        return os.system, ("touch harmed",)


def changed(make, **changes):
    """Return a toolkit's tensors with some replaced, or without those that become None."""
    return {name: value for name, value in {**make(), **changes}.items() if value is not None}


REFUSED = {
    "missing": (changed(wespeaker_resnet, **{"layer2.1.bn2.bias": None}),
                "layer2.1.bn2.bias is missing in wespeaker's ResNet"),
    "size missing": (changed(wespeaker_ecapa, **{"pool.linear1.weight": None}),
                     "pool.linear1.weight is missing, wanted a tensor with axis 1"),
    "shape": (changed(wespeaker_resnet, **{"layer3.0.conv2.weight": torch.zeros(8, 8, 3, 1)}),
              "layer3.0.conv2.weight is [8, 8, 3, 1] (torch.float32), wanted [8, 8, 3, 3]"),
    "type": (changed(wespeaker_ecapa, **{"bn.bias": torch.zeros(20, dtype=torch.int64)}),
             "bn.bias is [20] (torch.int64), wanted [20]"),
    "unknown": (changed(wespeaker_ecapa, **{"frontend.weight": torch.zeros(2)}),
                "frontend.weight: no place in wespeaker's ECAPA-TDNN"),
    "nan": (changed(wespeaker_ecapa, **{"bn.bias": torch.full((20,), torch.nan)}),
            "bn.bias has NaN or infinite values"),
    "two layers": (changed(wespeaker_resnet, **{"seg_2.weight": torch.zeros(5, 5)}),
                   "seg_2.weight belongs to a second embedding layer"),
    "bottleneck": (changed(wespeaker_resnet, **{"layer1.0.conv3.weight": torch.zeros(2, 2, 1, 1)}),
                   "layer1.0.conv3.weight belongs to bottleneck blocks"),
    "pooling": (changed(wespeaker_resnet, **{"pool.linear1.weight": torch.zeros(2, 2, 1)}),
                "pool.linear1.weight belongs to another pooling than TSTP"),
    "pooling of ecapa": (changed(wespeaker_ecapa, **{"pool.n_query.0.weight": torch.zeros(2)}),
                         "pool.n_query.0.weight belongs to another pooling than ASTP"),
    "mean alone": (changed(wespeaker_resnet, **{"seg_1.weight": torch.zeros(5, 160)}),
                   "takes 40 values per frame (a ResNet: if its pooling is TSTP)"),
    "pooled": (changed(wespeaker_resnet, **{"seg_1.weight": torch.zeros(5, 33)}), "seg_1.weight takes 33 values"),
    "toolkit": (changed(speechbrain_ecapa), "another architecture, with the tensors blocks.0.conv.conv.weight, "),
    "speechbrain's ResNet": ({"conv1.weight": torch.zeros(2), "fc_embed.weight": torch.zeros(2)},
                             "fc_embed.weight is a tensor of speechbrain's ResNet"),
    "groups": (changed(wespeaker_ecapa, **{"layer2.se_res2block.1.convs.1.weight": None}),
               "layer2.se_res2block.1.convs.0.weight is [3, 3, 3] (torch.float32), wanted [6, 6, 3]"),
    "not tensors": ({"epoch": 3}, "'epoch' is a int, wanted tensors by name"),
    "one tensor": (torch.zeros(3), "holds a Tensor, wanted tensors by name"),
    "nothing": ({}, "holds a dict, wanted tensors by name"),
    "larger than the file": (changed(wespeaker_ecapa, **{"bn.bias": torch.zeros(1).expand(10**12)}),
                             "bn.bias should have 1000000000000 values, the file holds fewer"),
    "sparse": (changed(wespeaker_ecapa, **{"bn.bias": torch.ones(20).to_sparse()}),
               "bn.bias is sparse, quantised or without values"),
    "overflow": (changed(wespeaker_ecapa, **{"bn.bias": torch.full((20,), 1e300, dtype=torch.float64)}),
                 "bn.bias has NaN or infinite values"),
    "code": ({"linear.weight": Harm()}, "refused: a pickle that calls posix.system ("),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, message = REFUSED[case]
    torch.save(found, "x.pt")
    refused("x.pt", message)


def refused(path, message):
    before = sorted(os.listdir())
    done = bring("wespeaker", path, "bundle")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"{path}" in done.stderr and message in done.stderr
    assert sorted(os.listdir()) == before  # no bundle, nothing half-written, and nothing was run


FILES = {"a.pt": (b"", "no checkpoint of PyTorch, or damaged (EOFError); wanted tensors alone"),
         "b.pt": (b"RIFF" + bytes(99), "no checkpoint of PyTorch, or damaged ("),
         "c.pt": (pickle.dumps(Harm(), protocol=2), "refused: a pickle that calls posix.system (UnpicklingError)"),
         "c4.pt": (pickle.dumps(Harm(), protocol=4), "refused: no checkpoint of PyTorch, or damaged ("),
         "d.safetensors": (bytes(99), "damaged or not safetensors"),
         "missing.pt": (None, "no such file; name a checkpoint")}


@pytest.mark.parametrize("name", FILES)
def test_files_without_tensors_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = FILES[name]
    if content is not None:
        Path(name).write_bytes(content)
    refused(name, message)


def test_a_cut_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, wespeaker_ecapa())
    path.write_bytes(path.read_bytes()[:-999])
    refused("avg_model.pt", "no checkpoint of PyTorch, or damaged (")
