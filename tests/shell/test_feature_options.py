"""The steps' programs refuse features whose options differ from the model's."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from nnet.embed import load_network
from steps.report.draw_attention import attend
from tests.unit.made_up import CONFIG
from utils.errors import InputError
from utils.features.model_features import Options, keep_options, kept_options

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "egs/voxceleb/conf/features"
RATE = 16000
IVECTOR = {"kind": "ivector", "features": "fbank40", "ubm": {"num_gaussians": 4, "split_iterations": 2},
           "extractor": {"dim": 3, "iterations": 1}}


def call(*words):
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False,
                          stdin=subprocess.DEVNULL, cwd=ROOT)


def step(script, *words):
    return call("bash", ROOT / "steps" / script, *words)


def succeed(*words):
    done = step(*words)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def refused(done, message):
    assert done.returncode == 1
    assert any(message in line for line in done.stderr.splitlines()), done.stderr[-3000:]
    assert "Traceback" not in done.stderr


def write_audio(folder, first, speakers):
    """Write noise, coloured by speaker."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(first)
    names = [(f"s{number}-u{utterance}", f"s{number}") for number in range(first, first + speakers)
             for utterance in range(4)]
    for name, speaker in names:
        kernel = np.random.default_rng(int(speaker[1:])).normal(size=8)
        soundfile.write(folder / f"{name}.wav", 0.05 * np.convolve(rng.normal(size=RATE), kernel, "same"), RATE)
    (folder / "wav.scp").write_text("".join(f"{name} {folder}/{name}.wav\n" for name, _ in names))
    (folder / "utt2spk").write_text("".join(f"{name} {speaker}\n" for name, speaker in names))
    (folder / "spk2utt").write_text("".join(
        f"{speaker} {' '.join(name for name, owner in names if owner == speaker)}\n"
        for speaker in sorted({owner for _, owner in names})))
    (folder / "trials").mkdir()
    (folder / "trials/valid").write_text("".join(
        f"{a[0]} {b[0]} {'target' if a[1] == b[1] else 'nontarget'}\n"
        for index, a in enumerate(names) for b in names[index + 1:]))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """data/{fbank40,narrow,fbank40_hamming,spelt}/test; exp/net and exp/ivector/ubm, trained on fbank40."""
    folder = tmp_path_factory.mktemp("features")
    write_audio(folder / "data/train", 0, 4)
    write_audio(folder / "data/test", 10, 3)
    confs = {name: (CONF / f"{name}.conf").read_text() for name in ("fbank40", "fbank40_hamming")}
    confs["narrow"] = confs["fbank40"].replace("=20\n", "=300\n").replace("=7600", "=4000")
    confs["spelt"] = confs["fbank40"].replace("=7600", "=-400") + "--window-type=povey\n--preemphasis-coefficient=.97\n"
    for name, text in confs.items():
        (folder / f"{name}.conf").write_text(text)
        for part in ("train", "test") if name == "fbank40" else ("test",):
            succeed("make_feats.sh", folder / f"{name}.conf", folder / "data" / part, folder / f"data/{name}/{part}")
    config = CONFIG | {"features": "fbank40", "train": CONFIG["train"] | {"epochs": 1},
                       "pooling": {"type": "multi_head", "heads": 4}}
    (folder / "net.yaml").write_text(yaml.safe_dump(config))
    (folder / "tuned.yaml").write_text(yaml.safe_dump(config | {"init": {"model": "net"}}))
    (folder / "taught.yaml").write_text(yaml.safe_dump(config | {"distil": {"models": ["net"]}}))
    data = folder / "data/fbank40"
    succeed("train_network.sh", folder / "net.yaml", data / "train", data / "test", folder / "exp/net")
    (folder / "exp/ivector").mkdir()
    (folder / "exp/ivector/system.yaml").write_text(yaml.safe_dump(IVECTOR))
    succeed("train_ubm.sh", folder / "exp/ivector/system.yaml", data / "train", folder / "exp/ivector/ubm")
    return folder


NARROW = "features have low-freq 300, {} 20; name data made with the same options"
HAMMING = "features have window-type hamming, {} povey; name data made with the same options"


@pytest.mark.parametrize(("script", "features", "message"), [
    ("extract_embeddings.sh", "narrow", NARROW), ("extract_embeddings.sh", "fbank40_hamming", HAMMING),
    ("extract_segments.sh", "fbank40_hamming", HAMMING)])
def test_a_network_refuses_features_of_other_options(work, tmp_path, script, features, message):
    done = step(script, work / "exp/net", work / f"data/{features}/test", tmp_path / "out")
    refused(done, f"data/{features}/test: " + message.format(f"{work}/exp/net was trained on"))
    assert not list((tmp_path / "out").glob("*.scp"))


def test_options_that_are_spelt_out_are_those_that_are_not(work, tmp_path):
    succeed("extract_embeddings.sh", "--nj", 1, work / "exp/net", work / "data/spelt/test", tmp_path / "out")
    options = yaml.safe_load((work / "exp/net/config.yaml").read_text())["feature_options"]
    assert options["low-freq"] == 20
    assert options["high-freq"] == 7600
    assert options["preemphasis-coefficient"] == 0.97
    for folder in (work / "data/spelt/test", work / "exp/ivector/ubm"):
        assert options == kept_options(folder, False).features


def test_another_configuration_of_the_same_weights_is_noticed(work, tmp_path):
    """Such as that of a head whose embedding is taken before or after its batch norm."""
    shutil.copytree(work / "exp/net", tmp_path / "net")
    words = "--nj", 1, tmp_path / "net", work / "data/fbank40/test"
    for step, out in (("extract_embeddings.sh", tmp_path / "out"), ("extract_segments.sh", tmp_path / "segments")):
        succeed(step, *words, out)
        assert "up to date" in succeed(step, *words, out).stderr
    config = yaml.safe_load((tmp_path / "net/config.yaml").read_text())
    config["head"]["layers"][-1]["embedding"] = "affine"
    (tmp_path / "net/config.yaml").write_text(yaml.safe_dump(config))
    for step, out in (("extract_embeddings.sh", tmp_path / "out"), ("extract_segments.sh", tmp_path / "segments")):
        assert "net/config.yaml changed" in succeed(step, *words, out).stderr


def test_features_of_unknown_options_are_taken_with_one_remark(work, tmp_path):
    shutil.copytree(work / "data/fbank40/test", tmp_path / "data")
    (tmp_path / "data/feats.conf").unlink()
    done = succeed("extract_embeddings.sh", "--nj", 2, work / "exp/net", tmp_path / "data", tmp_path / "out")
    assert done.stderr.count("does not name the options of its features; they were not compared with those of ") == 1


@pytest.mark.long
def test_training_refuses_validation_and_models_of_other_options(work, tmp_path):
    done = step("train_network.sh", work / "net.yaml", work / "data/fbank40/train", work / "data/narrow/test",
                tmp_path / "exp/x")
    refused(done, NARROW.format(f"{work}/data/fbank40/train has"))
    for part in ("train", "test"):
        shutil.copytree(work / f"data/fbank40/{part}", tmp_path / part)
        shutil.copy(work / "fbank40_hamming.conf", tmp_path / part / "feats.conf")
    for name in ("tuned", "taught"):
        done = step("train_network.sh", work / f"{name}.yaml", tmp_path / "train", tmp_path / "test",
                    work / f"exp/{name}")
        refused(done, HAMMING.format(f"{work}/exp/net was trained on"))
        assert not (work / f"exp/{name}/model.safetensors").exists()


def test_fine_tuning_refuses_another_front_end_and_a_cut_list_of_speakers(work):
    config = yaml.safe_load((work / "tuned.yaml").read_text()) | {"frontend": {"cmn": "none"}}
    (work / "other.yaml").write_text(yaml.safe_dump(config))
    data = work / "data/fbank40"
    done = step("train_network.sh", work / "other.yaml", data / "train", data / "test", work / "exp/other")
    refused(done, f"init: frontend.cmn is none, {work}/exp/net has chunk; front end, encoder, pooling and head must be")
    shutil.copytree(work / "exp/net", work / "exp/cut")
    (work / "exp/cut/speakers").write_text("s0\ns1\n")
    (work / "other.yaml").write_text((work / "tuned.yaml").read_text().replace("model: net", "model: cut"))
    done = step("train_network.sh", work / "other.yaml", data / "train", data / "test", work / "exp/other")
    refused(done, "exp/cut/speakers: 2 names, config.yaml says 4 speakers; train the model again")


def test_attention_is_not_drawn_of_other_features(work):
    net, data = work / "exp/net", work / "data/narrow/test"
    with pytest.raises(InputError, match=re.escape(NARROW.format(f"{net} was trained on"))):
        attend(*load_network(net), net, data, (data / "feats.scp").read_text().split()[0])


@pytest.mark.long
def test_ivector_models_refuse_features_of_other_options(work, tmp_path):
    exp = work / "exp/ivector"
    config, ubm = exp / "system.yaml", exp / "ubm"
    done = step("train_ivector_extractor.sh", config, work / "data/narrow/test", ubm, tmp_path / "x")
    refused(done, NARROW.format(f"{ubm} was trained on"))
    assert not (tmp_path / "x/final.ie").exists()
    done = step("make_posteriors.sh", config, ubm, work / "data/narrow/test", tmp_path / "post")
    refused(done, NARROW.format(f"{ubm} was trained on"))
    succeed("train_ivector_extractor.sh", config, work / "data/fbank40/train", ubm, exp)
    for features, message in (("narrow", NARROW), ("fbank40_hamming", HAMMING)):
        done = step("extract_ivectors.sh", exp, work / f"data/{features}/test", tmp_path / features)
        refused(done, message.format(f"{exp} was trained on"))
    succeed("extract_ivectors.sh", exp, work / "data/spelt/test", tmp_path / "spelt")


@pytest.mark.parametrize("path", sorted(CONF.glob("[fm]*.conf")), ids=lambda path: path.stem)
def test_options_written_out_are_read_back_as_they_were(tmp_path, path):
    (tmp_path / "data").mkdir()
    shutil.copy(path, tmp_path / "data/feats.conf")
    shutil.copy(CONF / "vad.conf", tmp_path / "data/vad.conf")
    options = kept_options(tmp_path / "data", True)
    keep_options(tmp_path / "model", options)
    assert kept_options(tmp_path / "model", True) == options
    keep_options(tmp_path / "model", Options(None, {}))
    assert kept_options(tmp_path / "model", True) == (None, None)
