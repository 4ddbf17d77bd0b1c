"""Every configuration builds and learns, has its paper's parameter count and a line in the recipe's table; bad ones."""

from pathlib import Path

import pytest
import torch

from nnet.config import network_config
from nnet.describe import main
from nnet.device import has_bf16
from nnet.model import Network
from utils.config import load_config
from utils.errors import InputError
from utils.features.options import read_feature_options

CONF = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf"
NETWORKS = sorted(path.stem for path in CONF.glob("*.yaml") if not path.stem.startswith("ivector"))
# At full size, one for each encoder: the poolings are small in comparison.
SCALES = [(name, "mini") for name in NETWORKS] + [pytest.param(name, "full", marks=pytest.mark.long) for name in (
    "xvector", "vgg_mha", "saep_small", "fast_resnet34_sap", "resnet34_multi_resolution6",
    "sc_resnet18_mcsae", "resnet34_tstp", "fast_resnet34_cap", "ecapa_c512")]


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_every_configuration_builds_and_learns_one_batch(name, scale):
    config = network_config(load_config(CONF / f"{name}.yaml", scale), name)
    torch.manual_seed(0)
    network = Network(config, read_feature_options(CONF / f"features/{config.features}.conf").dim, 3)
    x, labels = torch.randn(4, 40, network.frontend.output_dim), torch.tensor([0, 0, 2, 2])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3 if scale == "mini" else 1e-4)
    losses = []
    for _ in range(5 if scale == "mini" else 2):
        loss, accuracy = network(x, labels)
        assert 0 <= accuracy <= 1
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def write_to_free_memory():
    """Leave NaN in free memory, so that reads of uninitialised memory show."""
    for _ in [torch.full((200_000 + 50_000 * number,), torch.nan) for number in range(40)]:
        pass


@pytest.mark.parametrize("name", ["xvector", "vgg_mha", "saep_am", "fast_resnet34_tap", "resnet34_attentive_statistics",
                                  "sc_resnet18_cross_attention", "resnet34_tstp", "ecapa_c512"])
def test_bf16_gives_what_fp32_gives(name):
    """Values and gradients of each encoder. oneDNN had a convolution that was wrong only in bf16."""
    if not has_bf16(torch.device("cpu")):
        pytest.skip("this processor has no bf16 arithmetic, so that training uses fp32; emulated, it takes minutes")
    config = network_config(load_config(CONF / f"{name}.yaml", "mini"), name)
    torch.manual_seed(0)
    network = Network(config, read_feature_options(CONF / f"features/{config.features}.conf").dim, 3).eval()
    x = torch.randn(16, 200, network.frontend.output_dim)
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        for _ in range(3):
            network.zero_grad()
            write_to_free_memory()
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                h, _ = network.encoder(x)
            h.float().square().mean().backward()
            found.setdefault(dtype, []).append([h.detach().double()] + [
                p.grad.double() for p in network.encoder.parameters() if p.grad is not None])
    expected = found[torch.float32][0]
    scale = max(value.norm() / value.numel() ** 0.5 for value in expected[1:])  # also for gradients of zero
    for values in found[torch.bfloat16]:
        assert (values[0] - expected[0]).norm() < 0.05 * expected[0].norm()
        for value, wanted in zip(values[1:], expected[1:], strict=True):
            assert (value - wanted).norm() < 0.1 * wanted.norm() + 0.01 * scale * wanted.numel() ** 0.5


@pytest.mark.parametrize(("name", "expected"), [
    ("xvector", "4380564 to the embedding"), ("vgg_mha", "13486452 to the embedding"),
    ("saep", "1158848 to the embedding"), ("saep_dk128", "880064 to the embedding"),
    ("saep_dk64", "833600 to the embedding"), ("saep_small", "462912 to the embedding"),
    ("resnet34_global4", "26000580 to the embedding"), ("resnet34_multi_resolution5", "26525893 to the embedding"),
    ("resnet34_global6", "27051206 to the embedding"), ("fast_resnet34_cap", "1436950 to the embedding"),
    ("sc_resnet18_mcsae", "15569979 total")])
def test_described_parameters_are_those_of_the_papers(capsys, monkeypatch, name, expected):
    """Fast ResNet-34: 1.4 M; SC-ResNet-18 with MCSAE: 15.6 M in all with 1,211 speakers."""
    monkeypatch.setattr("sys.argv", ["describe", str(CONF / f"{name}.yaml"), "--num-speakers", "1211"])
    main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("parameters: ")
    assert expected in last


def test_the_recipes_table_has_every_network_with_its_parameters():
    found = {}
    for line in (CONF.parent / "README.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5:
            found |= {name.strip(): cells[3] for name in cells[0].split(",")}
    for name in NETWORKS:
        config = network_config(load_config(CONF / f"{name}.yaml"), name)
        dim = read_feature_options(CONF / f"features/{config.features}.conf").dim
        with torch.device("meta"):  # only shapes
            assert found.get(name) == f"{Network(config, dim, 1211).parameters_to_embedding():,}", name


def test_wrong_configurations_name_key_and_what_is_allowed():
    good = load_config(CONF / "xvector.yaml")
    for change, message in (({"optimiser": {}}, "unknown key 'optimiser'; allowed: kind, features"),
                            ({"train": {"epochs": 0}}, "train: epochs is 0; wanted at least 1"),
                            ({"encoder": {"type": "tdnn", "channels": [8]}}, "encoder: 1 channels but 5 contexts"),
                            ({"encoder": {"type": "lstm"}}, "encoder: type is 'lstm'; allowed: tdnn, vgg"),
                            ({"head": {"layers": [{"dim": 8}]}}, "0 layers have the key `embedding`")):
        with pytest.raises(InputError, match=message):
            Network(network_config(good | change, "x.yaml"), 90, 3)
    with pytest.raises(InputError, match="encoder: 4 bands are fewer than the encoder's stride 8"):
        Network(network_config(load_config(CONF / "vgg_mha.yaml"), "x.yaml"), 4, 3)
