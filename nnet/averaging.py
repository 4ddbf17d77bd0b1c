"""Averages of a network's weights over training, which often verify better than the last weights."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_swa_avg_fn

from nnet.config import AverageOptions
from utils.errors import InputError


class Average:
    """The average beside the network, batch-norm statistics included; `network` is what is to be used."""

    def __init__(self, network: nn.Module, options: AverageOptions, epochs: int, patience: int) -> None:
        self.options, self.source = options, network
        self.first_epoch = epochs - options.epochs + 1
        if options.type == "epochs" and patience:
            raise InputError("average: type epochs needs train.patience 0: which epochs are the last must be known")
        # Not their faster `multi` kin, which fail on the whole numbers among batch norm's statistics.
        average = get_ema_avg_fn(options.decay) if options.type == "ema" else get_swa_avg_fn()
        self.model = None if options.type == "none" else AveragedModel(network, avg_fn=average, use_buffers=True)

    @property
    def network(self) -> nn.Module:
        """The averaged network; the network itself while there is nothing to average."""
        return self.source if self.model is None or not self.model.n_averaged else self.model.module

    def after_step(self) -> None:
        """Take in the weights after a step."""
        if self.options.type == "ema":
            self.model.update_parameters(self.source)

    def after_epoch(self, epoch: int) -> None:
        """Take in the weights at the end of epoch 1, 2, ..."""
        if self.options.type == "epochs" and epoch >= self.first_epoch:
            self.model.update_parameters(self.source)
