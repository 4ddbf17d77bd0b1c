"""Distillation: its equation, its teachers, and what it refuses."""

import pytest
import torch
from made_up_training import CPU, SHORT, changed, kill, make_corpus, same, trainer, weights

from nnet.config import network_config
from nnet.embed import load_network
from nnet.model import make_network
from nnet.training.distillation import Teachers
from utils.errors import InputError

BESIDE = {"type": "side_by_side", "poolings": [{"type": "temporal"}, {"type": "statistics"}]}
LONGER = {"accumulate": 2, "epochs": 15, "batch_size": 20}
TAUGHT = changed(distil={"models": ["one", "two"], "weight": 20.0}, train=LONGER)
PAIRS = {"loss": {"type": "normalised_prototypical", "softmax": True}, "pooling": {"type": "cross_attentive"}}


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / a.norm() / b.norm()


def cosines_in_loops(e):
    return [[cosine(a, b) for b in e] for a in e]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    """Two teachers, the second with two heads; `taught`, their student; `alone`, the same without teachers."""
    folder = tmp_path_factory.mktemp("exp")
    trainer(corpus, folder / "one", changed(train={"epochs": 10})).run()
    trainer(corpus, folder / "two", changed(pooling=BESIDE, train={"epochs": 10})).run()
    trainer(corpus, folder / "taught", TAUGHT).run()
    trainer(corpus, folder / "alone", changed(train=LONGER)).run()
    return folder


@pytest.mark.parametrize("pooling", [{"type": "statistics"}, BESIDE], ids=["one", "two"])
def test_the_loss_equals_its_equation(pooling):
    config = network_config(changed(pooling=pooling, distil={"models": ["a"], "weight": 3.0}), "x")
    torch.manual_seed(0)
    network = make_network(config, 10, 4).eval().double()
    x, labels = torch.randn(5, 40, 10, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])
    targets = torch.rand(5, 5, dtype=torch.float64)
    without, with_targets = network(x, labels)[0], network(x, labels, None, targets)[0]
    heads = 2 if pooling is BESIDE else 1
    total = 0.0
    for part in network.head(network.pool(x)).chunk(heads, dim=1):
        found = cosines_in_loops(part)
        total = total + sum((found[i][j] - targets[i, j])**2 for i in range(5) for j in range(5))
    torch.testing.assert_close(with_targets - without, 3.0 * total / heads / 5)


def test_teachers_give_the_mean_of_their_cosines_and_do_not_learn(corpus, folder):
    config = network_config(TAUGHT, "x")
    teachers = Teachers(config.distil, config, corpus[0], folder / "new", CPU)
    x = torch.randn(4, 30, 10)
    one, two = (load_network(folder / name)[0] for name in ("one", "two"))
    first, second = (torch.stack([torch.tensor(cosines_in_loops(part)) for part in parts]).mean(dim=0) for parts in (
        [one.head(one.pool(x)).detach()], two.head(two.pool(x)).detach().chunk(2, dim=1)))
    expected = (first + second) / 2
    torch.testing.assert_close(teachers.similarities(x), expected)
    assert not any(parameter.requires_grad for network in teachers.networks for parameter in network.parameters())


def test_a_student_agrees_more_with_its_teachers(corpus, folder):
    assert weights(folder / "taught").keys() == weights(folder / "alone").keys()
    config = network_config(TAUGHT, "x")
    targets = Teachers(config.distil, config, corpus[0], folder / "new", CPU)
    data = trainer(corpus, folder / "new").data
    away = dict.fromkeys(("taught", "alone"), 0.0)
    for name in away:
        network, _ = load_network(folder / name)
        for step in range(5):
            x = data.batch(step).x
            away[name] += (network.similarities(x) - targets.similarities(x)).square().mean().item()
    assert away["taught"] < 0.8 * away["alone"]


def test_killed_and_resumed_it_ends_with_the_same_bits(corpus, folder):
    kill(trainer(corpus, folder / "killed", TAUGHT), 13)
    trainer(corpus, folder / "killed", TAUGHT).run()
    assert same(weights(folder / "killed"), weights(folder / "taught"))


@pytest.mark.parametrize(("changes", "message"), [
    ({"distil": {"models": []}}, "distil: models is empty; wanted the names of one system or more"),
    ({"distil": {"models": ["one", "three"]}}, "distil: models: no .*/three/model.safetensors; train three first"),
    ({"distil": {"models": ["one"], "weight": 0}}, "distil: weight is 0; wanted above 0"),
    ({"distil": {"models": ["one"]}, "frontend": {"cmn": "none"}},
     "distil: models: .*/one has frontend: .*cmn='chunk'.*, this network .*cmn='none'.*; wanted the same"),
    (PAIRS | {"distil": {"models": ["one"]}}, "distil: pooling: type is cross_attentive, which pools pairs"),
])
def test_what_cannot_be_learnt_from_is_refused(corpus, folder, changes, message):
    with pytest.raises(InputError, match=message):
        trainer(corpus, folder / "refused", SHORT | changes)
    assert not (folder / "refused").exists()


def test_teachers_that_pool_pairs_are_refused(corpus, folder):
    trainer(corpus, folder / "pairs", SHORT | PAIRS).run()
    with pytest.raises(InputError, match="distil: models: .*/pairs pools pairs"):
        trainer(corpus, folder / "refused", changed(distil={"models": ["pairs"]}))
