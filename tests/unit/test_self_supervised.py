"""Self-supervised front ends: the layers that the transformers library computes, training, and bad folders.

The models are small, with random weights.
"""

import json
import re
import shutil
import sys

import numpy as np
import pytest
import soundfile
import torch
import transformers
import yaml
from made_up import CONFIG
from made_up_audio import RATE, write_corpus
from safetensors.torch import load_file, save_file

from nnet import memory
from nnet.config import network_config
from nnet.embed import load
from nnet.frontends.self_supervised import SelfSupervised, SelfSupervisedOptions
from nnet.model import Network
from nnet.training.train import Trainer
from tests.in_process import call
from utils.errors import InputError

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
CONVOLUTIONS = {"conv_dim": (8, 8, 8), "conv_kernel": (10, 8, 4), "conv_stride": (5, 8, 8),
                "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
MODELS = {
    "wavlm": transformers.WavLMConfig(**SIZE, **CONVOLUTIONS),
    "hubert": transformers.HubertConfig(**SIZE, **CONVOLUTIONS),
    "wav2vec2": transformers.Wav2Vec2Config(**SIZE, **CONVOLUTIONS, do_stable_layer_norm=True,
                                            feat_extract_norm="layer"),
    "w2v_bert": transformers.Wav2Vec2BertConfig(**SIZE, feature_projection_input_dim=160),
}
NORMALISED = ("wav2vec2", "w2v_bert")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder per model, as the library writes it."""
    folder = tmp_path_factory.mktemp("models")
    for name, config in MODELS.items():
        torch.manual_seed(len(name))
        transformers.AutoModel.from_config(config).save_pretrained(folder / name)
        extractor(name).save_pretrained(folder / name)
    return folder


def extractor(name):
    """The library's own preparation of samples."""
    if name == "w2v_bert":
        return transformers.SeamlessM4TFeatureExtractor()
    return transformers.Wav2Vec2FeatureExtractor(do_normalize=name in NORMALISED)


def front_end(folder, **options):
    made = SelfSupervised(SelfSupervisedOptions(type="self_supervised", model=str(folder), **options), None, 80)
    made.initialise()
    return made.train()  # frozen, it computes as in use all the same


def speech(seconds, seed=0):
    return 1000 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_used_in_single(models, tmp_path, precision):
    model = transformers.AutoModel.from_pretrained(models / "wavlm").to(precision)
    model.save_pretrained(tmp_path / "half")
    extractor("wavlm").save_pretrained(tmp_path / "half")
    made = front_end(tmp_path / "half")
    assert {value.dtype for value in made.parameters()} == {torch.float32}
    assert torch.equal(made.model.state_dict()["feature_projection.projection.weight"],
                       model.state_dict()["feature_projection.projection.weight"].float())
    assert made.chunks(speech(0.5)[None]).isfinite().all()


@pytest.mark.parametrize("name", MODELS)
def test_frames_are_the_layers_of_the_library(models, name):
    samples = speech(0.99)
    model = transformers.AutoModel.from_pretrained(models / name).eval()
    given = extractor(name)((samples / 32768).numpy(), sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        layers = model(**given, output_hidden_states=True).hidden_states
    made = front_end(models / name, layers="all")
    found, lengths = made(samples[None])
    assert found.shape == (1, lengths[0], 3 * 16) and made.output_dim == 3 * 16
    expected = torch.cat(layers, dim=2)[:, :lengths[0]]  # the library pads w2v-BERT's last frame
    assert expected.shape[1] == lengths[0] and layers[0].shape[1] - lengths[0] <= (name == "w2v_bert")
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    weighted = front_end(models / name)
    with torch.no_grad():
        weighted.layer_weights.copy_(torch.tensor([0.1, 2, -1]))
    shares = torch.tensor([0.1, 2, -1]).softmax(0)
    torch.testing.assert_close(weighted(samples[None])[0], sum(
        share * layer for share, layer in zip(shares, found.split(16, dim=2), strict=True)))


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_lengths(models, name):
    made = front_end(models / name)
    samples = torch.stack([speech(0.6), speech(0.6, 1)])
    lengths = torch.tensor([9600, 5000])
    found, ends = made(samples, lengths)
    samples[1, 5000:] = 30000
    again, _ = made(samples, lengths)
    torch.testing.assert_close(again[1, :ends[1]], found[1, :ends[1]], atol=0, rtol=0)
    for frames in (1, 4):
        size = made.samples_of(frames)
        assert made.chunks(samples[:, :size]).shape[1] == frames
        assert frames == 1 or made.chunks(samples[:, :size - 1]).shape[1] == frames - 1
    with pytest.raises(InputError, match="too short for one frame of the front end"):
        made.chunks(samples[:, :made.samples_of(1) - 1])


def system(folder, **changes):
    frontend = {"type": "self_supervised", "model": str(folder), "layers": "all"} | changes.pop("frontend", {})
    train = {"epochs": 1, "batch_size": 6, "chunk_frames": 40, "keep": "last", "precision": "fp32"}
    return CONFIG | {"frontend": frontend, "encoder": {"type": "none"}, "train": train, "pooling": {
        "type": "multi_head_factorised", "layers": 3, "heads": 2, "dim": 6, "context": 1}} | changes


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return write_corpus(folder / "train", 5, 4, False), write_corpus(folder / "valid", 3, 3, False, first=5)


@pytest.mark.parametrize(("name", "rate"), [("wavlm", 0.0), pytest.param("hubert", 0.1, marks=pytest.mark.long)])
def test_a_trained_network_needs_the_folder_no_more(models, corpus, tmp_path, name, rate):
    shutil.copytree(models / name, tmp_path / "model")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(system(tmp_path / "model", frontend={"rate": rate})))
    done = call("nnet.training.train", tmp_path / "config.yaml", *corpus, tmp_path / "exp")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(tmp_path / "model")
    before, after = load_file(models / name / "model.safetensors"), load_file(tmp_path / "exp/model.safetensors")
    for part, value in before.items():
        if part != "masked_spec_embed":  # for the masks of the model's own training
            assert torch.equal(after[f"frontend.model.{part}"], value) == (rate == 0), part
    network = load(tmp_path / "exp")
    path = next((corpus[1]).glob("*.flac"))
    found = network.embed(str(path))
    assert found.shape == (12,)
    np.testing.assert_allclose(found, network.embed(*soundfile.read(path)), rtol=1e-4, atol=1e-5)


def test_the_model_learns_at_its_own_rate(models, corpus, tmp_path):
    options = system(models / "wavlm", frontend={"rate": 0.25}, optimizer={"type": "sgd", "lr": 0.01})
    trainer = Trainer(network_config(options, "x"), *corpus, tmp_path / "exp", torch.device("cpu"), 1)
    trainer.model = trainer.network
    trainer.train_step(5, trainer.data.batch(5))
    rates = {id(parameter): group["lr"] for group in trainer.optimizer.param_groups for parameter in group["params"]}
    rest = rates[id(trainer.network.pooling.query.weight)]
    assert rest > 0
    assert {rates[id(parameter)] for parameter in trainer.network.frontend.model.parameters()} == {0.25 * rest}
    assert len(rates) == sum(1 for _ in trainer.network.parameters())
    assert all(parameter.grad is not None for parameter in trainer.network.parameters())  # as several processes need


def test_frozen_models_have_no_gradient_and_stay_in_evaluation(models, corpus, tmp_path):
    """Not even where fine-tuning thaws the front end."""
    options = system(models / "wavlm", frontend={"layers": "weighted"}, pooling={"type": "statistics"})
    network = Network(network_config(options, "x"), 10, 5)
    network.frontend.requires_grad_(False).train(False)
    network.frontend.requires_grad_(True).train(True)
    assert not any(parameter.requires_grad for parameter in network.frontend.model.parameters())
    assert network.frontend.layer_weights.requires_grad and not network.frontend.model.training
    loss, _ = network(torch.stack([speech(0.5), speech(0.5, 1)]), torch.tensor([0, 1]))
    loss.backward()
    assert network.frontend.layer_weights.grad.abs().sum() > 0


def test_the_memory_of_the_model_is_estimated(models, corpus, tmp_path):
    requests = []
    for layers in (2, 12):
        folder = tmp_path / str(layers)
        transformers.AutoModel.from_config(transformers.WavLMConfig(**SIZE | {
            "num_hidden_layers": layers, "hidden_size": 256, "intermediate_size": 1024}, **CONVOLUTIONS)
            ).save_pretrained(folder)
        options = system(folder, frontend={"layers": "weighted", "rate": 1.0}, pooling={"type": "statistics"})
        (tmp_path / "system.yaml").write_text(yaml.safe_dump(options))
        sizes = memory.sizes_of(network_config(options, "x"), 10, 5)
        requests.append(sizes.saved)
    assert requests[1] > 3 * requests[0]


@pytest.mark.parametrize(("change", "message"), [
    ({"frontend": {"model": "nowhere"}}, "frontend: model: nowhere/config.json: No such file or directory"),
    ({"frontend": {"rate": -1}}, "rate is -1; wanted at least 0"),
    ({"pooling": {"type": "multi_head_factorised", "layers": 5}}, "layers is 5, which does not divide the frames' 48"),
    ({"train": CONFIG["train"]}, "type self_supervised takes audio; train.shuffle_mb, mask_frames and mask_bands are"),
])
def test_bad_configurations_are_refused(models, change, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Network(network_config(system(models / "wavlm", **change), "x"), 10, 5)


def test_bad_folders_are_refused(models, tmp_path, monkeypatch):
    folder = tmp_path / "model"

    def refused(message, **config):
        (folder / "config.json").write_text(json.dumps(json.loads((models / "wavlm/config.json").read_text()) | config))
        with pytest.raises(InputError, match=message):
            SelfSupervised(network_config(system(folder), "x").frontend, None, 80).initialise()

    shutil.copytree(models / "wavlm", folder)
    refused("names no model_type; name a folder that the transformers library has written", model_type=None)
    refused("the transformers library cannot make it: .*unheard", model_type="unheard")
    refused("bert does not take audio; wanted WavLM, HuBERT", model_type="bert")
    refused("no weights for .* tensors, such as encoder.layers.2", num_hidden_layers=3)
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layers.1.attention.q_proj.weight"
    del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    refused(f"no weights for 1 tensors, such as {name}; download the model again")
    (folder / "model.safetensors").write_bytes(b"damaged")
    refused("its weights cannot be read")
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused("needs the transformers library: python3 -m pip install -r utils/requirements_ssl.txt")
