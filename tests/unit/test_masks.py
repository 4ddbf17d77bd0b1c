"""SpecAugment: where masks lie, and that the network's frames have them."""

import numpy as np
import torch
from made_up import CONFIG

from nnet.config import network_config
from nnet.model import Network
from nnet.training.masks import draw_spans, mask


def test_masks_lie_within_the_chunk_and_have_every_width():
    rng = np.random.default_rng(0)
    spans = np.array([draw_spans(rng, (4, 2), (30, 10)) for _ in range(3000)])
    widths = spans[:, :, 1] - spans[:, :, 0]
    for axis, (widest, size) in enumerate(((4, 30), (2, 10))):
        assert set(widths[:, axis]) == set(range(widest + 1))
        assert spans[:, axis, 0].min() == 0 and spans[:, axis, 1].max() == size
    assert draw_spans(rng, (9, 9), (3, 2))[1][1] <= 2  # a chunk that is smaller than the widest mask
    before = rng.bit_generator.state
    assert draw_spans(rng, (0, 0), (30, 10)) == [(0, 0), (0, 0)]
    assert rng.bit_generator.state == before


def test_the_network_sees_masked_frames():
    x = torch.randn(4, 30, 10)
    spans = torch.tensor([[[3, 7], [0, 2]], [[0, 0], [4, 5]], [[29, 30], [10, 10]], [[0, 30], [0, 0]]])
    wanted = x.clone()
    for row, ((start, stop), (low, high)) in enumerate(spans.tolist()):
        wanted[row, start:stop] = 0
        wanted[row, :, low:high] = 0
    assert torch.equal(mask(x, spans), wanted)
    torch.manual_seed(0)
    network, labels = Network(network_config(CONFIG, "x"), 10, 3).eval(), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        masked, alike, plain = (network(*given)[0] for given in ((x, labels, spans), (wanted, labels), (x, labels)))
    assert masked == alike != plain
