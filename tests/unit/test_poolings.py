"""Poolings against their equations in plain loops, and against padding."""

import math

import pytest
import torch
from layers_in_loops import KINDS, PAIRWISE, dot, normalised, random, relu, settle, softmax, vars_of

from nnet.model import make_part
from nnet.poolings import POOLINGS
from utils.errors import InputError

FLOORS = {"floored": 1e-6, "wespeaker": 1e-7, "speechbrain": 1e-12}  # of the variance, by convention


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
