"""Several poolings beside each other, with heads, classifiers and branches of the encoder of their own."""

import pytest
import torch

from nnet.config import network_config
from nnet.encoders import ENCODERS
from nnet.model import Network, make_part
from tests.unit.made_up import CONFIG
from utils.errors import InputError

THIN = {"type": "resnet", "channels": [4, 6], "blocks": [1, 1], "strides": [1, 2]}
POOLINGS = [{"type": "temporal"}, {"type": "statistics"}, {"type": "multi_head", "heads": 2}]
LOSS = {"type": "aam_softmax", "scale": 10, "margin": 0.3}


def network_of(branches=1, **changes) -> Network:
    encoder = THIN | ({"branches": branches, "shared_stages": 1} if branches > 1 else {})
    pooling = {"type": "side_by_side", "poolings": POOLINGS, "of_branches": branches > 1}
    torch.manual_seed(2)
    config = network_config(CONFIG | {"encoder": encoder, "pooling": pooling, "loss": LOSS} | changes, "x")
    return Network(config, 12, 5)


@pytest.mark.parametrize("branches", [1, 3])
def test_each_pooling_has_its_head_and_its_classifier(branches):
    """The network against its parts, called one by one."""
    network, x = network_of(branches), torch.randn(4, 30, 12)
    labels = torch.tensor([0, 1, 4, 2])
    network.loss.margin_share = 0.5
    network.eval()
    h, _ = network.frames(x)
    shares = h.chunk(branches, dim=2) * (3 // branches)
    assert len(shares) == 3
    embeddings, losses = [], []
    for share, pooling, head, loss in zip(shares, network.pooling.poolings, network.head.heads, network.loss.losses,
                                          strict=True):
        assert loss.margin_share == 0.5
        embeddings.append(head.embed(pooling(share)))
        losses.append(loss(head(pooling(share)), labels)[0])
    torch.testing.assert_close(network.embed_features(x), torch.cat(embeddings, dim=1))
    torch.testing.assert_close(network(x, labels)[0], torch.stack(losses).mean())
    assert network.head.embedding_dim == sum(vector.shape[1] for vector in embeddings)
    classifiers = sum(parameter.numel() for parameter in network.loss.parameters())
    unused = [part for head in network.head.heads for part in head.parameters()
              if all(part is not used for module in head.modules_to_embedding() for used in module.parameters())]
    assert network.parameters_to_embedding() == sum(parameter.numel() for parameter in network.parameters()) - (
        classifiers + sum(part.numel() for part in unused))


def test_attention_weights_are_those_of_the_poolings_that_have_some():
    network, x = network_of().eval(), torch.randn(2, 30, 12)
    h, _ = network.frames(x)
    torch.testing.assert_close(network.pooling.weights(h), network.pooling.poolings[2].weights(h))
    plain = network_of(pooling={"type": "side_by_side", "poolings": POOLINGS[:2]})
    assert not hasattr(plain.pooling, "weights")


def test_branches_share_the_first_stages_alone():
    encoder = make_part(ENCODERS, "encoder", THIN | {"branches": 2, "shared_stages": 1}, 12).eval()
    plain = make_part(ENCODERS, "encoder", THIN, 12).eval()
    x = torch.randn(2, 20, 12)
    for number, branch in enumerate(encoder.branches):
        state = {name: value for name, value in encoder.state_dict().items() if not name.startswith("branches.")}
        state |= {f"stages.1.{name.removeprefix('0.')}": value for name, value in branch.state_dict().items()}
        plain.load_state_dict(state)
        torch.testing.assert_close(encoder(x)[0].chunk(2, dim=2)[number], plain(x)[0])
    assert encoder.output_dim == 2 * plain.output_dim


@pytest.mark.parametrize(("changes", "message"), [
    ({"pooling": {"type": "side_by_side", "poolings": POOLINGS, "of_branches": True}},
     "pooling: of_branches is true with 3 poolings, but the encoder has 1 of them"),
    ({"pooling": {"type": "side_by_side", "poolings": POOLINGS[:1]}}, "1 poolings; wanted two or more"),
    ({"pooling": {"type": "side_by_side", "poolings": [*POOLINGS, {"type": "none"}]}},
     "pooling: poolings, number 4: type is 'none'; allowed: "),
    ({"pooling": {"type": "side_by_side", "poolings": [*POOLINGS, {"type": "cross_attentive"}]}},
     "pooling: poolings, number 4, has type cross_attentive, which cannot stand beside others"),
    ({"encoder": THIN | {"shared_stages": 1}}, r"shared_stages is 1; wanted 0, or with several branches \(branches"),
    ({"encoder": THIN | {"branches": 2, "shared_stages": 2}}, "shared_stages is 2; .*fewer than the 2 stages"),
    ({"encoder": THIN | {"branches": 2, "frequency": "convolution"}},
     "branches is 2 and frequency convolution; wanted one branch"),
])
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        network_of(**changes)
