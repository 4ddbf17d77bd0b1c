"""Optimisers and learning-rate schedules, each by name with its options."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

import torch
from torch import nn

from utils.config import Count, NotNegative, Positive, Probability, Range, Share, Whole


@dataclass(frozen=True)
class OptimizerOptions:
    """Names as in torch.optim."""

    type: str
    lr: Positive = 1e-4
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True)
class SgdOptions(OptimizerOptions):
    """With momentum."""

    momentum: Probability = 0.9
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov is true and momentum 0; wanted a momentum above 0")


# Fused implementations, which compute the same, where they exist.
OPTIMIZERS = {
    "adam": (partial(torch.optim.Adam, fused=True), OptimizerOptions),
    "adamw": (partial(torch.optim.AdamW, fused=True), OptimizerOptions),
    "radam": (torch.optim.RAdam, OptimizerOptions),
    "sgd": (partial(torch.optim.SGD, fused=True), SgdOptions),
}


def make_optimizer(options: OptimizerOptions, parameters: Sequence[nn.Parameter],
                   slow: Sequence[nn.Parameter] = (), slow_rate: float = 1.0) -> torch.optim.Optimizer:
    """Return the optimiser that the options name.

    slow: those of the parameters that learn at `slow_rate` times the rate; a group's `factor` says so to the training.
    """
    values = dataclasses.asdict(options)
    make, _ = OPTIMIZERS[values.pop("type")]
    apart = {id(parameter) for parameter in slow}
    groups = [{"params": [parameter for parameter in parameters if (id(parameter) in apart) == is_slow],
               "factor": factor} for is_slow, factor in ((False, 1.0), (True, slow_rate))]
    optimizer = make([group for group in groups if group["params"]], **values)
    if values.get("momentum"):  # the fused SGD fails where only some parameters have a buffer, as after head epochs
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter, requires_grad=False)
    return optimizer


@dataclass(frozen=True)
class ScheduleOptions:
    """Options of `constant` and of every schedule: a linear warm-up comes first."""

    type: str
    warmup_steps: Whole = 0
    warmup_epochs: Whole = 0  # instead of warmup_steps
    patience: ClassVar[int] = 0  # epochs without a better validation EER that count as a plateau; 0: no plateaus

    def __post_init__(self) -> None:
        if self.warmup_steps and self.warmup_epochs:
            raise ValueError(f"warmup_steps is {self.warmup_steps} and warmup_epochs {self.warmup_epochs}; leave one "
                             "out")


@dataclass(frozen=True)
class CosineOptions(ScheduleOptions):
    """The rate falls to `final` times its start, on half a cosine."""

    final: Share = 0.001


@dataclass(frozen=True)
class ExponentialOptions(ScheduleOptions):
    """The rate falls to `final` times its start, by the same factor in each step."""

    final: Annotated[float, Range(above=0, most=1)] = 0.001


@dataclass(frozen=True)
class StepOptions(ScheduleOptions):
    """The rate is multiplied by `factor` every `every` epochs."""

    factor: Annotated[float, Range(above=0, below=1)] = 0.1
    every: Count = 10


@dataclass(frozen=True)
class PlateauOptions(ScheduleOptions):
    """The rate is multiplied by `factor` whenever the validation EER has not improved for `patience` epochs."""

    factor: Annotated[float, Range(above=0, below=1)] = 0.1
    patience: Count = 3


def cosine(options: CosineOptions, step: int, steps: int, epochs: int, drops: int) -> float:
    """Return the factor on half a cosine from 1 to `final`."""
    return options.final + (1 - options.final) * (1 + math.cos(math.pi * step / steps)) / 2


# Called with their options and the arguments of `learning_rate`; they return the factor without that of the warm-up.
SCHEDULES = {
    "constant": (lambda options, step, steps, epochs, drops: 1.0, ScheduleOptions),
    "cosine": (cosine, CosineOptions),
    "exponential": (lambda options, step, steps, epochs, drops: options.final ** (step / steps), ExponentialOptions),
    "step": (lambda options, step, steps, epochs, drops: options.factor ** (step * epochs // steps // options.every),
             StepOptions),
    "plateau": (lambda options, step, steps, epochs, drops: options.factor**drops, PlateauOptions),
}


def learning_rate(options: ScheduleOptions, step: int, steps: int, epochs: int = 1, drops: int = 0) -> float:
    """Return the learning rate's factor at a step (from 0) of `steps` in `epochs` epochs, after `drops` plateaus."""
    warmup = options.warmup_steps or options.warmup_epochs * steps // epochs
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    factor, _ = SCHEDULES[options.type]
    return warm * factor(options, step, steps, epochs, drops)
