"""Encoders of two-dimensional convolutions: a block in loops, the way of the bands, the order of a frame's values."""

import numpy as np
import pytest
import torch

from nnet.encoders import ENCODERS
from nnet.encoders.resnet import BasicBlock, ResNetOptions
from nnet.model import make_part


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def convolved(x, weight, stride):
    """A padded 3 x 3 convolution of C x T x F in loops."""
    channels, frames, bands = x.shape
    out = torch.zeros(len(weight), -(-frames // stride[0]), -(-bands // stride[1]), dtype=torch.float64)
    for o, t, f in np.ndindex(*out.shape):
        for c, i, j in np.ndindex(channels, 3, 3):
            at, band = t * stride[0] + i - 1, f * stride[1] + j - 1
            if 0 <= at < frames and 0 <= band < bands:
                out[o, t, f] += weight[o, c, i, j] * x[c, at, band]
    return out


def normed(x, norm):
    return torch.stack([(x[c] - norm.running_mean[c]) / (norm.running_var[c] + norm.eps).sqrt() * norm.weight[c]
                        + norm.bias[c] for c in range(len(x))])


@pytest.mark.parametrize("relu_first", [False, True])
@pytest.mark.parametrize(("widths", "stride"), [((2, 2), (1, 2)), ((2, 3), (2, 2)), ((2, 2), (1, 1))])
def test_a_residual_block_equals_its_definition(widths, stride, relu_first):
    """With the order of norm and ReLU, and a shortcut that has a convolution only between different widths."""
    options = ResNetOptions(type="resnet", squeeze=2, relu_first=relu_first)
    block = BasicBlock(*widths, stride, options).double().eval()
    for part in block.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            for seed, value in enumerate((part.running_mean, part.weight.data, part.bias.data)):
                value.copy_(random(len(value), seed=seed))
    x = random(1, widths[0], 5, 7)
    y = convolved(x[0], block.first.weight, stride)
    y = normed(y.clamp_min(0), block.first_norm) if relu_first else normed(y, block.first_norm).clamp_min(0)
    y = normed(convolved(y, block.second.weight, (1, 1)), block.second_norm)
    y = y * block.squeeze.weigh(y.mean(dim=(1, 2)))[:, None, None]
    around = x[0, :, ::stride[0], ::stride[1]]
    if widths[0] != widths[1]:
        convolution, norm = block.around
        around = normed(torch.einsum("oc,ctf->otf", convolution.weight[:, :, 0, 0], around), norm)
    torch.testing.assert_close(block(x, None)[0][0], (y + around).clamp_min(0))


def test_every_band_reaches_the_output_of_the_multi_resolution_papers_network():
    encoder = make_part(ENCODERS, "encoder", {"type": "resnet", "channels": [4, 4, 6, 6], "blocks": [1, 1, 1, 1],
                                              "band_strides": [2, 2, 2, 2], "frequency": "convolution"}, 40).eval()
    x = random(1, 40, 40).float().requires_grad_()
    bands = []
    for stage, _ in encoder.stage_outputs(x)[1:]:
        bands.append(stage.shape[3])
    assert bands == [20, 10, 5, 3]
    encoder(x)[0].square().sum().backward()
    assert (x.grad.abs().sum(dim=(0, 1)) > 0).all()
    assert all((p.grad.abs().amax(dim=tuple(range(p.dim() - 1))) > 0).all() for p in [encoder.last[0].weight])


def test_vggs_frames_list_the_channels_first():
    """Frame t of 16 x T/8 x 512 becomes all bands of channel 1, then of channel 2; a head sees all bands."""
    encoder = make_part(ENCODERS, "encoder", {"type": "vgg", "channels": [4, 6]}, 16).eval()
    x = random(1, 8, 16).float()
    planes = x[:, None]
    for index, convolution in enumerate(encoder.convolutions):
        planes = convolution(planes).relu()
        planes = torch.nn.functional.max_pool2d(planes, 2) if index % 2 else planes  # 1 x 6 x 2 x 4 in the end
    expected = [[planes[0, c, t, f].item() for c in range(6) for f in range(4)] for t in range(2)]
    torch.testing.assert_close(encoder(x)[0][0], torch.tensor(expected))
