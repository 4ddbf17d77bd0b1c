"""Damaged models and odd option values end in one line that names the file or the option."""

import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from nnet.config import network_config
from nnet.embed import load_network
from nnet.training.train import Trainer
from steps.ivector.config import read_ivector_config
from steps.ivector.extractor import Extractor, read_extractor, write_extractor
from steps.ivector.gmm import DiagGmm, FullGmm
from steps.ivector.gmm_files import read_diagonal, read_full, write_diagonal, write_full
from tests.unit.made_up import CONFIG, write_data
from utils.arguments import seed, share
from utils.errors import InputError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    data = write_data(folder / "train", 3, 4, 0), write_data(folder / "valid", 3, 4, 1, trials=True)
    torch.set_num_threads(1)
    config = network_config(CONFIG | {"train": CONFIG["train"] | {"epochs": 1}}, "x")
    Trainer(config, *data, folder / "exp", torch.device("cpu"), seed=1).run()
    return folder / "exp"


def cut(content: bytes) -> bytes:
    return content[:len(content) // 2]


def emptied(content: bytes) -> bytes:
    return b""


def pickled(content: bytes) -> bytes:
    return pickle.dumps({"encoder": np.ones(9)})


def other(content: bytes) -> bytes:
    return np.random.default_rng(0).bytes(len(content))


@pytest.fixture
def model(trained, tmp_path):
    for name in ("model.safetensors", "config.yaml"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    load_network(tmp_path)
    return tmp_path


@pytest.mark.parametrize("damage", [cut, emptied, pickled, other])
def test_damaged_weights_are_refused(model, damage):
    path = model / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"model\.safetensors: damaged or not safetensors: .*; train the") as error:
        load_network(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [emptied, pickled, other])
def test_damaged_configurations_are_refused(model, damage):
    path = model / "config.yaml"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"config\.yaml: ") as error:
        load_network(model)
    assert "\n" not in str(error.value)


def test_a_configuration_cut_short_is_refused_wherever_it_is_cut(model):
    """Wherever it is cut, keys that training wrote are missing."""
    whole = (model / "config.yaml").read_text()
    end = whole.index("\nfeature_options: null\n")  # the last key: without it, and so the default, all is there
    for place in (*range(0, end, 7), end - 1):
        (model / "config.yaml").write_text(whole[:place])
        with pytest.raises(InputError):
            load_network(model)


@pytest.mark.parametrize(("change", "message"), [
    ({"encoder": {"type": "tdnn", "channels": [16, 16, 16, 16, 32]}},
     r"encoder.layers.4.\S+ is \[24(, 16)?\] in model.safetensors, \[32(, 16)?\] in config.yaml; they are from two"),
    ({"pooling": {"type": "multi_head", "heads": 2}}, "is missing in model.safetensors, .* in config.yaml"),
    ({"speakers": 2**30}, r"loss.weight is \[3, 12\] in model.safetensors, \[1073741824, 12\] in config.yaml"),
    ({"speakers": -3}, "speakers is -3; wanted at least 1"),
    ({"speakers": None}, "was not written by training: no feature_dim and speakers"),
    ({"feature_options": 3}, "feature_options: 3 is not of type dict"),
])
def test_models_of_another_architecture_are_refused(model, change, message):
    config = yaml.safe_load((model / "config.yaml").read_text()) | change
    (model / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=message):
        load_network(model)


def test_a_vgg_that_listed_the_bands_first_is_refused(trained, tmp_path):
    """Its weights have the same shapes, but mean other things."""
    changes = {"encoder": {"type": "vgg", "channels": [4]}, "train": CONFIG["train"] | {"epochs": 1}}
    data = trained.parent / "train", trained.parent / "valid"
    Trainer(network_config(CONFIG | changes, "x"), *data, tmp_path / "exp", torch.device("cpu"), seed=1).run()
    load_network(tmp_path / "exp")
    weights = load_file(tmp_path / "exp/model.safetensors")
    assert weights.pop("encoder.channels_first")
    save_file(weights, tmp_path / "exp/model.safetensors")
    with pytest.raises(InputError, match="encoder.channels_first is missing in model.safetensors, .*; train again"):
        load_network(tmp_path / "exp")


def test_weights_that_are_not_numbers_are_refused(model):
    weights = load_file(model / "model.safetensors")
    name = next(name for name, value in weights.items() if value.is_floating_point())
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, model / "model.safetensors")
    with pytest.raises(InputError, match=f"{re.escape(name)} has NaN or infinite values; train the model again"):
        load_network(model)


GMM = DiagGmm(torch.full((2,), 0.5), torch.randn(2, 3), torch.ones(2, 3))
FULL = FullGmm(torch.full((2,), 0.5), torch.randn(2, 3), torch.eye(3).repeat(2, 1, 1))
SYSTEM = "kind: ivector\nfeatures: f\nubm: {num_gaussians: 2}\nextractor: {dim: 2}"
IE = Extractor(torch.randn(2, 3, 2).double(), torch.eye(3).double().repeat(2, 1, 1), 10.0, torch.ones(2).double())


@pytest.mark.parametrize("damage", [cut, emptied, pickled, other])
@pytest.mark.parametrize(("name", "write", "read"), [
    ("final.dubm", lambda path: write_diagonal(path, GMM), read_diagonal),
    ("final.ubm", lambda path: write_full(path, FULL), read_full),
    ("final.ie", lambda path: write_extractor(path, IE), read_extractor),
    ("system.yaml", lambda path: path.write_text(SYSTEM), read_ivector_config)])
def test_damaged_ivector_models_are_refused(tmp_path, name, write, read, damage):
    path = tmp_path / name
    write(path)
    read(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=re.escape(name)) as error:
        read(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["-1", "1e3", "", "9999999999", "١", "99999999999999999999999", "nan"])
def test_seeds_that_some_generator_would_not_take_are_refused(text):
    with pytest.raises(InputError, match=f"--seed is {text!r}, wanted a whole number from 0 to 999999999"):
        seed(text)
    assert seed("999999999") == 999_999_999


@pytest.mark.parametrize("text", ["nan", "inf", "-0.1", "1.01", "half", ""])
def test_shares_that_are_none_are_refused(text):
    with pytest.raises(InputError, match=f"--max-missing is {text!r}, wanted a share from 0 to 1"):
        share("--max-missing")(text)
    assert share("--max-missing")("0.25") == 0.25


@pytest.mark.parametrize("words", [
    ["nnet.training.train", "--seed", "-1", "x", "x", "x", "x"],
    ["steps.ivector.train_ubm", "--seed", "-1", "x", "x", "x"],
    ["local.prepare_voxceleb", "--max-missing", "nan", "x"],
    ["steps.feat.collect_feats", "--max-failed", "nan", "x", "x"],
])
def test_programs_say_so_in_one_line(words):
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rf"{words[0]}: error: {words[1]} is '{words[2]}', wanted [^\n]*\n", done.stderr)
