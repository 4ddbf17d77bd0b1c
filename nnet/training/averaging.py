"""Averages of a network's weights over training, which often verify better than the last weights."""

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from utils.config import Count, Range
from utils.errors import InputError


@dataclass(frozen=True)
class AverageOptions:
    """Options of `none`."""

    type: str


@dataclass(frozen=True)
class MovingOptions(AverageOptions):
    """Each step multiplies the weight of the past by `decay`."""

    decay: Annotated[float, Range(above=0, below=1)] = 0.999


@dataclass(frozen=True)
class EpochsOptions(AverageOptions):
    """The last `epochs` epochs are averaged."""

    epochs: Count = 5


class Average:
    """No average: `network` is the trained one. Subclasses keep an average beside it, with batch-norm statistics."""

    def __init__(self, network: nn.Module, options: AverageOptions, epochs: int, patience: int) -> None:
        """epochs, patience: those of training."""
        self.source = network
        self.model: AveragedModel | None = None

    @property
    def network(self) -> nn.Module:
        """The averaged network; the network itself while there is nothing to average."""
        return self.source if self.model is None or not self.model.n_averaged else self.model.module

    def after_step(self) -> None:
        """Include the weights after a step."""

    def after_epoch(self, epoch: int) -> None:
        """Include the weights at the end of an epoch, counted from 1."""


class MovingAverage(Average):
    """The exponential moving average over all steps."""

    def __init__(self, network: nn.Module, options: MovingOptions, epochs: int, patience: int) -> None:
        super().__init__(network, options, epochs, patience)
        # Not the faster get_ema_multi_avg_fn, which fails on the integers among batch norm's statistics.
        self.model = AveragedModel(network, avg_fn=get_ema_avg_fn(options.decay), use_buffers=True)

    def after_step(self) -> None:
        self.model.update_parameters(self.source)


class EpochsAverage(Average):
    """The mean of the weights at the ends of the last epochs."""

    def __init__(self, network: nn.Module, options: EpochsOptions, epochs: int, patience: int) -> None:
        super().__init__(network, options, epochs, patience)
        if patience:
            raise InputError("average: type epochs needs train.patience 0: the last epochs must be known beforehand")
        self.first_epoch = epochs - options.epochs + 1
        self.model = AveragedModel(network, avg_fn=mean_with, use_buffers=True)

    def after_epoch(self, epoch: int) -> None:
        if epoch >= self.first_epoch:
            self.model.update_parameters(self.source)


def mean_with(mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
    """Return the mean of `count` values and one more; of truth values and counters, as batch norm has, the latest."""
    return mean + (value - mean) / (count + 1) if value.is_floating_point() else value


AVERAGES = {
    "none": (Average, AverageOptions),
    "ema": (MovingAverage, MovingOptions),
    "epochs": (EpochsAverage, EpochsOptions),
}


def make_average(network: nn.Module, options: AverageOptions, epochs: int, patience: int) -> Average:
    """Return the average that the options name; epochs, patience: those of training."""
    kind, _ = AVERAGES[options.type]
    return kind(network, options, epochs, patience)
