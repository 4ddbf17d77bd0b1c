"""Short trainings on made-up features, which tests kill and compare."""

import pytest
import torch
from made_up import CONFIG, write_data
from safetensors.torch import load_file

from nnet.config import network_config
from nnet.training.train import Trainer

CPU = torch.device("cpu")
SHORT = CONFIG | {"train": CONFIG["train"] | {"epochs": 3}}  # 3 epochs of 7 steps


def changed(**changes):
    """SHORT with changes; mappings are merged."""
    merged = {key: SHORT.get(key, {}) | value if isinstance(value, dict) else value for key, value in changes.items()}
    return SHORT | merged


def make_corpus(folder):
    return write_data(folder / "train", 6, 10, 0), write_data(folder / "valid", 3, 6, 1, trials=True)


def trainer(corpus, exp, config=SHORT):
    torch.set_num_threads(1)
    return Trainer(network_config(config, "x"), *corpus, exp, CPU, seed=1)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(ours, theirs):
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Killed(Exception):
    pass


def kill(killed, place):
    """Run a training that ends before a step, in the validation after the second epoch, or before it writes."""
    step, validate = killed.train_step, killed.validation.eer

    def train_step(number, batch):
        if number == place:
            raise Killed
        return step(number, batch)

    def eer(network, device):
        if place == "validation" and killed.step == 14:
            raise Killed
        return validate(network, device)

    def finish():
        raise Killed

    killed.train_step, killed.validation.eer = train_step, eer
    if place == "finish":
        killed.finish = finish
    with pytest.raises(Killed):
        killed.run()
