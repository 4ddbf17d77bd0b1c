"""Networks in ONNX: every encoder and pooling, audio and features, metadata, and what is refused."""

import importlib
import json

import numpy as np
import pytest
import torch

from nnet.embed import load
from nnet.encoders import ENCODERS
from nnet.frontends.kaldi import windows_of
from nnet.poolings import POOLINGS
from steps.use import export_onnx
from tests.in_process import call
from tests.unit.made_up import RATE, write_speech
from tests.unit.made_up_systems import train_systems, write_untrained
from utils.errors import InputError
from utils.features.cmvn import sliding_windows
from utils.features.compute import compute_features
from utils.kaldi.objects import write_vector

TDNN = {"type": "tdnn", "channels": [8, 8, 8, 8, 12]}
RESNET = {"type": "resnet", "channels": [4, 6, 8], "blocks": [1, 1, 1], "strides": [1, 2, 2], "frequency": "mean"}
# Each encoder and each pooling once, at least; the strides, kernels and front ends are those of conf/.
SYSTEMS = {
    "multi_resolution": (RESNET | {"frequency": "flatten"}, {"type": "global_multi_head", "resolutions": True}, {}),
    "fast_cap": (RESNET | {"stem": 7, "stem_stride": [1, 2], "squeeze": 2, "relu_first": True},
                 {"type": "cross_attentive"}, {"loss": {"type": "prototypical"}, "frontend": {"cmn": "chunk",
                                                                                             "norm_vars": True}}),
    "ecapa": ({"type": "ecapa", "channels": 16, "groups": 4, "squeeze": 4, "output": 24},
              {"type": "channel_attentive_statistics", "hidden": 4}, {}),
    "saep": ({"type": "saep", "d_k": 8, "d_ff": 16}, {"type": "self_attentive", "hidden": False},
             {"features": "mfcc20", "frontend": {"deltas": 2, "cmn": "utterance", "norm_vars": True}}),
    "sc_resnet": ({"type": "sc_resnet", "stem": 3, "channels": [4, 6], "blocks": [1, 1], "strides": [1, 2]},
                  {"type": "temporal"}, {"frontend": {"cmn": "sliding", "cmn_window": 300}}),
    "vgg": ({"type": "vgg", "channels": [4, 4, 8]}, {"type": "double_multi_head", "heads": 2}, {}),
    "attentive": (TDNN, {"type": "attentive_statistics"}, {}),
    "statistics": (TDNN, {"type": "statistics"}, {"features": "mfcc30", "frontend": {"deltas": 2, "cmn": "utterance"}}),
    "multi_head": (TDNN, {"type": "multi_head", "heads": 4}, {"frontend": {"cmn": "none"}}),
    "multi_head_mlp": (TDNN, {"type": "multi_head_mlp"}, {}),
}
WITH_FEATURES = ("fast_cap", "saep", "sc_resnet", "statistics")  # the others take features


@pytest.fixture(scope="module")
def runtime():
    missing = [name for name in export_onnx.NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: python3 -m pip install -r {export_onnx.REQUIREMENTS}")
    return importlib.import_module("onnxruntime")


def write_system(folder, name):
    encoder, pooling, changes = SYSTEMS[name]
    return write_untrained(folder, encoder=encoder, pooling=pooling, **changes)


def test_all_encoders_and_poolings_are_tried():
    assert {encoder["type"] for encoder, _, _ in SYSTEMS.values()} == set(ENCODERS)
    assert {pooling["type"] for _, pooling, _ in SYSTEMS.values()} == set(POOLINGS)


@pytest.mark.parametrize("name", SYSTEMS)
def test_onnxruntime_gives_the_embeddings_of_the_model(runtime, tmp_path, name):
    """Of lengths that the export has not compared, too."""
    exp, with_features = write_system(tmp_path / "exp", name), name in WITH_FEATURES
    assert export_onnx.export(exp, tmp_path / "x.onnx", with_features) > 0.9999
    session = runtime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    given, = session.get_inputs()
    made, = session.get_outputs()
    model = load(exp)
    assert given.name == ("samples" if with_features else "features") and made.name == "embedding"
    assert [type(size) for size in given.shape[:2]] == [str, str]  # dynamic
    rng = np.random.default_rng(0)
    for seconds, count in ((0.77, 1), (4.321, 3)):
        sound = rng.normal(size=(count, round(seconds * RATE))).astype(np.float32) / 9
        x = sound if with_features else np.stack([compute_features(one * 32768, model.features) for one in sound])
        found, = session.run(None, {given.name: x})
        wanted = model.embed(list(sound), rate=RATE)
        assert found.shape == wanted.shape and found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, atol=2e-3 * np.abs(wanted).max())


def test_metadata_are_what_sherpa_onnx_reads_and_what_our_programs_need(runtime, tmp_path):
    """Its names: sherpa-onnx/csrc/speaker-embedding-extractor-model.cc."""
    exp = write_system(tmp_path / "exp", "statistics")
    for with_features, framework in ((False, "wespeaker"), (True, "attvec")):
        export_onnx.export(exp, tmp_path / "x.onnx", with_features)
        session = runtime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
        found = session.get_modelmeta().custom_metadata_map
        assert found["framework"] == framework
        assert (int(found["sample_rate"]), int(found["output_dim"]), int(found["normalize_samples"])) == (RATE, 12, 0)
        assert found["language"] and found["feature_normalize_type"] == ""
        assert json.loads(found["features"]) == dict(load(exp).kept_features)
        assert "training_mean" not in found


def test_a_bundle_exports_with_its_licence_and_mean(runtime, tmp_path):
    exp = write_system(tmp_path / "exp", "multi_head")
    mean = np.arange(12, dtype=np.float32) / 7
    (exp / "backend/cosine").mkdir(parents=True)
    (exp / "backend/cosine/chain").write_text("center length cosine\n")
    write_vector(exp / "backend/cosine/mean.vec", mean)
    done = call("steps.use.bundle", "--licence", "mine", exp, tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
    done = call("steps.use.export_onnx", tmp_path / "bundle", tmp_path / "x.onnx")
    assert done.returncode == 0, done.stderr
    assert "onnxruntime and PyTorch agree, lowest cosine " in done.stderr
    found = runtime.InferenceSession(tmp_path / "x.onnx").get_modelmeta().custom_metadata_map
    assert found["licence"] == "mine"
    np.testing.assert_allclose(json.loads(found["training_mean"]), mean, rtol=1e-6)


def test_a_graph_that_differs_is_not_written(runtime, tmp_path, monkeypatch):
    """Here: exported without normalisation."""
    exp = write_system(tmp_path / "exp", "attentive")
    monkeypatch.setattr(export_onnx, "frontend_of_batch", lambda x, _: x)
    with pytest.raises(InputError, match=r"x.onnx: not written: an embedding of onnxruntime has the cosine [\d.-]+ with"):
        export_onnx.export(exp, tmp_path / "x.onnx", False)
    assert [path.name for path in tmp_path.iterdir()] == ["exp"]


def test_what_cannot_be_exported_is_said_in_one_line(runtime, tmp_path):
    train_systems(write_speech(tmp_path / "data"), tmp_path / "exp")
    for folder, out, message in (("network", "x.onnx", "skips frames without voice"),
                                 ("ivector", "x.onnx", "an i-vector system, which is no network"),
                                 ("network", "x.bin", "wanted a name that ends in .onnx"),
                                 ("none", "x.onnx", "no trained system")):
        done = call("steps.use.export_onnx", tmp_path / "exp" / folder, tmp_path / out)
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("x.*"))


def test_without_the_packages_the_message_says_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "NEEDED", ("numpy", "no_such_onnx"))
    done = call("steps.use.export_onnx", tmp_path, tmp_path / "x.onnx")
    assert done.returncode == 1
    assert done.stderr.endswith("error: no_such_onnx not installed; install what export needs: python3 -m pip install -r "
                                "utils/requirements_onnx.txt\n")


@pytest.mark.parametrize("frames", [1, 2, 299, 300, 301, 999])
def test_windows_of_exported_graphs_are_those_of_normalisation(frames):
    for window in (1, 2, 300):
        wanted = sliding_windows(frames, window)
        for one, other in zip(windows_of(frames, window, torch.device("cpu")), wanted, strict=True):
            assert one.tolist() == other.tolist()
