"""Encoders against their equations in plain loops, and against padding."""

import math

import pytest
import torch
from layers_in_loops import KINDS, PAIRWISE, dot, normalised, random, relu, settle, softmax, vars_of

from nnet.encoders import ENCODERS
from nnet.model import make_part
from nnet.poolings import POOLINGS
from utils.errors import InputError


def small(encoder):
    thin = {"type": "resnet", "channels": [4, 6], "blocks": [1, 2], "strides": [1, 2]}
    mapping = {"tdnn": {"type": "tdnn", "channels": [8, 8, 8, 8, 12]}, "vgg": {"type": "vgg", "channels": [4, 6]},
               "resnet": thin, "se": thin | {"stem": 7, "stem_stride": [1, 2], "squeeze": 2, "frequency": "mean",
                             "relu_first": True},
               "saep": {"type": "saep", "d_k": 8, "d_ff": 12},
               "ecapa": {"type": "ecapa", "channels": 8, "groups": 4, "squeeze": 3, "output": 12},
               "mirrored": {"type": "ecapa", "channels": 8, "groups": 4, "squeeze": 3, "output": 12,
                            "padding": "reflect", "output_norm": True},
               "last": thin | {"stem_stride": [2, 3], "frequency": "convolution"}}
    mapping["beside"] = {"type": "side_by_side", "encoders": [mapping["tdnn"], mapping["vgg"], thin]}
    return make_part(ENCODERS, "encoder", mapping[encoder], 16)


SMALL = ("tdnn", "vgg", "resnet", "se", "last", "saep", "ecapa", "mirrored", "beside")


@pytest.mark.parametrize("encoder", SMALL)
def test_encoders_give_each_utterance_of_a_padded_batch_what_it_gets_alone(encoder):
    module = small(encoder).eval()
    for parameter in module.parameters():  # batch norm's mean and bias must not leak in from beyond the end
        torch.nn.init.normal_(parameter, std=0.3)
    x = random(3, 41, 16).float()
    lengths = torch.tensor([41, 30, 17])
    h, found = module(x, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, _ = module(x[row:row + 1, :length])
        assert alone.shape[1] == found[row]
        torch.testing.assert_close(h[row, :found[row]], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", [*KINDS, PAIRWISE], ids=str)
@pytest.mark.parametrize("encoder", SMALL)
def test_every_pooling_stands_on_every_encoder(encoder, kind):
    frames = small(encoder).eval()
    if frames.output_dim % kind.get("heads", 1):
        kind = kind | {"heads": 2}
    if frames.output_dim % kind.get("layers", 1):
        kind = kind | {"layers": 2}
    pooling = make_part(POOLINGS, "pooling", kind, frames.output_dim).eval()
    x, lengths = random(2, 37, 16).float(), torch.tensor([37, 19])
    pooled = pooling(*frames(x, lengths))
    assert pooled.shape == (2, pooling.output_dim)
    torch.testing.assert_close(pooled[1:], pooling(*frames(x[1:, :19])), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", SMALL)
def test_receptive_field_is_the_shortest_utterance_and_each_stride_gives_a_frame(encoder):
    module = small(encoder).eval()
    frames, _ = module(torch.zeros(1, module.receptive_field, 16))
    assert frames.shape[1] == (5 if encoder == "mirrored" else 1)  # more than the 4 frames to be mirrored
    longer, _ = module(torch.zeros(1, module.receptive_field + 3 * module.stride, 16))
    assert longer.shape[1] == frames.shape[1] + 3


def test_residual_encoders_have_the_papers_sizes():
    """40 bands: Fast ResNet-34 has 1.4 M parameters with its dense layer (512), 1 x T/4 x 128 after the mean."""
    fast = make_part(ENCODERS, "encoder", {
        "type": "resnet", "stem": 7, "stem_stride": [1, 2], "channels": [16, 32, 64, 128], "strides": [1, 2, 2, 1],
        "squeeze": 8, "relu_first": True, "frequency": "mean"}, 40)
    assert fast.output_dim == 128
    assert fast.receptive_field == 4
    assert 1.35e6 < sum(p.numel() for p in fast.parameters()) + 129 * 512 < 1.45e6
    folded = {"type": "resnet", "band_strides": [2, 2, 2, 2], "frequency": "convolution"}
    wide = make_part(ENCODERS, "encoder", folded, 40)
    assert wide.output_dim == 512
    frames, _ = wide.eval()(torch.zeros(1, 80, 40))
    assert frames.shape == (1, 10, 512)
    with pytest.raises(InputError, match="5 of 40 bands remain; frequency: convolution takes 3"):
        make_part(ENCODERS, "encoder", folded | {"band_strides": []}, 40)
    with pytest.raises(InputError, match="1 band_strides and 4 strides"):
        make_part(ENCODERS, "encoder", folded | {"band_strides": [2]}, 40)
    with pytest.raises(InputError, match="3 blocks"):
        make_part(ENCODERS, "encoder", {"type": "resnet", "blocks": [3, 4, 6]}, 80)


def test_ecapas_res2_block_equals_its_definition():
    module = small("ecapa").double().eval()
    block = module.blocks[1]  # dilation 3
    settle(block)
    x = random(1, 8, 11)

    def layer(part, x, dilation=0):
        """ReLU of a convolution of kernel 1, or 3 with the dilation, then batch norm; x: channels x T."""
        w, b, norm = part.convolution.weight, part.convolution.bias, part.norm
        out = torch.zeros(len(b), x.shape[1], dtype=torch.float64)
        for c in range(len(b)):
            for t in range(x.shape[1]):
                total = b[c]
                for k in range(w.shape[2]):
                    at = t + (k - w.shape[2] // 2) * dilation
                    if 0 <= at < x.shape[1]:
                        total = total + dot(w[c, :, k], x[:, at])
                out[c, t] = normalised(relu(total), norm, c)
        return out

    groups = layer(block.first, x[0]).chunk(4)
    found = [groups[0], layer(block.parts[0], groups[1], 3)]
    for number in (2, 3):
        found.append(layer(block.parts[number - 1], groups[number] + found[-1], 3))
    y = layer(block.last, torch.cat(found))
    scale = block.weigh(y.mean(1))
    weights = torch.full((1, 11), 1 / 11, dtype=torch.float64)
    torch.testing.assert_close(block(x, None, weights)[0], x[0] + y * scale[:, None])


def test_self_attention_encoder_equals_its_equations():
    module = make_part(ENCODERS, "encoder", {"type": "saep", "blocks": 1, "d_k": 3, "d_ff": 5}, 4).double().eval()
    block = module.blocks[0]
    x = random(1, 6, 4)
    q, k, v = (layer(x[0]) for layer in (block.query, block.key, block.value))
    for t in range(6):
        weights = torch.stack(softmax([dot(q[t], k[s]) / math.sqrt(3) for s in range(6)]))
        attended = torch.stack([sum(weights[s] * v[s, i] for s in range(6)) for i in range(3)])
        y = torch.nn.functional.layer_norm(x[0, t] + block.output(attended), (4,), *vars_of(block.attention_norm))
        hidden = block.feed_forward[0](y).clamp_min(0)
        z = torch.nn.functional.layer_norm(y + block.feed_forward[2](hidden), (4,), *vars_of(block.feed_forward_norm))
        torch.testing.assert_close(module(x)[0][0, t], z)


def test_tdnn_layer_sees_the_frames_of_its_context():
    module = small("tdnn").eval()
    x = random(1, 40, 16).float()
    before, _ = module(x)
    for frame in (0, 19, 39):
        changed = x.clone()
        changed[0, frame] += 10
        different = torch.nonzero((module(changed)[0] - before).abs().amax(2)[0]).flatten()
        # offsets -2..2, {-2,0,2}, {-3,0,3}: frame t of the output sees t .. t + 14 of the input
        assert different.min() >= frame - 14
        assert different.max() <= frame
