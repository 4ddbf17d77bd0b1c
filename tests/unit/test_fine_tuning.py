"""The recipe's --init: the configurations that start from a bundle or a trained network, and what is refused."""

import json
import shutil

import pytest
import yaml

from nnet.config import NETWORK, plain, read_network_config
from tests.in_process import call
from tests.unit.made_up import CONFIG, FEATURES
from tests.unit.made_up_systems import write_untrained
from tests.unit.test_toolkits import bring, speechbrain_ecapa, wespeaker_resnet, write

BACKEND = {"backend": ["center", "cosine"]}
SYSTEMS = {
    "small": CONFIG | BACKEND | {"features": "fbank80"},
    "margin": {"base": "small", "loss": {"margin": 0.4}, "init": {"model": "small", "rate": 0.5}},
    "vgg": {"base": "small", "encoder": {"type": "vgg", "channels": [4, 8], "batch_norm": True}},
    "short": {"base": "small", "train": {"epochs": 2}},
    "factors": {"kind": "ivector", "features": "fbank80", **BACKEND},
}
OTHER = {"encoder": {"type": "tdnn", "channels": [8, 8, 8, 8, 12]}}  # sizes that the bundle's network has


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Configurations in conf, and a bundle of `small` with smaller layers."""
    folder = tmp_path_factory.mktemp("init")
    shutil.copytree(FEATURES, folder / "conf/features")
    for name, config in SYSTEMS.items():
        (folder / f"conf/{name}.yaml").write_text(yaml.safe_dump(config))
    write_untrained(folder / "small", **OTHER)
    write_untrained(folder / "mel80/small", features="fbank80", **OTHER)
    done = call("steps.use.bundle", folder / "mel80/small", folder / "bundle")
    assert done.returncode == 0, done.stderr
    return folder


def resolve(folder, exp, init, *more):
    return call("steps.systems", "--scale", "full", "--conf", folder / "conf", "--exp", exp, "--init", init, *more)


def resolved(exp, name):
    return yaml.safe_load((exp / name / "system.yaml").read_text())


def test_a_bundle_names_its_system_and_gives_the_network_but_not_the_training(folder, tmp_path):
    done = resolve(folder, tmp_path, folder / "conf/../bundle")
    assert (done.returncode, done.stdout) == (0, "small\n"), done.stderr
    config, theirs = resolved(tmp_path, "small"), plain(read_network_config(str(folder / "bundle/config.yaml")))
    assert config["encoder"] == theirs["encoder"] and config["encoder"]["channels"] == OTHER["encoder"]["channels"]
    assert config["train"] == CONFIG["train"] and config["optimizer"] == CONFIG["optimizer"]
    assert config["init"] == {"model": str(folder / "bundle"), "head_epochs": 2, "rate": 0.1}
    assert CONFIG["schedule"]["warmup_steps"] and config["schedule"] == CONFIG["schedule"] | {"warmup_steps": 0}
    assert f"after={folder}/bundle\n" in (tmp_path / "small/facts.sh").read_text()
    assert resolve(folder, tmp_path, folder / "bundle", "short").returncode == 0
    assert resolved(tmp_path, "short")["init"]["head_epochs"] == 1  # of two epochs


def test_set_changes_how_a_model_is_fine_tuned(folder, tmp_path):
    settings = "init.head_epochs=0 init.freeze=[encoder] loss.margin=0.1"
    done = resolve(folder, tmp_path, folder / "bundle", "--set", settings)
    assert done.returncode == 0, done.stderr
    config = resolved(tmp_path, "small")
    assert config["init"] == {"model": str(folder / "bundle"), "head_epochs": 0, "rate": 0.1, "freeze": ["encoder"]}
    assert config["loss"]["margin"] == 0.1
    done = resolve(folder, tmp_path, folder / "bundle", "--set", "init.head_epochs=8")
    assert done.returncode == 1 and "head_epochs is 8 and train: epochs 8; wanted fewer" in done.stderr
    done = resolve(folder, tmp_path, folder / "bundle", "--set", "init.heads=8")
    assert done.returncode == 1 and "no chosen system has the key 'init.heads'; allowed: init.freeze," in done.stderr


def test_a_second_stage_starts_from_the_first_if_that_is_chosen_too(folder, tmp_path):
    assert resolve(folder, tmp_path, folder / "bundle", "margin", "small").returncode == 0
    assert resolved(tmp_path, "margin")["init"] == {"model": "small", "rate": 0.5}
    assert resolved(tmp_path, "small")["init"]["model"] == str(folder / "bundle")
    assert resolved(tmp_path, "margin")["encoder"]["channels"] == OTHER["encoder"]["channels"]  # the first one's
    assert resolved(tmp_path, "margin")["schedule"] == CONFIG["schedule"]
    assert resolve(folder, tmp_path, folder / "bundle", "margin").returncode == 0
    assert resolved(tmp_path, "margin")["init"] == {"head_epochs": 2, "rate": 0.5, "model": str(folder / "bundle")}


@pytest.mark.parametrize(("toolkit", "make", "system"), [("wespeaker", wespeaker_resnet, "resnet34_tstp"),
                                                         ("speechbrain", speechbrain_ecapa, "ecapa_c512")])
def test_a_bundle_of_another_toolkits_network_is_fine_tuned_by_the_recipes_system(tmp_path, toolkit, make, system):
    done = bring(toolkit, write(tmp_path, make()), tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    done = call("steps.systems", "--scale", "mini", "--conf", FEATURES.parent, "--exp", tmp_path / "exp", "--init",
                tmp_path / "bundle", system)
    assert done.returncode == 0, done.stderr
    config = resolved(tmp_path / "exp", system)
    theirs = plain(read_network_config(str(tmp_path / "bundle/config.yaml")))
    assert {part: config[part] for part in NETWORK} == {part: theirs[part] for part in NETWORK}
    assert config["init"] == {"model": str(tmp_path / "bundle"), "head_epochs": 2, "rate": 0.1}


def damaged(bundle, kind):
    path = bundle / "bundle.json"
    if kind == "cut":
        path.write_text(path.read_text()[:-40])
    elif kind == "foreign":
        path.write_text('{"system": "small"}')
    elif kind == "renamed":
        path.write_text(json.dumps(json.loads(path.read_text()) | {"system": "../x"}))
    elif kind == "weights":
        (bundle / "model.safetensors").write_bytes((bundle / "model.safetensors").read_bytes()[:-1] + b"x")


@pytest.mark.parametrize(("kind", "message"), [
    ("cut", "bundle.json: damaged: "), ("foreign", "bundle.json: its format is not 'attvec bundle'; name a folder "),
    ("renamed", "has changed since the bundle was made (its seal differs); copy the bundle again"),
    ("weights", "model.safetensors has changed since the bundle was made (its SHA-256 differs)")])
def test_a_damaged_or_foreign_bundle_is_refused(folder, tmp_path, kind, message):
    bundle = shutil.copytree(folder / "bundle", tmp_path / "bundle")
    damaged(bundle, kind)
    for systems in ((), ("small",)):
        refused(resolve(folder, tmp_path / "exp", bundle, *systems), message, tmp_path / "exp")


@pytest.mark.parametrize(("init", "systems", "message"), [
    ("nowhere", (), "--init: no network in {}: no config.yaml; name a bundle or the folder of a trained network"),
    ("conf", ("small",), "--init: no network in {}: no config.yaml; name a bundle"),
    ("avg_model.pt", (), "--init: {} is a file; make a bundle of another toolkit's checkpoint with utils/import_chec"),
    ("avg_model.pt", ("small",), "--init: {} is a file; make a bundle"),
    ("factors", (), "--init: no network in {}: an i-vector system; name a bundle"),
    ("bundle", ("small", "factors"), "factors.yaml: kind is ivector; --init is for networks, choose some with "),
    ("bundle", ("vgg",), "vgg.yaml: encoder.type is vgg, {} has tdnn; choose the system whose network it is"),
    ("foreign", (), "--init: {} is of the system 'foreign', which is not in "),
    ("small", (), "fbank40.conf: features have num-mel-bins 64, {} was trained on 40; name data made with the same"),
])
def test_models_that_do_not_fit_are_refused(folder, tmp_path, init, systems, message):
    place = folder / init
    if init == "factors":
        place.mkdir(exist_ok=True)
        (place / "final.ie").touch()
    elif init == "avg_model.pt":
        place.touch()
    elif init == "foreign":
        shutil.copytree(folder / "mel80/small", place, dirs_exist_ok=True)
    elif init == "small":
        (tmp_path / "own").mkdir()
        shutil.copytree(folder / "conf", tmp_path / "own/conf")
        path = tmp_path / "own/conf/features/fbank40.conf"
        path.write_text(path.read_text().replace("=40", "=64"))
        done = resolve(tmp_path / "own", tmp_path / "exp", place)
        return refused(done, message.format(place), tmp_path / "exp")
    return refused(resolve(folder, tmp_path / "exp", place, *systems), message.format(place), tmp_path / "exp")


def refused(done, message, exp):
    said = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(said) == 1 and message in said[0], done.stderr
    assert not exp.exists()
