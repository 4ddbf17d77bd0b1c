"""What the tests of poolings, losses and encoders share: random numbers, and small equations in plain loops."""

import torch

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


def vars_of(layer):
    return layer.weight, layer.bias
