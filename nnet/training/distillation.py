"""Distillation: trained networks, the teachers, say how alike the chunks of a batch are, and the new one agrees.

After Tung and Mori (ICCV 2019), with cosines in place of their normalised products, and the mean of several teachers.
"""

from pathlib import Path

import torch
from torch import Tensor

from nnet.bundle import check_files, is_bundle
from nnet.config import DistilOptions, NetworkConfig
from nnet.embed import load_network
from utils.errors import InputError
from utils.features.model_features import check_options


class Teachers:
    """The networks of `distil: models`. They do not learn, and are not a part of the new model."""

    def __init__(self, options: DistilOptions, config: NetworkConfig, train: Path, exp: Path,
                 device: torch.device) -> None:
        """config: the new network's; train: its data; exp: its folder.

        Raises InputError if a model is missing or damaged, takes other features, or pools pairs.
        """
        self.networks = []
        for name in options.models:
            folder = exp.parent / name  # an absolute path stays as it is
            if not (folder / "model.safetensors").is_file():
                raise InputError(f"distil: models: no {folder}/model.safetensors; train {name} first")
            if is_bundle(folder):
                check_files(folder)
            network, theirs = load_network(folder)
            check_options(train, theirs.options, folder)
            if theirs.frontend != config.frontend:
                raise InputError(f"distil: models: {folder} has frontend: {theirs.frontend}, this network "
                                 f"{config.frontend}; wanted the same, since both get the same chunks")
            if network.pairwise:
                raise InputError(f"distil: models: {folder} pools pairs of utterances, so one utterance alone has "
                                 "no embedding; name another system")
            self.networks.append(network.to(device).requires_grad_(False))

    @torch.no_grad()
    def similarities(self, x: Tensor) -> Tensor:
        """Return the teachers' cosines between the chunks of a batch, B x B, without masks: the mean over teachers."""
        return torch.stack([network.similarities(x).mean(dim=0) for network in self.networks]).mean(dim=0)
