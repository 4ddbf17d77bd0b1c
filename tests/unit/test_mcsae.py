"""Masked cross self-attention encoding against its equations in plain loops, its mask, and its padding."""

import math
from pathlib import Path

import pytest
import torch

from nnet.config import network_config
from nnet.encoders import ENCODERS
from nnet.encoders.sc_resnet import AdaptiveMask
from nnet.model import Network, make_part
from utils.config import load_config
from utils.errors import InputError

CONF = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf"
WIDTHS = (3, 3, 4, 5)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def encoder(**options):
    torch.manual_seed(1)
    return make_part(ENCODERS, "encoder", {"type": "sc_resnet", "stem": 3, "channels": WIDTHS[1:], "blocks": [1, 1, 1],
                                           "strides": [1, 2, 2], **options}, 8)


def attention_in_loops(q, k, v):
    """softmax(Q^T K / sqrt(d_k)) V^T: one value per element of q."""
    out = []
    for a in q:
        exponents = [(a * b / math.sqrt(len(k))).exp() for b in k]
        out.append(sum(e * value for e, value in zip(exponents, v, strict=True)) / sum(exponents))
    return out


def encode_in_loops(kind, p):
    """[Z, p_last] of the means p_1 .. p_n (lists of numbers), z_i written out as a matrix."""
    row = p[0]
    for first, second in zip(p[:-1], p[1:], strict=True):
        if kind == "cross":
            left, right = attention_in_loops(first, second, second), attention_in_loops(second, first, first)
        else:
            left, right = attention_in_loops(first, first, first), attention_in_loops(second, second, second)
        z = [[a * b for b in right] for a in left]  # d_i x d_{i+1}
        row = [sum(row[i] * z[i][j] for i in range(len(left))) for j in range(len(right))]
    return torch.stack([*row, *p[-1]])


@pytest.mark.parametrize("kind", ["none", "self", "cross"])
@pytest.mark.parametrize("frames", [4, 9])
def test_encodings_equal_their_equations(kind, frames):
    module = encoder(attention=kind, masking=False).double().eval()
    x = random(2, frames, 8).requires_grad_()
    y, _ = module(x)
    assert y.shape == (2, 1, module.output_dim)
    stages = [stage for stage, _ in module.resnet.stage_outputs(x)]
    means = [[[sum(stage[b, c].flatten()) / stage[b, c].numel() for c in range(stage.shape[1])] for stage in stages]
             for b in range(2)]
    assert [len(p) for p in means[0]] == list(WIDTHS)
    expected = torch.stack([torch.stack([value for p in row for value in p]) if kind == "none"
                            else encode_in_loops(kind, row) for row in means])
    torch.testing.assert_close(y[:, 0], expected)
    weights = random(*expected.shape, seed=1)
    parts = [x, *module.parameters()]
    for ours, theirs in zip(torch.autograd.grad((y[:, 0] * weights).sum(), parts, retain_graph=True),
                            torch.autograd.grad((expected * weights).sum(), parts), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["none", "self", "cross"])
def test_padding_changes_nothing(kind):
    module = encoder(attention=kind, masking=False).eval()
    x = random(3, 21, 8).float()
    lengths = torch.tensor([21, 10, 5])
    y, found = module(x, lengths)
    assert found.tolist() == [1, 1, 1]
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(y[row], module(x[row:row + 1, :length])[0][0], atol=1e-5, rtol=1e-5)


def test_the_mask_is_drawn_with_its_learned_probabilities_in_training_only():
    mask = AdaptiveMask(4)
    mask.scaling.data = torch.tensor([0.0, 0.25, 1.0, 1.5])
    p = torch.full((4000, 4), 2.0)
    masked = mask(p)
    assert set(masked.detach().flatten().tolist()) == {0.0, 2.0}
    torch.testing.assert_close((masked == 0).float().mean(0), torch.tensor([0, 0.25, 1, 1]), atol=0.03, rtol=0)
    masked.sum().backward()  # straight through: d/ds of p (1 - s), 0 where s is clamped
    torch.testing.assert_close(mask.scaling.grad, torch.tensor([-8000.0, -8000.0, -8000.0, 0.0]))
    assert mask.eval()(p) is p


def test_masking_multiplies_the_keys_alone():
    module = encoder(masking=True)
    block = module.blocks[0]
    for mask in (block.first_mask, block.second_mask):
        mask.scaling.data.fill_(1.0)  # every key is 0: all scores are equal, and attention is the mean of the values
    first, second = random(2, 3), random(2, 3, seed=1)
    row = random(2, 3, seed=2)
    expected = (row * second.mean(1, keepdim=True)).sum(1, keepdim=True) * first.mean(1, keepdim=True).expand(-1, 3)
    torch.testing.assert_close(block(row, first, second), expected)


def test_masking_without_attention_is_refused():
    with pytest.raises(InputError, match="encoder: masking is true and attention none"):
        encoder(attention="none", masking=True)


def test_the_papers_parameters():
    """15.6 M in all with 1,211 speakers."""
    config = network_config(load_config(CONF / "sc_resnet18_mcsae.yaml"), "x")
    total = sum(parameter.numel() for parameter in Network(config, 64, 1211).parameters())
    assert round(total / 1e6, 1) == 15.6
