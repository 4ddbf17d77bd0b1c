"""Poolings, losses and encoders against their equations in plain loops, and against padding."""

import math

import pytest
import torch

from nnet.encoders import ENCODERS
from nnet.losses import LOSSES
from nnet.losses.softmax import MarginOptions, MarginSoftmax
from nnet.model import make_part
from nnet.poolings import POOLINGS
from utils.config import choose
from utils.errors import InputError

KINDS = [{"type": "temporal"}, {"type": "statistics"}, {"type": "statistics", "deviation": "wespeaker"},
         {"type": "multi_head", "heads": 1},
         {"type": "multi_head", "heads": 3}, {"type": "multi_head", "heads": 2, "scaled": True},
         {"type": "self_attentive"}, {"type": "self_attentive", "hidden": False}, {"type": "attentive_statistics"},
         {"type": "channel_attentive_statistics", "hidden": 4},
         {"type": "channel_attentive_statistics", "hidden": 3, "context": False, "deviation": "wespeaker"},
         {"type": "channel_attentive_statistics", "hidden": 3, "norm": True, "deviation": "speechbrain"},
         {"type": "channel_attentive_statistics", "hidden": 3, "deviation": "wespeaker"},
         {"type": "multi_head_mlp", "heads": 2},
         {"type": "global_multi_head", "heads": 3},
         {"type": "global_multi_head", "heads": 5, "resolutions": True},
         {"type": "global_multi_head", "heads": 2, "shared": True},
         {"type": "double_multi_head", "heads": 3, "mask": 0.0},
         {"type": "double_multi_head", "heads": 3, "mask": 0.0, "scaled": True},
         {"type": "multi_head_factorised", "layers": 2, "heads": 3, "dim": 2},
         {"type": "multi_head_factorised", "layers": 3, "heads": 2, "dim": 3, "context": 1},
         {"type": "side_by_side", "poolings": [{"type": "multi_head", "heads": 2}, {"type": "statistics"}]}]
PAIRWISE = {"type": "cross_attentive"}
FLOORS = {"floored": 1e-6, "wespeaker": 1e-7, "speechbrain": 1e-12}  # of the variance, by convention


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def settle(module):
    """Give batch norm's layers means, variances, factors and offsets; return the module, ready to embed."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            size = len(part.running_mean)
            part.running_mean.copy_(random(size))
            part.running_var.copy_(random(size, seed=1).square() + 0.1)
            part.weight.data.copy_(random(size, seed=2))
            part.bias.data.copy_(random(size, seed=3))
    return module.eval()


def normalised(value, norm, channel):
    """Batch norm of one value of a channel."""
    scale = norm.weight[channel] / (norm.running_var[channel] + norm.eps).sqrt()
    return (value - norm.running_mean[channel]) * scale + norm.bias[channel]


def softmax(scores):
    total = sum(score.exp() for score in scores)
    return [score.exp() / total for score in scores]


def dot(a, b):
    return sum(a[i] * b[i] for i in range(len(a)))


def relu(value):
    return value if value > 0 else 0 * value


def attention_in_loops(kind, h, module):
    """The attention poolings except multi_head, by their equations."""
    frames, dim = h.shape
    name, heads = kind["type"], kind.get("heads", 1)
    size = dim // heads
    if name == "self_attentive":
        hidden = h
        if kind.get("hidden", True):
            w, b = module.hidden[0].weight, module.hidden[0].bias
            hidden = [torch.stack([(dot(w[i], h[t]) + b[i]).tanh() for i in range(dim)]) for t in range(frames)]
        weights = softmax([dot(hidden[t], module.mu) for t in range(frames)])
        return torch.stack([sum(weights[t] * h[t, i] for t in range(frames)) for i in range(dim)])
    if name in ("attentive_statistics", "global_multi_head"):
        every_w, every_g = module.score.w.weight, module.score.w.bias
        v, b = (module.score.v, module.score.b) if hasattr(module.score, "b") else vars_of(module.score.v)
        out = []
        for j in range(heads):
            first = j * dim if len(every_w) > dim else 0  # of W_j; shared: always of the one W
            w, g = every_w[first:first + dim], every_g[first:first + dim]
            temperature = max(1, 5 * (j // 2)) if kind.get("resolutions") else 1
            scores = [dot(v[j], [relu(dot(w[i], h[t]) + g[i]) for i in range(dim)]) + b[j] for t in range(frames)]
            weights = softmax([score / temperature for score in scores])
            out += [sum(weights[t] * h[t, i] for t in range(frames)) for i in range(dim)]
            if name == "attentive_statistics":
                variances = [sum(weights[t] * (h[t, i] - out[i]) ** 2 for t in range(frames)) for i in range(dim)]
                out += [variance.clamp_min(1e-6).sqrt() for variance in variances]
        return torch.stack(out)
    if name == "channel_attentive_statistics":
        mean, deviation = pool_in_loops(kind | {"type": "statistics"}, h, None).chunk(2)
        w, g, v, b = module.w.weight, module.w.bias, module.v.weight, module.v.bias
        seen = [[*h[t], *mean, *deviation] if kind.get("context", True) else h[t] for t in range(frames)]
        hidden = [[dot(seen[t], w[i]) + g[i] for i in range(len(g))] for t in range(frames)]
        if kind.get("norm"):
            hidden = [[normalised(relu(value), module.norm, i) for i, value in enumerate(row)] for row in hidden]
        hidden = [[value.tanh() for value in row] for row in hidden]
        means, deviations = [], []
        for c in range(dim):
            weights = softmax([dot(hidden[t], v[c]) + b[c] for t in range(frames)])
            means.append(sum(weights[t] * h[t, c] for t in range(frames)))
            variance = sum(weights[t] * (h[t, c] - means[c]) ** 2 for t in range(frames))
            deviations.append(variance.clamp_min(FLOORS[kind.get("deviation", "floored")]).sqrt())
        return torch.stack(means + deviations)
    if name == "multi_head_factorised":
        return factorised_in_loops(kind, h, module)
    vectors = []
    for j in range(heads):
        parts = [h[t, j * size:(j + 1) * size] for t in range(frames)]
        if name == "multi_head_mlp":
            scores = [dot(module.v[j], [relu(dot(module.w[j, i], part) + module.g[j, i]) for i in range(size)])
                      + module.b[j] for part in parts]
        else:
            scores = [dot(part, module.u[j]) / (math.sqrt(heads) if kind.get("scaled") else 1) for part in parts]
        weights = softmax(scores)
        vectors.append([sum(weights[t] * parts[t][i] for t in range(frames)) for i in range(size)])
    if name == "multi_head_mlp":
        return torch.stack([value for vector in vectors for value in vector])
    weights = softmax([dot(vector, module.u_heads) for vector in vectors])
    return torch.stack([sum(weights[j] * vectors[j][i] for j in range(heads)) for i in range(size)])


def factorised_in_loops(kind, h, module):
    """Multi-head factorised attention: keys and values from layers that lie side by side in a frame."""
    frames, layers, size = len(h), kind["layers"], h.shape[1] // kind["layers"]

    def projected(layer_weights, linear):
        shares = softmax(list(layer_weights))
        sums = [[sum(shares[n] * frame[n * size + i] for n in range(layers)) for i in range(size)] for frame in h]
        return [[dot(linear.weight[c], sums[t]) + linear.bias[c] for c in range(kind["dim"])] for t in range(frames)]

    keys, values = projected(module.key_layers, module.key), projected(module.value_layers, module.value)
    reach, out = kind.get("context", 0), []
    for j in range(kind["heads"]):
        scores = [module.query.bias[j] + sum(dot(module.query.weight[j, :, i + reach], keys[t + i])
                                             for i in range(-reach, reach + 1) if 0 <= t + i < frames)
                  for t in range(frames)]
        weights = softmax(scores)
        out += [sum(weights[t] * values[t][c] for t in range(frames)) for c in range(kind["dim"])]
    return torch.stack(out)


def deviation_in_loops(kind, square, frames):
    """The standard deviation of values whose squared distances from their mean have the sum `square`."""
    convention = kind.get("deviation", "floored")
    if convention == "wespeaker":
        return (square / max(frames - 1, 1) + 1e-7).sqrt()
    return (square / frames).clamp_min(FLOORS[convention]).sqrt()


def pool_in_loops(kind, h, module):
    """Pool the frames (T x d, a list of lists of scalars) of one utterance by the equation."""
    frames, dim = h.shape
    if kind["type"] == "side_by_side":
        return torch.cat([pool_in_loops(one, h, part)
                          for one, part in zip(kind["poolings"], module.poolings, strict=True)])
    if kind["type"] not in ("temporal", "statistics", "multi_head"):
        return attention_in_loops(kind, h, module)
    if kind["type"] != "multi_head":
        mean = [sum(h[t, i] for t in range(frames)) / frames for i in range(dim)]
        if kind["type"] == "temporal":
            return torch.stack(mean)
        squares = [sum((h[t, i] - mean[i]) ** 2 for t in range(frames)) for i in range(dim)]
        return torch.stack(mean + [deviation_in_loops(kind, square, frames) for square in squares])
    heads = kind["heads"]
    size = dim // heads
    out = []
    for j in range(heads):
        scores = [sum(h[t, j * size + i] * module.u[j, i] for i in range(size)) for t in range(frames)]
        if kind.get("scaled"):
            scores = [score / math.sqrt(heads) for score in scores]
        total = sum(score.exp() for score in scores)
        weights = [score.exp() / total for score in scores]
        out += [sum(weights[t] * h[t, j * size + i] for t in range(frames)) for i in range(size)]
    return torch.stack(out)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_poolings_equal_their_equations(kind, frames):
    module = settle(make_part(POOLINGS, "pooling", kind, 6).double())
    h = random(2, frames, 6).requires_grad_()
    pooled = module(h)
    assert pooled.shape == (2, module.output_dim)
    weights = random(*pooled.shape, seed=1)
    gradients = torch.autograd.grad((pooled * weights).sum(), [h, *module.parameters()])
    expected = torch.stack([pool_in_loops(kind, utterance, module) for utterance in h])
    torch.testing.assert_close(pooled, expected)
    for ours, theirs in zip(gradients, torch.autograd.grad((expected * weights).sum(), [h, *module.parameters()]),
                            strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("convention", FLOORS)
@pytest.mark.parametrize("kind", ["statistics", "channel_attentive_statistics"])
def test_the_deviation_of_constant_frames_is_that_of_the_convention(kind, convention):
    module = make_part(POOLINGS, "pooling", {"type": kind, "deviation": convention}, 3).double()
    deviation = module(torch.ones(1, 4, 3, dtype=torch.float64))[:, 3:]
    torch.testing.assert_close(deviation, torch.full_like(deviation, FLOORS[convention] ** 0.5))


@pytest.mark.parametrize("kind", [*KINDS, PAIRWISE], ids=str)
def test_poolings_ignore_padding(kind):
    module = make_part(POOLINGS, "pooling", kind, 12).eval()
    h = random(3, 9, 12).float()
    lengths = torch.tensor([9, 4, 1])
    pooled = module(h, lengths)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(pooled[row], module(h[row:row + 1, :length])[0], atol=1e-5, rtol=1e-5)
    h[1, 4:] = 1e3  # any values
    torch.testing.assert_close(module(h, lengths), pooled)


def test_head_weights_sum_to_one_over_the_frames():
    module = make_part(POOLINGS, "pooling", {"type": "multi_head", "heads": 4}, 8)
    weights = module.weights(random(2, 5, 8).float(), torch.tensor([5, 3]))
    assert weights.shape == (2, 5, 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4))
    assert (weights[1, 3:] == 0).all()
    assert sum(p.numel() for p in module.parameters()) == 8  # d, for any K


def test_masked_heads_do_not_count_and_some_head_always_does():
    module = make_part(POOLINGS, "pooling", {"type": "double_multi_head", "heads": 4, "mask": 0.9}, 8)
    h = random(200, 3, 8).float()
    alone = torch.stack([(module.weights(h)[:, :, j, None] * h.unflatten(2, (4, 2))[:, :, j]).sum(1) for j in range(4)])
    torch.manual_seed(0)
    pooled = module(h)
    assert torch.isfinite(pooled).all()
    one_head = torch.isclose(pooled, alone, atol=1e-5).all(2).any(0)  # the result of one head alone
    assert 0.2 < one_head.float().mean() < 0.9
    module.eval()
    torch.testing.assert_close(module(h), module(h))


def test_resolutions_flatten_the_weights_of_later_heads():
    module = make_part(POOLINGS, "pooling", {"type": "global_multi_head", "heads": 6, "resolutions": True}, 8)
    assert module.temperatures.tolist() == [1, 1, 5, 5, 10, 10]
    with torch.no_grad():  # the same scores for all heads
        module.score.w.weight[:] = module.score.w.weight[:8].repeat(6, 1)
        module.score.w.bias[:] = module.score.w.bias[:8].repeat(6)
        module.score.v[:] = module.score.v[0]
        module.score.b[:] = 0
    weights = module.weights(3 * random(4, 30, 8).float())
    entropy = -(weights * weights.log()).sum(1).mean(0)
    assert entropy[0] < entropy[2] < entropy[4] < math.log(30)
    assert "temperatures" not in module.state_dict()


@pytest.mark.parametrize(("heads", "scores"), [(4, 1_052_676), (5, 1_315_845), (6, 1_579_014)])
def test_every_global_head_has_scores_of_its_own(heads, scores):
    module = make_part(POOLINGS, "pooling", {"type": "global_multi_head", "heads": heads}, 512)
    assert sum(p.numel() for p in module.parameters()) == scores  # K d (d + 2) + K
    shared = make_part(POOLINGS, "pooling", {"type": "global_multi_head", "heads": heads, "shared": True}, 512)
    assert sum(p.numel() for p in shared.parameters()) == 512 * 513 + heads * 513


def test_heads_must_divide_the_width():
    with pytest.raises(InputError, match=r"heads is 5, which does not divide .* width 8; allowed: 1, 2, 4, 8"):
        make_part(POOLINGS, "pooling", {"type": "multi_head", "heads": 5}, 8)
    with pytest.raises(InputError, match="pooling: type is 'max'; allowed: temporal, statistics, multi_head, "):
        make_part(POOLINGS, "pooling", {"type": "max"}, 8)
    with pytest.raises(InputError, match="pooling: multi_head has no option 'head'; allowed: type, heads, scaled"):
        make_part(POOLINGS, "pooling", {"type": "multi_head", "head": 2}, 8)


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


def vars_of(norm):
    return norm.weight, norm.bias


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
