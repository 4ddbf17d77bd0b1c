"""Optimisers and learning-rate schedules."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from nnet.config import OptimizerOptions, ScheduleOptions


def make_optimizer(options: OptimizerOptions, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser; fused implementations, which compute the same, where there are any."""
    if options.type == "radam":
        return torch.optim.RAdam(parameters, lr=options.lr, weight_decay=options.weight_decay)
    if options.type == "sgd":
        return torch.optim.SGD(parameters, lr=options.lr, momentum=options.momentum,
                               weight_decay=options.weight_decay, fused=True)
    kind = torch.optim.Adam if options.type == "adam" else torch.optim.AdamW
    return kind(parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True)


def learning_rate(options: ScheduleOptions, step: int, steps: int, epochs: int = 1, drops: int = 0) -> float:
    """Return the factor on the learning rate at a step (from 0) of `steps` in `epochs` epochs, `drops` plateaus on."""
    warm = min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    if options.type == "constant":
        return warm
    if options.type == "step":
        return warm * options.factor ** (step * epochs // steps // options.every)
    if options.type == "plateau":
        return warm * options.factor**drops
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return warm * (options.final + (1 - options.final) * cosine)
