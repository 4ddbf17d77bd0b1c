"""Losses over the training speakers against their equations in plain loops."""

import math

import pytest
import torch
from layers_in_loops import random

from nnet.losses import LOSSES
from nnet.losses.softmax import MarginOptions, MarginSoftmax
from utils.config import choose
from utils.errors import InputError


@pytest.mark.parametrize("kind", ["softmax", "a_softmax", "am_softmax", "aam_softmax"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_losses_equal_their_equations(kind, share):
    given = {"softmax": {}, "a_softmax": {"margin": 4}}.get(kind, {"scale": 5.0, "margin": 0.3})
    make, options = choose(LOSSES, {"type": kind, **given}, "loss")
    torch.manual_seed(0)
    module = make(4, 3, options).double()
    module.margin_share = share
    x, labels = random(5, 4).requires_grad_(), torch.tensor([0, 1, 2, 0, 1])
    loss, _ = module(x, labels)
    margin = given.get("margin", 0) * share
    total = 0.0
    for row, label in zip(x, labels.tolist(), strict=True):
        logits = []
        for speaker in range(3):
            if kind == "softmax":
                logits.append(sum(row[i] * module.affine.weight[speaker, i] for i in range(4))
                              + module.affine.bias[speaker])
                continue
            w = module.weight[speaker]
            cosine = sum(row[i] * w[i] for i in range(4)) / row.norm() / w.norm()
            if kind == "a_softmax":
                if speaker == label and share:
                    angle, annealing = torch.acos(cosine), 5 / share
                    k = math.floor(4 * angle.item() / math.pi)
                    cosine = (annealing * cosine + (-1) ** k * torch.cos(4 * angle) - 2 * k) / (1 + annealing)
                logits.append(row.norm() * cosine)
                continue
            if speaker == label:
                cosine = cosine - margin if kind == "am_softmax" else torch.cos(torch.acos(cosine) + margin)
            logits.append(options.scale * cosine)
        total = total - logits[label] + torch.stack(logits).exp().sum().log()
    torch.testing.assert_close(loss, total / 5)
    ours, theirs = torch.autograd.grad(loss, x, retain_graph=True)[0], torch.autograd.grad(total / 5, x)[0]
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", ["am_softmax", "aam_softmax"])
def test_sub_centres_near_speakers_and_smoothing_equal_their_equations(kind):
    given = {"scale": 5.0, "margin": 0.3, "sub_centres": 2, "top_k": 2, "top_k_margin": 0.1, "label_smoothing": 0.2}
    make, options = choose(LOSSES, {"type": kind, **given}, "loss")
    torch.manual_seed(0)
    module = make(4, 5, options).double()
    module.margin_share = 0.5
    x, labels, total = random(6, 4).requires_grad_(), [0, 1, 2, 3, 4, 1], 0.0
    for row, label in zip(x, labels, strict=True):
        cosines = [max(centre @ row / row.norm() / centre.norm() for centre in centres) for centres in module.weight]
        others = sorted((speaker for speaker in range(5) if speaker != label), key=lambda speaker: cosines[speaker])
        moves = {label: 0.15, others[-1]: -0.05, others[-2]: -0.05}
        logits = torch.stack([5 * (cosine - moves.get(speaker, 0) if kind == "am_softmax" else
                                   torch.cos(torch.acos(cosine) + moves.get(speaker, 0)))
                              for speaker, cosine in enumerate(cosines)])
        shares = [0.2 / 5 + 0.8 * (speaker == label) for speaker in range(5)]
        total = total - (torch.tensor(shares) * logits.log_softmax(dim=0)).sum()
    loss, _ = module(x, torch.tensor(labels))
    torch.testing.assert_close(loss, total / 6)
    ours, theirs = torch.autograd.grad(loss, x, retain_graph=True)[0], torch.autograd.grad(total / 6, x)[0]
    torch.testing.assert_close(ours, theirs)
    with pytest.raises(InputError, match="loss: top_k is 2, wanted fewer than the 2 training speakers"):
        make(4, 2, options)


def test_the_angular_margin_keeps_falling_beyond_pi():
    module = MarginSoftmax(3, 2, MarginOptions(type="aam_softmax", margin=0.5))
    module.weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 1]])  # the other speaker's cosine stays 0
    angles = torch.linspace(0.1, math.pi, 50)
    losses = [module(torch.tensor([[math.cos(a), math.sin(a), 0]]), torch.tensor([0]))[0].item() for a in angles]
    assert all(later >= earlier for earlier, later in zip(losses, losses[1:], strict=False))
