"""Networks in ONNX: every encoder and pooling, audio and features, metadata, and what is refused."""

import importlib
import json
import re

import numpy as np
import pytest
import torch

from nnet.embed import load
from nnet.encoders import ENCODERS
from nnet.frontends.kaldi import windows_of
from nnet.model import make_part
from nnet.poolings import POOLINGS
from steps.use import export_onnx
from steps.use.quantise import quantise
from tests.in_process import call
from tests.unit.made_up import RATE, write_speech
from tests.unit.made_up_systems import write_untrained
from utils.audio import read_audio
from utils.errors import InputError
from utils.features.cmvn import sliding_windows
from utils.features.compute import compute_features
from utils.features.vad import VadOptions, vad_written_out
from utils.kaldi.objects import write_vector
from utils.metrics import measure

# As few layers as show that each kind exports: the time goes with their number.
TDNN = {"type": "tdnn", "channels": [8, 12], "contexts": [[-2, -1, 0, 1, 2], [-3, 0, 3]]}
RESNET = {"type": "resnet", "channels": [4, 6], "blocks": [1, 1], "strides": [1, 2]}
SYSTEMS = {  # each encoder once, and the poolings that are not in APART
    "multi_resolution": (RESNET, {"type": "global_multi_head", "resolutions": True}, {}),
    "fast_cap": (RESNET | {"stem": 7, "stem_stride": [1, 2], "squeeze": 2, "relu_first": True, "frequency": "mean"},
                 {"type": "cross_attentive"}, {"loss": {"type": "prototypical"}}),
    "ecapa": ({"type": "ecapa", "channels": 8, "groups": 2, "dilations": [2], "squeeze": 4, "output": 12},
              {"type": "channel_attentive_statistics", "hidden": 4}, {}),
    "saep": ({"type": "saep", "blocks": 1, "d_k": 8, "d_ff": 16}, {"type": "self_attentive", "hidden": False},
             {"features": "mfcc20", "frontend": {"deltas": 2, "cmn": "utterance", "norm_vars": True}}),
    "sc_resnet": ({"type": "sc_resnet", "stem": 3, "channels": [4, 6], "blocks": [1, 1], "strides": [1, 2]},
                  {"type": "temporal"}, {"frontend": {"cmn": "sliding", "cmn_window": 300}}),
    "vgg": ({"type": "vgg", "channels": [4, 4]}, {"type": "double_multi_head", "heads": 2}, {}),
    "side_by_side": ({"type": "side_by_side", "encoders": [RESNET, TDNN]},
                     {"type": "side_by_side", "of_encoders": True,
                      "poolings": [{"type": "statistics"}, {"type": "attentive_statistics"}]}, {}),
    "none": ({"type": "none"}, {"type": "multi_head_factorised", "layers": 4, "heads": 2, "dim": 3, "context": 1}, {}),
}
BUNDLED = (TDNN, {"type": "statistics"}, {"features": "mfcc30", "frontend": {"cmn": "utterance"}})
WITH_FEATURES = ("saep", "sc_resnet")  # the others take features
QUICK = ("vgg", "saep")  # the others are long tests
APART = ("attentive_statistics", "multi_head", "multi_head_mlp")  # poolings that are exported without an encoder


@pytest.fixture(scope="module")
def runtime():
    missing = [name for name in export_onnx.NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: python3 -m pip install -r {export_onnx.REQUIREMENTS}")
    return importlib.import_module("onnxruntime")


def write_system(folder, name):
    encoder, pooling, changes = SYSTEMS.get(name, BUNDLED)
    return write_untrained(folder, encoder=encoder, pooling=pooling, **changes)


def test_all_encoders_and_poolings_are_tried():
    systems = [*SYSTEMS.values(), BUNDLED]
    assert {encoder["type"] for encoder, _, _ in systems} == set(ENCODERS)
    assert {*(pooling["type"] for _, pooling, _ in systems), *APART} == set(POOLINGS)


class Poolings(torch.nn.Module):
    """Several poolings of the same frames, one result beside the other."""

    def __init__(self, dim):
        super().__init__()
        self.all = torch.nn.ModuleList(make_part(POOLINGS, "pooling", {"type": name}, dim) for name in APART)

    def forward(self, x):
        return torch.cat([pooling(x) for pooling in self.all], dim=1)


@pytest.mark.long
def test_the_other_poolings_export(runtime, tmp_path):
    torch.manual_seed(0)
    poolings = Poolings(8).eval()
    export_onnx.to_onnx(poolings, "x", (2, 20, 8), 2).save(tmp_path / "x.onnx")
    session = runtime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"])
    for count, frames in ((1, 2), (3, 77)):
        h = torch.randn(count, frames, 8)
        found, = session.run(None, {"x": h.numpy()})
        np.testing.assert_allclose(found, poolings(h).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name not in QUICK))
                                  for name in SYSTEMS])
def test_onnxruntime_gives_the_embeddings_of_the_model(runtime, tmp_path, monkeypatch, name):
    """Of lengths that the export has not compared, too. A minute is compared below."""
    monkeypatch.setattr(export_onnx, "MINUTE", 10.0)
    monkeypatch.setattr(export_onnx, "SECONDS", (0.5, 3.33, 10.0))
    exp, with_features = write_system(tmp_path / "exp", name), name in WITH_FEATURES
    said = export_onnx.export(exp, tmp_path / "x.onnx", with_features)
    assert float(said.split()[-1]) > 0.9999
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


def test_metadata_are_what_sherpa_onnx_reads_and_what_our_programs_need(tmp_path):
    """Its names: sherpa-onnx/csrc/speaker-embedding-extractor-model.cc."""
    model = load(write_system(tmp_path / "exp", "bundled"))
    for with_features, framework in ((False, "wespeaker"), (True, "attvec")):
        found = export_onnx.metadata_of(model, with_features)
        assert all(isinstance(value, str) for value in found.values())
        assert found["framework"] == framework
        assert (int(found["sample_rate"]), int(found["output_dim"]), int(found["normalize_samples"])) == (RATE, 12, 0)
        assert found["language"] and found["feature_normalize_type"] == ""
        assert json.loads(found["features"]) == dict(model.kept_features)
        assert "training_mean" not in found


@pytest.mark.long
def test_sherpa_onnx_gives_the_embeddings_of_the_model(runtime, tmp_path, monkeypatch):
    """Its own features and its own onnxruntime, from audio; with weights of 32 and of 8 bits."""
    sherpa = pytest.importorskip("sherpa_onnx", reason="python3 -m pip install sherpa-onnx==2.0.1")
    monkeypatch.setattr(export_onnx, "SECONDS", (1.0,))
    exp = write_untrained(tmp_path / "exp", encoder=TDNN, features="fbank80", frontend={"cmn": "utterance"})
    export_onnx.export(exp, tmp_path / "x.onnx", False)
    quantise(tmp_path / "x.onnx", tmp_path / "x8.onnx")
    sound = np.random.default_rng(0).normal(size=3 * RATE).astype(np.float32) / 9
    wanted = load(exp).embed(sound, rate=RATE)
    for name, agreement in (("x.onnx", 0.99999), ("x8.onnx", 0.99)):
        extractor = sherpa.SpeakerEmbeddingExtractor(
            sherpa.SpeakerEmbeddingExtractorConfig(model=str(tmp_path / name), num_threads=1))
        stream = extractor.create_stream()
        stream.accept_waveform(RATE, sound)
        stream.input_finished()
        assert extractor.dim == 12 and extractor.is_ready(stream)
        found = np.array(extractor.compute(stream))
        assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > agreement
        assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(wanted), rel=0.05)


@pytest.mark.long
def test_a_bundle_exports_with_its_licence_and_mean_and_what_differs_is_not_written(runtime, tmp_path, monkeypatch):
    exp = write_system(tmp_path / "exp", "bundled")
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
    monkeypatch.setattr(export_onnx, "frontend_of_batch", lambda x, _: x)  # a graph without normalisation
    with pytest.raises(InputError, match=r"y.onnx: not written: an embedding of onnxruntime has the cosine [\d.-]+ "):
        export_onnx.export(exp, tmp_path / "y.onnx", False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "exp", "x.onnx"]


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A data directory with a list of all pairs."""
    return write_speech(tmp_path_factory.mktemp("speech") / "data")


@pytest.mark.long
def test_weights_of_8_bits_come_with_the_change_of_the_error_rate(runtime, speech, tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "SECONDS", (0.5,))
    exp, trials = write_system(tmp_path / "exp", "bundled"), speech / "trials/valid"
    done = call("steps.use.export_onnx", "--int8", trials, exp, tmp_path / "x.onnx")
    assert done.returncode == 1 and "exp has no back-end; train one" in done.stderr
    (exp / "backend/cosine").mkdir(parents=True)
    (exp / "backend/cosine/chain").write_text("center length cosine\n")
    write_vector(exp / "backend/cosine/mean.vec", np.zeros(12, np.float32))
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials/mine").write_text("a b target\n")
    for wrong, message in ((tmp_path / "trials/mine", "wav.scp"), (speech / "trials/none", "none")):
        done = call("steps.use.export_onnx", "--int8", wrong, exp, tmp_path / "x.onnx")
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("x.*"))
    done = call("steps.use.export_onnx", "--int8", trials, exp, tmp_path / "x.onnx")
    assert done.returncode == 0, done.stderr
    said = re.search(r"x.onnx: ([\d.]+) MB; .* weights of 8 bits, ([\d.]+) MB before; EER on valid ([\d.]+) % before, "
                     r"([\d.]+) % after, change ([+-][\d.]+)\n", done.stderr)
    session, model = runtime.InferenceSession(tmp_path / "x.onnx", providers=["CPUExecutionProvider"]), load(exp)
    names, paths = zip(*(line.split() for line in (speech / "wav.scp").read_text().splitlines()), strict=True)
    features = [compute_features(read_audio(path).samples, model.features) for path in paths]
    rates, embedded = [], [model.embed_features(features),
                           np.stack([session.run(None, {"features": one[None]})[0][0] for one in features])]
    for x in embedded:
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        trial = [line.split() for line in trials.read_text().splitlines()]
        scores = np.array([x[names.index(a)] @ x[names.index(b)] for a, b, _ in trial])
        is_target = np.array([label == "target" for *_, label in trial])
        rates.append(measure(scores[is_target], scores[~is_target]).eer)
    assert [float(said[place]) for place in (3, 4)] == pytest.approx(rates, abs=0.002)
    assert float(said[5]) == pytest.approx(rates[1] - rates[0], abs=0.002)
    cosines = (embedded[0] * embedded[1]).sum(axis=1)
    assert 0.95 < cosines.min() < 0.99999  # rounded, and still the same
    found = session.get_modelmeta().custom_metadata_map
    assert found["framework"] == "wespeaker" and "training_mean" in found


def test_products_of_8_bits_run_and_the_front_end_stays_as_it_is(runtime, tmp_path):
    class Layers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = torch.nn.ModuleDict({
                name: torch.nn.Conv1d(8, 8, 3, padding=1) for name in ("frontend", "encoder")})
            self.network["head"] = torch.nn.Linear(8, 4)

        def forward(self, x):
            h = self.network["encoder"](self.network["frontend"](x.transpose(1, 2)).relu())
            return self.network["head"](h.relu().mean(dim=2))

    torch.manual_seed(0)
    layers = Layers().eval()
    export_onnx.to_onnx(layers, "x", (2, 20, 8), 2).save(tmp_path / "x.onnx")
    quantise(tmp_path / "x.onnx", tmp_path / "x8.onnx")
    kinds = [node.op_type for node in importlib.import_module("onnx").load(tmp_path / "x8.onnx").graph.node]
    assert [kinds.count(kind) for kind in ("Conv", "ConvInteger", "MatMulInteger", "MatMul", "Gemm")] == [1, 1, 1, 0, 0]
    session = runtime.InferenceSession(tmp_path / "x8.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(3, 77, 8)
    found, = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, layers(x).detach().numpy(), atol=0.01)


def test_what_cannot_be_exported_is_said_in_one_line(runtime, tmp_path):
    write_untrained(tmp_path / "network", features="mfcc24", frontend={"vad": True},
                    vad_options=vad_written_out(VadOptions()))
    (tmp_path / "ivector").mkdir()
    (tmp_path / "ivector/final.ie").touch()
    for folder, out, message in (("network", "x.onnx", "skips frames without voice"),
                                 ("ivector", "x.onnx", "an i-vector system; only networks can be exported"),
                                 ("network", "x.bin", "wanted a name that ends in .onnx"),
                                 ("none", "x.onnx", "no trained system")):
        done = call("steps.use.export_onnx", tmp_path / folder, tmp_path / out)
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.glob("x.*"))


def test_without_the_packages_the_message_says_how_to_install_them(tmp_path, monkeypatch):
    monkeypatch.setattr(export_onnx, "NEEDED", ("numpy", "no_such_onnx"))
    done = call("steps.use.export_onnx", tmp_path, tmp_path / "x.onnx")
    assert done.returncode == 1
    assert done.stderr.endswith("error: no_such_onnx not installed; install what export needs: python3 -m pip install "
                                "-r utils/requirements_onnx.txt\n")


@pytest.mark.parametrize("frames", [1, 2, 299, 300, 301, 999])
def test_windows_of_exported_graphs_are_those_of_normalisation(frames):
    for window in (1, 2, 300):
        wanted = sliding_windows(frames, window)
        for one, other in zip(windows_of(frames, window, torch.device("cpu")), wanted, strict=True):
            assert one.tolist() == other.tolist()
