"""Encoders and poolings beside each other, each with a head and a classifier of its own."""

import pytest
import torch

from nnet.config import network_config
from nnet.encoders import ENCODERS
from nnet.model import Network, make_part
from tests.unit.made_up import CONFIG
from utils.errors import InputError

THIN = {"type": "resnet", "channels": [4, 6], "blocks": [1, 1], "strides": [1, 2]}
TDNN = {"type": "tdnn", "channels": [5, 8], "contexts": [[-2, 0, 2], [0]]}
VGG = {"type": "vgg", "channels": [3]}
ENCODERS_APART = {"type": "side_by_side", "encoders": [THIN, TDNN, VGG]}
POOLINGS = [{"type": "temporal"}, {"type": "statistics"}, {"type": "multi_head", "heads": 2}]
LOSS = {"type": "aam_softmax", "scale": 10, "margin": 0.3}


def network_of(apart=False, **changes) -> Network:
    pooling = {"type": "side_by_side", "poolings": POOLINGS, "of_encoders": apart}
    torch.manual_seed(2)
    config = network_config(CONFIG | {"encoder": ENCODERS_APART if apart else THIN, "pooling": pooling, "loss": LOSS}
                            | changes, "x")
    return Network(config, 12, 5)


@pytest.mark.parametrize("apart", [False, True])
def test_each_pooling_has_its_head_and_its_classifier(apart):
    """The network against its parts, called one by one."""
    network, x = network_of(apart), torch.randn(4, 30, 12)
    labels = torch.tensor([0, 1, 4, 2])
    network.loss.margin_share = 0.5
    network.eval()
    h, _ = network.frames(x)
    if apart:
        resnet, tdnn, vgg = (encoder(x)[0] for encoder in network.encoder.encoders)
        assert (resnet.shape[1], tdnn.shape[1], vgg.shape[1]) == (15, 26, 15)
        shares = [resnet[:, :13], tdnn[:, ::2], vgg[:, :13]]  # the rate of the slowest, the length of the shortest
    else:
        shares = [h] * 3
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


def test_encoders_are_those_that_stand_alone():
    """One pooling may take all their frames, too."""
    encoder = make_part(ENCODERS, "encoder", ENCODERS_APART, 12).eval()
    x, lengths = torch.randn(2, 23, 12), torch.tensor([23, 11])
    h, found = encoder(x, lengths)
    assert found.tolist() == [10, 4]  # ResNet: 12 and 6; TDNN: every second of 19 and 7; VGG: 11 and 5
    assert encoder.dims == (36, 8, 18)
    shares = h.split(encoder.dims, dim=2)
    for kind, inner, share in zip(ENCODERS_APART["encoders"], encoder.encoders, shares, strict=True):
        alone = make_part(ENCODERS, "encoder", kind, 12).eval()
        alone.load_state_dict(inner.state_dict())
        frames, _ = alone(x, lengths)
        torch.testing.assert_close(share, frames[:, ::2 // alone.stride][:, :10])
    network = network_of(encoder=ENCODERS_APART, pooling={"type": "statistics"})
    assert network.pooling.output_dim == 2 * 62


@pytest.mark.parametrize(("changes", "message"), [
    ({"pooling": {"type": "side_by_side", "poolings": POOLINGS, "of_encoders": True}},
     "pooling: of_encoders is true, but encoder: type is resnet; wanted side_by_side"),
    ({"encoder": ENCODERS_APART, "pooling": {"type": "side_by_side", "poolings": POOLINGS[:2], "of_encoders": True}},
     "pooling: of_encoders is true with 2 poolings, but encoder: type side_by_side has 3 encoders; wanted as many"),
    ({"pooling": {"type": "side_by_side", "poolings": POOLINGS[:1]}}, "1 poolings; wanted two or more"),
    ({"pooling": {"type": "side_by_side", "poolings": [*POOLINGS, {"type": "none"}]}},
     "pooling: poolings, number 4: type is 'none'; allowed: "),
    ({"pooling": {"type": "side_by_side", "poolings": [*POOLINGS, {"type": "cross_attentive"}]}},
     "pooling: poolings, number 4, has type cross_attentive, which cannot stand beside others"),
    ({"encoder": ENCODERS_APART | {"encoders": [THIN]}}, "1 encoders; wanted two or more"),
    ({"encoder": ENCODERS_APART | {"encoders": [THIN, {"type": "lstm"}]}},
     "encoder: encoders, number 2: type is 'lstm'; allowed: "),
    ({"encoder": ENCODERS_APART | {"encoders": [THIN, {"type": "sc_resnet"}]}},
     "encoder: encoders, number 2, has type sc_resnet, which cannot stand beside others"),
    ({"encoder": ENCODERS_APART | {"encoders": [ENCODERS_APART, THIN]}},
     "encoder: encoders, number 1, has type side_by_side, which cannot stand beside others"),
    ({"encoder": ENCODERS_APART | {"encoders": [VGG, THIN | {"strides": [1, 3]}]}},
     "encoder: encoders, number 1, returns a frame for 2 of its input, another one for 3; wanted a multiple of it"),
])
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        network_of(**changes)
