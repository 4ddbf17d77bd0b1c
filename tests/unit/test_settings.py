"""Keys of configurations on the command line (--set): which systems they change, and what is refused."""

from pathlib import Path

import pytest
import yaml

from steps.systems import main
from utils.errors import InputError
from utils.settings import parse_settings

CONF = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf"


@pytest.fixture
def resolve(tmp_path, monkeypatch):
    """Resolve systems with the value of --set; returns their configurations."""
    def call(settings, *systems):
        monkeypatch.setattr("sys.argv", ["systems", "--scale", "mini", "--conf", str(CONF), "--exp", str(tmp_path),
                                         "--set", settings, *systems])
        main()
        return [yaml.safe_load((tmp_path / name / "system.yaml").read_text()) for name in systems]
    return call


def test_a_value_is_yaml_and_ends_where_the_next_key_begins():
    assert parse_settings("") == parse_settings("  ") == {}
    assert parse_settings(" train.epochs=20  encoder.channels=[4, 4, 8]\tfeatures=fbank80 train.epochs=30") == {
        "train.epochs": 30, "encoder.channels": [4, 4, 8], "features": "fbank80"}
    for text, wrong in (("x", "'x'"), ("train.epochs 20", "'train.epochs'"), ("=3", "'=3'"), ("20 a=1", "'20'")):
        with pytest.raises(InputError, match=f"--set: {wrong} is not key=value; wanted for example train.epochs=20"):
            parse_settings(text)
    with pytest.raises(InputError, match="--set a: line 1: "):
        parse_settings("a=[1")


def test_settings_change_the_systems_that_have_the_key_and_nothing_else(resolve, capsys):
    plain = resolve("", "ivector", "xvector", "vgg_mha")
    ivector, xvector, vgg = resolve("train.epochs=7 pooling.heads=4 ubm.num_gaussians=64 optimizer.lr=1e-3 "
                                    "backend.plda=[center, plda]", "ivector", "xvector", "vgg_mha")
    for config, before, keys in zip((ivector, xvector, vgg), plain, (
            {"ubm"}, {"train", "optimizer"}, {"train", "optimizer", "pooling"}), strict=True):
        assert {key for key in config if config[key] != before[key]} == keys | {"backend"}
        assert config["backend"] == before["backend"] | {"plda": ["center", "plda"]}
    assert xvector["train"] == plain[1]["train"] | {"epochs": 7} and vgg["train"]["epochs"] == 7
    assert vgg["pooling"] == {"type": "multi_head", "heads": 4} and ivector["ubm"]["num_gaussians"] == 64
    told = capsys.readouterr().err
    assert "--set pooling.heads changes vgg_mha only; the other systems have no such key\n" in told
    assert "train.epochs changes xvector vgg_mha only" in told and "backend" not in told


def test_picked_epochs_are_not_for_a_second_stage(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["systems", "--scale", "mini", "--conf", str(CONF), "--exp", str(tmp_path),
                                     "--picked", "train.epochs=33", "xvector", "xvector_lm"])
    main()
    first, second = (yaml.safe_load((tmp_path / name / "system.yaml").read_text())["train"]["epochs"]
                     for name in ("xvector", "xvector_lm"))
    assert first == 33 and second == 3


def test_a_key_that_a_network_does_not_have_ends_the_recipe_before_it_begins(tmp_path, monkeypatch):
    conf = tmp_path / "conf"
    (conf / "features").mkdir(parents=True)
    (conf / "features/fbank80.conf").write_bytes((CONF / "features/fbank80.conf").read_bytes())
    plain = yaml.safe_load((CONF / "xvector.yaml").read_text()) | {"features": "fbank80"}
    words = ["systems", "--scale", "full", "--conf", str(conf), "--exp", str(tmp_path), "x"]
    for wrong, message in (({"pooling": {"type": "multi_head", "head": 8}}, "head"),
                           ({"optimizer": {"lrate": 1}}, "lrate")):
        (conf / "x.yaml").write_text(yaml.safe_dump(plain | wrong))
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(InputError, match=f"x.yaml.*'{message}'"):
            main()
    assert not (tmp_path / "x").exists()


def test_a_type_brings_its_own_keys(resolve):
    xvector, = resolve("pooling.type=multi_head pooling.heads=5 loss.type=softmax", "xvector")
    assert xvector["pooling"] == {"type": "multi_head", "heads": 5} and xvector["loss"] == {"type": "softmax"}
    xvector, = resolve("pooling.heads=5 optimizer.lr=0.01 optimizer.type=sgd pooling.type=multi_head", "xvector")
    assert xvector["pooling"] == {"type": "multi_head", "heads": 5}  # in any order
    assert xvector["optimizer"] == {"type": "sgd", "lr": 0.01}
    assert resolve("online.kinds=[noise]", "xvector")[0]["online"] == {"kinds": ["noise"]}


@pytest.mark.parametrize(("settings", "message"), [
    ("train.epoch=20", r"--set: no chosen system has the key 'train.epoch'; did you mean train.epochs\?"),
    ("epochs=20", r"no chosen system has the key 'epochs'; did you mean train.epochs\?"),
    ("num_gaussian=20", r"no chosen system has the key 'num_gaussian'; did you mean ubm.num_gaussians\?"),
    ("depth=20", "no chosen system has the key 'depth'; allowed: average, backend, distil, encoder, "),
    ("encoder.size=3", "has the key 'encoder.size'; allowed: encoder.channels, encoder.contexts, encoder.type"),
    ("pooling.type=statistics pooling.heads=3", "the key 'pooling.heads'; allowed: pooling.deviation, pooling.type"),
    ("speakers=3", "has the key 'speakers'"),
    ("kind=ivector", "has the key 'kind'"),
    ("train.epochs=many", "xvector with --set: train: epochs: 'many' is not a whole number"),
    ("train.epochs=0", "xvector with --set: train: epochs is 0; wanted at least 1"),
    ("encoder.channels=[3]", "xvector with --set: encoder: 1 channels but 5 contexts"),
    ("pooling.type=mean", "xvector with --set: pooling: type is 'mean'; allowed: "),
    ("features=mfcc99", "no features 'mfcc99' in "),
    ("backend.plda=[centre, plda]", "backend: plda: no part 'centre' of a chain"),
])
def test_what_a_file_may_not_say_the_command_line_may_not_either(resolve, settings, message):
    with pytest.raises(InputError, match=message):
        resolve(settings, "ivector", "xvector")
