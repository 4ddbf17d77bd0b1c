"""Averages of a network's weights over training, which often verify better than the last weights."""

from dataclasses import dataclass
from typing import Annotated

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_swa_avg_fn

from utils.config import Count, Range
from utils.errors import InputError


@dataclass(frozen=True)
class AverageOptions:
    """Of `none`."""

    type: str


@dataclass(frozen=True)
class MovingOptions(AverageOptions):
    """The past counts `decay` as much with every step."""

    decay: Annotated[float, Range(above=0, below=1)] = 0.999


@dataclass(frozen=True)
class EpochsOptions(AverageOptions):
    """How many epochs, the last ones, count."""

    epochs: Count = 5


class Average:
    """No average: `network` is what is to be used. The others keep theirs beside it, batch-norm statistics included."""

    def __init__(self, network: nn.Module, options: AverageOptions, epochs: int, patience: int) -> None:
        """epochs, patience: how long training goes on."""
        self.source = network
        self.model: AveragedModel | None = None

    @property
    def network(self) -> nn.Module:
        """The averaged network; the network itself while there is nothing to average."""
        return self.source if self.model is None or not self.model.n_averaged else self.model.module

    def after_step(self) -> None:
        """Take in the weights after a step."""

    def after_epoch(self, epoch: int) -> None:
        """Take in the weights at the end of epoch 1, 2, ..."""


class MovingAverage(Average):
    """The exponential moving average over all steps."""

    def __init__(self, network: nn.Module, options: MovingOptions, epochs: int, patience: int) -> None:
        super().__init__(network, options, epochs, patience)
        # Not its faster `multi` kin, which fails on the whole numbers among batch norm's statistics.
        self.model = AveragedModel(network, avg_fn=get_ema_avg_fn(options.decay), use_buffers=True)

    def after_step(self) -> None:
        self.model.update_parameters(self.source)


class EpochsAverage(Average):
    """The mean of the weights at the ends of the last epochs."""

    def __init__(self, network: nn.Module, options: EpochsOptions, epochs: int, patience: int) -> None:
        super().__init__(network, options, epochs, patience)
        if patience:
            raise InputError("average: type epochs needs train.patience 0: which epochs are the last must be known")
        self.first_epoch = epochs - options.epochs + 1
        self.model = AveragedModel(network, avg_fn=get_swa_avg_fn(), use_buffers=True)

    def after_epoch(self, epoch: int) -> None:
        if epoch >= self.first_epoch:
            self.model.update_parameters(self.source)


AVERAGES = {
    "none": (Average, AverageOptions),
    "ema": (MovingAverage, MovingOptions),
    "epochs": (EpochsAverage, EpochsOptions),
}


def make_average(network: nn.Module, options: AverageOptions, epochs: int, patience: int) -> Average:
    """Return the average that the options name; epochs, patience: how long training goes on."""
    kind, _ = AVERAGES[options.type]
    return kind(network, options, epochs, patience)
