"""Metric losses, batches by speaker, cross attentive pooling, the diversity penalty: against loops, and bad input."""

import math

import numpy as np
import pytest
import torch
from made_up import CONFIG, write_data

from nnet.config import network_config
from nnet.losses.prototypical import Prototypical, PrototypicalOptions
from nnet.model import Network, diversity_penalty, make_part
from nnet.poolings import POOLINGS
from nnet.training.data import TrainingSet
from nnet.training.speaker_batches import SpeakerBatches
from nnet.training.train import Trainer
from utils.errors import InputError


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def dot(a, b):
    return sum(a[i] * b[i] for i in range(len(a)))


def norm(a):
    return dot(a, a).sqrt()


def similarity(kind, q, p, module):
    if kind == "prototypical":
        return -sum((q[i] - p[i]) ** 2 for i in range(len(q)))
    if kind == "normalised_prototypical":
        return dot(q, p) / norm(p)
    return module.w[0] * dot(q, p) / norm(q) / norm(p) + module.b[0]


def cross_entropy(rows, labels):
    return sum(torch.stack(row).exp().sum().log() - row[label]
               for row, label in zip(rows, labels, strict=True)) / len(rows)


def softmax_rows(module, rows):
    if hasattr(module.softmax, "weight"):  # normalised: x . W_j / ||W_j||
        return [[dot(w, row) / norm(w) for w in module.softmax.weight] for row in rows]
    affine = module.softmax.affine
    return [[dot(affine.weight[speaker], row) + affine.bias[speaker] for speaker in range(len(affine.bias))]
            for row in rows]


@pytest.mark.parametrize("kind", ["prototypical", "normalised_prototypical", "angular_prototypical"])
@pytest.mark.parametrize("utterances", [2, 3])
@pytest.mark.parametrize("softmax", [{}, {"softmax": True}, {"softmax": True, "normalised_weights": True}], ids=str)
def test_metric_losses_equal_their_equations(kind, utterances, softmax):
    torch.manual_seed(0)
    module = Prototypical(4, 5, PrototypicalOptions(type=kind, utterances=utterances, **softmax)).double()
    x, speakers = random(3 * utterances, 4).requires_grad_(), [4, 0, 2]
    labels = torch.tensor(speakers).repeat_interleave(utterances)
    loss, _ = module(x, labels)
    supports = [x[n * utterances] for n in range(3)]
    rows, true = [], []
    for n in range(3):
        for m in range(1, utterances):
            rows.append([similarity(kind, x[n * utterances + m], p, module) for p in supports])
            true.append(n)
    expected = cross_entropy(rows, true)
    if softmax:
        expected = expected + cross_entropy(softmax_rows(module, x), labels.tolist())
    torch.testing.assert_close(loss, expected)
    parts = [x, *module.parameters()]
    for ours, theirs in zip(torch.autograd.grad(loss, parts), torch.autograd.grad(expected, parts), strict=True):
        torch.testing.assert_close(ours, theirs)


def pair_in_loops(module, s, q):
    """e_s and e_q of one pair, T x d and U x d."""
    w, b = module.project.weight, module.project.bias

    def project(frames):
        return [[max(dot(w[i], frame) + b[i], 0 * frame[0]) for i in range(len(frame))] for frame in frames]

    def cosine(a, b):
        length = math.sqrt(sum(v.item() ** 2 for v in a)) * math.sqrt(sum(v.item() ** 2 for v in b))
        return dot(a, b) / (norm(a) * norm(b)) if length else 0 * a[0]

    big_s, big_q = project(s), project(q)
    r = [[cosine(a, b) for b in big_q] for a in big_s]

    def pool(r, frames):
        mu = [sum(row[j] for row in r) / len(r) for j in range(len(r[0]))]
        exponents = [(dot(mu, row) / module.temperature).exp() for row in r]
        weights = [value / sum(exponents) for value in exponents]
        return torch.stack([sum((1 + weights[t]) * frames[t][i] for t in range(len(frames))) / len(frames)
                            for i in range(frames.shape[1])])

    return pool(r, s), pool([list(column) for column in zip(*r, strict=True)], q)


def cap(width):
    torch.manual_seed(3)
    return make_part(POOLINGS, "pooling", {"type": "cross_attentive"}, width)


@pytest.mark.parametrize(("frames", "others"), [(1, 1), (1, 4), (5, 3)])
def test_cross_attentive_pooling_equals_its_equations(frames, others):
    module = cap(4).double()
    s, q = random(2, frames, 4).requires_grad_(), random(3, others, 4, seed=1).requires_grad_()
    e_s, e_q = module.pairs(module.side(s), module.side(q))
    assert e_s.shape == e_q.shape == (2, 3, 4)
    found = [[pair_in_loops(module, a, b) for b in q] for a in s]
    expected = [torch.stack([torch.stack([pair[side] for pair in row]) for row in found]) for side in (0, 1)]
    torch.testing.assert_close(e_s, expected[0])
    torch.testing.assert_close(e_q, expected[1])
    weights = random(2, 2, 3, 4, seed=2)
    parts = [s, q, *module.parameters()]
    ours = torch.autograd.grad((e_s * weights[0] + e_q * weights[1]).sum(), parts)
    theirs = torch.autograd.grad((expected[0] * weights[0] + expected[1] * weights[1]).sum(), parts)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    for row in range(2):  # called as the other poolings, each utterance is paired with itself
        torch.testing.assert_close(module(s)[row], pair_in_loops(module, s[row], s[row])[0])


def test_pairs_of_padded_utterances_are_those_of_each_alone():
    module = cap(6)
    s, q = random(2, 9, 6).float(), random(3, 7, 6, seed=1).float()
    s_lengths, q_lengths = torch.tensor([9, 4]), torch.tensor([1, 7, 5])
    e_s, e_q = module.pairs(module.side(s, s_lengths), module.side(q, q_lengths))
    for a in range(2):
        for b in range(3):
            alone = module.side(s[a:a + 1, :s_lengths[a]]), module.side(q[b:b + 1, :q_lengths[b]])
            one, other = module.pairs(*alone)
            torch.testing.assert_close(e_s[a, b], one[0, 0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(e_q[a, b], other[0, 0], atol=1e-5, rtol=1e-5)
    s[1, 4:] = 1e3
    torch.testing.assert_close(module.pairs(module.side(s, s_lengths), module.side(q, q_lengths))[0], e_s)


def test_groups_of_pairs_go_along():
    module = cap(4)
    s, q = random(5, 2, 6, 4).float(), random(5, 3, 6, 4, seed=1).float()
    e_s, e_q = module.pairs(module.side(s), module.side(q))
    for group in range(5):
        one, other = module.pairs(module.side(s[group]), module.side(q[group]))
        torch.testing.assert_close(e_s[group], one)
        torch.testing.assert_close(e_q[group], other)


@pytest.mark.parametrize("softmax", [False, True])
def test_losses_of_pairs_equal_their_equation(softmax):
    options = PrototypicalOptions(type="normalised_prototypical", utterances=3, softmax=softmax)
    module = Prototypical(4, 5, options).double()
    support, query = random(2, 4, 4), random(2, 4, 4, seed=1)  # two speakers, two queries each
    labels = torch.tensor([3, 3, 3, 1, 1, 1])
    loss, _ = module.of_pairs(support, query, labels)
    true = [0, 0, 1, 1]
    rows = [[similarity(module.type, query[n, k], support[n, k], module) for n in range(2)] for k in range(4)]
    expected = cross_entropy(rows, true)
    if softmax:
        sides = [side[n, k] for side in (support, query) for k, n in enumerate(true)]
        expected = expected + cross_entropy(softmax_rows(module, sides), [3, 3, 1, 1] * 2)
    torch.testing.assert_close(loss, expected)


def test_the_diversity_penalty_equals_its_equation():
    a = random(2, 5, 3)
    total = 0.0
    for weights in a:
        for i in range(3):
            for j in range(3):
                total += (sum(weights[t, i] * weights[t, j] for t in range(5)) - int(i == j)) ** 2
    torch.testing.assert_close(diversity_penalty(a), total / 2)


BY_SPEAKER = {"type": "normalised_prototypical", "utterances": 2, "softmax": True}


def config(**changes):
    return network_config(CONFIG | {"loss": BY_SPEAKER} | changes, "x.yaml")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return write_data(folder / "train", 6, 10, 0), write_data(folder / "valid", 3, 6, 1, trials=True)


def test_batches_hold_so_many_utterances_of_each_speaker_and_no_speaker_twice(corpus):
    data, again = (TrainingSet(corpus[0], config(loss=BY_SPEAKER | {"utterances": 4}), seed=5) for _ in range(2))
    assert data.batch_size == 8
    assert data.steps_per_epoch == 6  # two rounds of groups of four, three batches of two speakers each
    seen = []
    for step in range(data.steps_per_epoch):
        speakers = data.labels[data.chosen(step)].reshape(2, 4)
        assert (speakers == speakers[:, :1]).all()
        assert len(set(speakers[:, 0])) == 2
        seen += data.chosen(step).tolist()
        np.testing.assert_array_equal(data.batch(step)[0], again.batch(step)[0])
    assert len(set(seen)) == len(seen) == 48
    assert not np.array_equal(data.chosen(0), again.chosen(data.steps_per_epoch))


def test_speakers_with_few_utterances_do_not_stop_the_others():
    labels = np.repeat(np.arange(5), [7, 1, 4, 2, 9])
    batches = SpeakerBatches(labels, 6, 2, "prototypical")
    assert batches.steps == 2  # four speakers have a first pair, three a second, two a third
    order = batches.order(np.random.default_rng(0)).reshape(-1, 3, 2)
    assert len(order) == 2
    assert all(len(set(labels[batch][:, 0])) == 3 for batch in order)
    assert not (labels[order] == 1).any()


def test_a_corpus_with_one_utterance_a_speaker_is_refused(tmp_path):
    alone = write_data(tmp_path / "alone", 6, 1, 0)
    with pytest.raises(InputError, match="loss: normalised_prototypical needs 2 utterances .loss.utterances. of .*"
                                         "0 of the 6 speakers have that many, the most is 1; allowed: .*softmax"):
        TrainingSet(alone, config(), seed=1)


@pytest.mark.parametrize(("change", "message"), [
    ({"loss": BY_SPEAKER | {"utterances": 3}}, "batch_size is 8, not a multiple of the 3 utterances"),
    ({"loss": BY_SPEAKER | {"softmax": False, "normalised_weights": True}},
     "loss: normalised_weights is true and softmax false"),
    ({"loss": BY_SPEAKER | {"utterances": 1}}, "loss: utterances is 1; wanted at least 2"),
    ({"loss": {"type": "softmax", "margin": 0.3, "utterances": 9}},
     "loss: softmax has no option 'margin'; allowed: type, diversity"),
    ({"loss": {"utterances": 9}}, "loss: softmax has no option 'utterances'"),
    ({"loss": {"type": "softmax", "softmax": True}}, "loss: softmax has no option 'softmax'"),
    ({"loss": {"type": "a_softmax", "margin": 4, "scale": 30}}, "loss: a_softmax has no option 'scale'"),
    ({"loss": {"type": "a_softmax"}}, "loss: key 'margin' is missing"),
    ({"loss": BY_SPEAKER | {"scale": 30}}, "loss: normalised_prototypical has no option 'scale'"),
    ({"loss": {"type": "am_softmax", "softmax": True}}, "loss: am_softmax has no option 'softmax'"),
    ({"loss": {"type": "a_softmax", "margin": 0.2}}, "margin is 0.2; wanted 2, 3 or 4"),
    ({"loss": {"type": "am_softmax", "margin": 4}}, "margin is 4; wanted at least 0 and below 1.5708"),
    ({"train": CONFIG["train"] | {"accumulate": 2}}, "accumulate is 2 and shuffle_mb 0"),
    ({"loss": {"type": "triplet"}}, "loss: type is 'triplet'; allowed: softmax, a_softmax"),
])
def test_unfit_losses_are_named(change, message):
    with pytest.raises(InputError, match=message):
        config(**change)


@pytest.mark.parametrize(("change", "message"), [
    ({"loss": {"type": "softmax"}, "pooling": {"type": "cross_attentive"}},
     "pooling: type is cross_attentive, which pools pairs, but loss: type is softmax; allowed: prototypical"),
    ({"loss": {"diversity": 0.1}}, "loss: diversity is 0.1, but pooling: type is statistics, .*allowed: multi_head"),
    ({"pooling": {"type": "cross_attentive", "temperature": 0}}, "temperature is 0; wanted above 0"),
])
def test_unfit_pairs_of_pooling_and_loss_are_named(change, message):
    with pytest.raises(InputError, match=message):
        Network(config(**change), 10, 3)


POOLED = [("normalised_prototypical", True, "temporal"), ("angular_prototypical", False, "self_attentive"),
          ("prototypical", True, "cross_attentive"), ("normalised_prototypical", True, "cross_attentive"),
          ("a_softmax", False, "multi_head"), ("aam_softmax", False, "diverse")]


@pytest.mark.parametrize(("loss", "softmax", "pooling"), POOLED)
def test_networks_train_with_them(corpus, tmp_path, loss, softmax, pooling):
    options = {"type": loss, **({"softmax": True} if softmax else {}), **({"margin": 4} if loss == "a_softmax" else {})}
    if pooling == "diverse":
        options["diversity"], pooling = 0.5, "multi_head"
    found = config(loss=options, pooling={"type": pooling, **({"heads": 4} if pooling == "multi_head" else {})},
                   train=CONFIG["train"] | {"epochs": 12})
    torch.set_num_threads(1)
    Trainer(found, *corpus, tmp_path / "x", torch.device("cpu"), seed=1).run()
    rows = [line.split("\t") for line in (tmp_path / "x/log/train.tsv").read_text().splitlines()[1:]]
    assert float(rows[-1][2]) < float(rows[0][2])
    assert 0 <= float(rows[-1][3]) <= 1
