"""Learning-rate schedules, optimisers and random chunk lengths in training and after a resume."""

import numpy as np
import pytest
import torch
from made_up import CONFIG, write_data

from nnet.config import network_config
from nnet.losses.softmax import MarginOptions
from nnet.training.data import TrainingSet
from nnet.training.optimizers import (
    ExponentialOptions,
    OptimizerOptions,
    SgdOptions,
    StepOptions,
    learning_rate,
    make_optimizer,
)
from nnet.training.train import Trainer
from utils.errors import InputError

TRAIN = CONFIG["train"] | {"epochs": 6}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    return write_data(folder / "train", 4, 6, 0), write_data(folder / "valid", 3, 4, 1, trials=True)


def trainer(corpus, exp, **changes):
    torch.set_num_threads(1)
    return Trainer(network_config(CONFIG | changes, "x"), *corpus, exp, torch.device("cpu"), seed=1)


def test_the_rate_falls_by_a_factor_every_so_many_epochs():
    schedule = StepOptions(type="step", every=10, factor=0.95)
    rates = [learning_rate(schedule, step, 300, epochs=30) for step in range(300)]  # ten steps per epoch
    assert rates[:100] == [1.0] * 100
    assert rates[100:200] == [0.95] * 100
    assert rates[200:] == [pytest.approx(0.95**2)] * 100


def test_the_rate_falls_exponentially_after_a_warm_up_in_epochs():
    """wespeaker's schedule: lr(i) = i / (6 epochs) at first, times exp(i / N ln(final)), for N steps."""
    schedule = ExponentialOptions(type="exponential", warmup_epochs=6, final=5e-4)
    for step in (0, 1, 30, 59, 60, 700, 1499):  # 150 epochs of ten steps
        warm = min(1, (step + 1) / 60)
        assert learning_rate(schedule, step, 1500, epochs=150) == pytest.approx(
            warm * np.exp(step / 1500 * np.log(5e-4)), rel=1e-9)


@pytest.mark.parametrize(("growth", "half"), [("linear", 0.5), ("exponential", 1 - 0.001**0.5)])
def test_the_margin_grows_from_one_epoch_to_another(growth, half):
    loss = MarginOptions(type="aam_softmax", margin_start=0.1, margin_warmup=0.2, margin_growth=growth)
    shares = [loss.margin_share(trained) for trained in (0, 0.1, 0.2, 0.301, 0.4, 1)]
    assert shares == pytest.approx([0, 0, half, 1, 1, 1])
    assert MarginOptions(type="am_softmax").margin_share(0) == 1
    at_once = MarginOptions(type="aam_softmax", margin_start=0.1, margin_growth=growth)
    assert [at_once.margin_share(trained) for trained in (0, 0.09, 0.1, 1)] == [0, 0, 1, 1]


def test_nesterovs_step_looks_ahead():
    """Sutskever et al. 2013 as PyTorch writes it: v = mu v + g, theta -= lr (g + mu v)."""
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = make_optimizer(SgdOptions(type="sgd", lr=0.1, nesterov=True), [parameter])
    theta, v = 1.0, 0.0
    for t in range(4):
        parameter.grad = torch.tensor([np.cos(t)])
        optimizer.step()
        v = 0.9 * v + np.cos(t)
        theta -= 0.1 * (np.cos(t) + 0.9 * v)
    assert parameter.item() == pytest.approx(theta, rel=1e-12)


def test_a_pass_over_the_data_can_make_several_epochs(corpus):
    def of(**changes):
        return TrainingSet(corpus[0], network_config(CONFIG | {"train": CONFIG["train"] | changes}, "x"), seed=3)

    whole, thirds = of(batch_size=4), of(batch_size=4, epochs_per_pass=3)
    assert (whole.steps_per_epoch, thirds.steps_per_epoch) == (6, 2)
    for step in range(12):
        np.testing.assert_array_equal(whole.chosen(step), thirds.chosen(step))
    with pytest.raises(InputError, match="epochs_per_pass is 7, but a pass over .* has only 6 steps"):
        of(batch_size=4, epochs_per_pass=7)


def test_without_a_limit_gradients_keep_their_length(corpus, tmp_path):
    """SGD moves by lr times the gradient, or, with a limit of c, by lr c at the most."""
    for clip, moved in ((0, None), (1e-3, 1e-4)):
        found = trainer(corpus, tmp_path / str(clip), train=TRAIN | {"clip": clip},
                        optimizer={"type": "sgd", "lr": 0.1, "momentum": 0}, schedule={"type": "constant"})
        before = torch.cat([p.detach().clone().flatten() for p in found.trained])
        found.model = found.network
        norm = found.train_step(0, found.data.batch(0))[2].item()
        length = (torch.cat([p.detach().flatten() for p in found.trained]) - before).norm().item()
        assert length == pytest.approx(moved or 0.1 * norm, rel=1e-3)


def test_the_rate_falls_on_plateaus_of_the_validation_also_through_a_resume(corpus, tmp_path):
    changes = {"schedule": {"type": "plateau", "factor": 0.1, "patience": 2}, "optimizer": {"type": "sgd", "lr": 0.01},
               "train": TRAIN | {"checkpoint_steps": 1}}
    eers = iter([9.0, 9.5, 9.4, 8.0, 8.1, 8.2])  # no better for two epochs: after the third and after the sixth

    def begin():
        found = trainer(corpus, tmp_path / "x", **changes)
        found.validation.eer = lambda network, device: next(eers)
        return found

    first = begin()
    save = first.save

    def save_and_die():
        save()
        if first.step == 3 * first.data.steps_per_epoch + 1:
            raise KeyboardInterrupt

    first.save = save_and_die
    with pytest.raises(KeyboardInterrupt):
        first.run()
    second = begin()
    second.run()
    rates = [line.split("\t")[4] for line in (tmp_path / "x/log/train.tsv").read_text().splitlines()[1:]]
    assert rates == ["0.01", "0.01", "0.01", "0.001", "0.001", "0.001"]
    assert second.drops == 2


@pytest.mark.parametrize("kind", ["adam", "adamw", "radam", "sgd"])
def test_every_optimiser_learns(corpus, tmp_path, kind):
    found = trainer(corpus, tmp_path / kind, optimizer={"type": kind, "lr": 0.01, "weight_decay": 1e-4}, train=TRAIN,
                    loss={"type": "softmax"})
    found.run()
    losses = [float(line.split("\t")[2]) for line in (tmp_path / kind / "log/train.tsv").read_text().splitlines()[1:]]
    assert losses[-1] < losses[0]


def test_radam_takes_the_steps_of_its_paper():
    """Liu et al. 2020, algorithm 2, in plain numbers: only momentum while the variance is not tractable."""
    parameter = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    optimizer = make_optimizer(OptimizerOptions(type="radam", lr=0.1), [parameter])
    theta, m, v = 1.0, 0.0, 0.0
    longest = 2 / (1 - 0.999) - 1
    for t in range(1, 12):
        parameter.grad = torch.tensor([np.sin(t) + parameter.item()])
        gradient = np.sin(t) + theta
        optimizer.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        mean = m / (1 - 0.9**t)
        length = longest - 2 * t * 0.999**t / (1 - 0.999**t)
        if length > 5:
            r = np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))
            theta -= 0.1 * r * mean / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        else:
            theta -= 0.1 * mean
        assert parameter.item() == pytest.approx(theta, rel=1e-6)


def test_every_step_draws_the_length_of_its_chunks(corpus):
    config = network_config(CONFIG | {"train": CONFIG["train"] | {"chunk_frames": 20, "max_chunk_frames": 70}}, "x")
    data, again = (TrainingSet(corpus[0], config, seed=3) for _ in range(2))
    shapes = {data.batch(step)[0].shape for step in range(40)}
    lengths = {shape[1] for shape in shapes}
    assert {shape[::2] for shape in shapes} == {(8, 10)}
    assert min(lengths) >= 20
    assert max(lengths) <= 70
    assert len(lengths) > 20
    np.testing.assert_array_equal(data.batch(7)[0], again.batch(7)[0])


@pytest.mark.parametrize(("change", "message"), [
    ({"schedule": {"type": "step", "factor": 1.5}}, "schedule: factor is 1.5; wanted above 0 and below 1"),
    ({"schedule": {"type": "plateau", "patience": 0}}, "schedule: patience is 0; wanted at least 1"),
    ({"schedule": {"type": "cosine", "patience": 3}}, "schedule: cosine has no option 'patience'; allowed: type"),
    ({"schedule": {"type": "step", "final": 0.1}}, "schedule: step has no option 'final'"),
    ({"schedule": {"factor": 0.1}}, "schedule: constant has no option 'factor'"),
    ({"optimizer": {"type": "adam", "momentum": 0.9}}, "optimizer: adam has no option 'momentum'; allowed: type, lr"),
    ({"optimizer": {"type": "sgd", "momentum": 0, "nesterov": True}}, "optimizer: nesterov is true and momentum 0"),
    ({"schedule": {"type": "exponential", "final": 0}}, "schedule: final is 0; wanted above 0 and at most 1"),
    ({"schedule": {"warmup_steps": 5, "warmup_epochs": 1}}, "warmup_steps is 5 and warmup_epochs 1; leave one out"),
    ({"loss": {"type": "softmax", "margin_start": 0.1}}, "loss: softmax has no option 'margin_start'"),
    ({"frontend": {"cmn": "utterance"}, "online": {"kinds": ["noise"]}, "train": {"epochs": 1}},
     "online: frontend.cmn is utterance, but .* wanted chunk, sliding or none"),
    ({"optimizer": {"type": "sgd", "lr": 0}}, "optimizer: lr is 0; wanted above 0"),
    ({"optimizer": {"lr": "nan"}}, "optimizer: lr: 'nan' is not a finite number"),
    ({"optimizer": {"weight_decay": -0.1}}, "optimizer: weight_decay is -0.1; wanted at least 0"),
    ({"average": {"type": "ema", "epochs": 3}}, "average: ema has no option 'epochs'; allowed: type, decay"),
    ({"average": {"type": "epochs", "decay": 0.9}}, "average: epochs has no option 'decay'"),
    ({"average": {"decay": 0.9}}, "average: none has no option 'decay'"),
    ({"frontend": {"cmn": "utterance", "cmn_window": 200}}, "frontend: cmn_window is 200, but cmn is utterance"),
    ({"frontend": {"delta_window": 3}}, "frontend: delta_window is 3, but deltas is 0"),
    ({"frontend": None}, "frontend: expected keys, found None"),
    ({"train": {"epochs": 1, "clip": -1}}, "train: clip is -1; wanted at least 0"),
    ({"train": {"epochs": 1, "patience": -1}}, "train: patience is -1; wanted at least 0"),
    ({"train": {"epochs": 1, "max_chunk_frames": 200}}, "max_chunk_frames is 200 and chunk_frames 300"),
])
def test_unfit_values_are_named(change, message):
    with pytest.raises(InputError, match=message):
        network_config(CONFIG | change, "x")
