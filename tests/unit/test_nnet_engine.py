"""The training engine: stopping, resuming, averages, several processes, starting from a model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from made_up import CONFIG, write_data
from made_up_training import SHORT, changed, kill, make_corpus, same, trainer, weights
from safetensors.torch import load_file

from nnet.config import network_config
from nnet.training.data import TrainingSet
from utils.config import load_config
from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """An uninterrupted run with every feature switched on."""
    exp = tmp_path_factory.mktemp("whole") / "x"
    trainer(corpus, exp, EVERYTHING).run()
    return exp


VGG = {"type": "vgg", "channels": [4, 8], "batch_norm": True}
EVERYTHING = changed(train={"accumulate": 2, "checkpoint_steps": 3, "shuffle_mb": 1},
                     average={"type": "ema", "decay": 0.8})


@pytest.mark.parametrize("place", [3, 13, "validation", *(pytest.param(place, marks=pytest.mark.long)
                                                         for place in (0, 1, 6, 7, 20, "finish"))])
def test_killed_at_any_step_it_ends_with_the_same_bits(corpus, tmp_path, whole, place):
    kill(trainer(corpus, tmp_path / "x", EVERYTHING), place)
    trainer(corpus, tmp_path / "x", EVERYTHING).run()
    assert same(weights(tmp_path / "x"), weights(whole))
    ours, theirs = ([line.split("\t")[:6] for line in (exp / "log/train.tsv").read_text().splitlines()]
                    for exp in (tmp_path / "x", whole))
    assert ours == theirs


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_moments_of_convolutions_keep_their_order(corpus, tmp_path, optimizer):
    """A fused optimiser reads weights and moments as they lie in memory, and the weights' channels lie last there."""
    config = changed(encoder={"type": "resnet", "channels": [4, 8], "blocks": [1, 1],
                              "strides": [1, 2]},
                     optimizer={"type": optimizer}, train={"checkpoint_steps": 3, "epochs": 1})
    trainer(corpus, tmp_path / "whole", config).run()
    kill(trainer(corpus, tmp_path / "killed", config), 5)
    trainer(corpus, tmp_path / "killed", config).run()
    assert same(weights(tmp_path / "killed"), weights(tmp_path / "whole"))


def test_a_batch_that_breaks_the_training_is_kept(corpus, tmp_path):
    broken = trainer(corpus, tmp_path / "x")
    step = broken.train_step

    def train_step(number, batch):
        return step(number, batch._replace(x=batch.x * (torch.nan if number == 4 else 1)))

    broken.train_step = train_step
    with pytest.raises(InputError, match=r"the loss at step 4 is nan.*bad_batch\.0\.safetensors"):
        broken.run()
    kept = load_file(tmp_path / "x/log/bad_batch.0.safetensors")
    for name, part in TrainingSet(corpus[0], network_config(SHORT, "x"), seed=1).batch(4)._asdict().items():
        assert torch.equal(kept[name], part)
    assert not (tmp_path / "x/checkpoint.safetensors").exists()  # nothing damaged was saved


def test_accumulated_gradients_are_those_of_the_mean_loss_over_the_parts(corpus, tmp_path):
    config = changed(train={"accumulate": 4, "precision": "fp32", "clip": 1e9}, head={"dropout": 0.0})
    ours, reference = trainer(corpus, tmp_path / "a", config), trainer(corpus, tmp_path / "b", config)
    batch = ours.data.batch(0)
    ours.model = ours.network
    loss, *_ = ours.train_step(0, batch)
    reference.network.loss.margin_share = 0.0
    losses = [reference.network(*(part if part is None else part[i:i + 2] for part in batch))[0]
              for i in range(0, 8, 2)]
    (sum(losses) / 4).backward()
    assert loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-6)
    for one, other in zip(ours.network.parameters(), reference.network.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def first_matrix(state):
    return next(name for name, value in state.items() if value.ndim > 1)


@pytest.mark.parametrize("encoder", [CONFIG["encoder"], VGG])  # the latter keeps a truth value beside its weights
def test_averages_are_those_of_their_definitions(corpus, tmp_path, encoder):
    seen = {}
    for kind, options in (("ema", {"decay": 0.9}), ("epochs", {"epochs": 2})):
        run = trainer(corpus, tmp_path / kind, changed(average={"type": kind, **options}, encoder=encoder))
        values, step, name = [], run.optimizer.step, first_matrix(run.network.state_dict())

        def noted(*, run=run, values=values, step=step, name=name):
            step()
            values.append(run.network.state_dict()[name].double().clone())

        run.optimizer.step = noted
        run.run()
        found = weights(tmp_path / kind)
        assert found.get("encoder.channels_first", torch.ones(1)).all()
        seen[kind] = values, found[name].double()
    values, found = seen["ema"]
    mean = values[0]
    for value in values[1:]:
        mean = 0.9 * mean + 0.1 * value
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-6)
    values, found = seen["epochs"]
    torch.testing.assert_close(found, (values[13] + values[20]) / 2, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="needs train.patience 0"):
        trainer(corpus, tmp_path / "y", changed(average={"type": "epochs"}, train={"patience": 3}))


def test_a_shuffle_buffer_keeps_to_its_blocks(tmp_path, monkeypatch):
    data = write_data(tmp_path / "data", 6, 50, 0)
    monkeypatch.setattr("nnet.training.shuffle_buffer.BLOCK", 4000)
    config = network_config(changed(train={"shuffle_mb": 1}), "x")
    found = TrainingSet(data, config, seed=1)
    found._blocks.buffer = 40_000
    order = np.concatenate([found.chosen(step) for step in range(found.steps_per_epoch)])
    blocks = found._blocks
    assert len(blocks.file) > 50
    assert len(blocks.groups) > 4
    assert len(set(order.tolist())) == found.steps_per_epoch * 8
    first = blocks.ends[0]
    inside = {int(u) for block in blocks.groups[0] for u in blocks.place[blocks.first[block]:blocks.first[block + 1]]}
    assert set(order[:first].tolist()) == inside  # an epoch's start is its first group ...
    assert list(order[:first]) != sorted(order[:first])  # ... shuffled
    assert sum(blocks.stop[b] - blocks.start[b] for b in blocks.groups[0]) <= 44_000


RECORD = """
import json, sys
from pathlib import Path
import torch
from torch import distributed as dist
from nnet.config import read_network_config
from nnet.training.distributed import gather, start_processes
from nnet.training.train import Trainer

torch.set_num_threads(1)
train, valid, *exps = map(Path, sys.argv[1:])
processes, device = start_processes("cpu")

def record(exp):
    run = Trainer(read_network_config(str(exp / "config.yaml")), train, valid, exp, torch.device(device), 1, processes)
    double, step, losses = exp.parent.name.endswith("double"), run.train_step, []
    if double:
        run.network.double()
        for teacher in run.teachers.networks if run.teachers else ():
            teacher.double()
        for moments in run.optimizer.state.values():
            moments.update({name: value.double() for name, value in moments.items()})
    def noted(number, batch):
        values = step(number, batch._replace(x=batch.x.double()) if double else batch)
        losses.append(run.processes.mean(values.clone())[:2].tolist())
        return torch.tensor([*losses[-1], 1.0])
    run.validation.eer = lambda *_: 50.0
    run.train_step = noted
    run.run()
    if processes.writes:
        (exp / "losses.json").write_text(json.dumps(losses))

def gathered():
    torch.manual_seed(0)
    rows, weight = torch.randn(6, 3), torch.randn(3, 3, requires_grad=True)
    ours = rows.chunk(2)[processes.rank]
    whole = gather(ours @ weight)
    (whole @ whole.T).logsumexp(1).sum().backward()
    dist.all_reduce(weight.grad)
    alone = weight.detach().clone().requires_grad_()
    ((rows @ alone) @ (rows @ alone).T).logsumexp(1).sum().backward()
    torch.testing.assert_close(whole, rows @ weight)
    torch.testing.assert_close(weight.grad / 2, alone.grad)  # as DistributedDataParallel averages

for exp in exps:
    record(exp)
if dist.is_initialized():
    gathered()
processes.leave()
"""


PAIRS = {"loss": {"type": "normalised_prototypical", "softmax": True}, "pooling": {"type": "cross_attentive"}}
SHARED = {  # trained by two processes: changes of SHORT, and the tolerance of the losses
    "tdnn-double": ({}, 1e-6), "vgg-double": ({"encoder": VGG}, 1e-6), "tdnn-single": ({}, 1e-4),
    "pairs-double": (PAIRS, 1e-6), "distil-double": ({"distil": {"models": ["../teacher"], "weight": 0.1}}, 1e-6),
    "angular-double": ({"loss": {"type": "angular_prototypical"}}, 1e-6)}


@pytest.fixture(scope="module")
def curves(corpus, tmp_path_factory):
    """The losses of all runs, with one process and with two, which do the runs one after the other."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "record.py").write_text(RECORD)
    trainer(corpus, folder / "teacher").run()
    for name, (more, _) in SHARED.items():
        rate = 0.02 if name.endswith("double") else 0.002
        config = changed(train={"epochs": 10, "batch_size": 20, "precision": "fp32"}, head={"dropout": 0.0},
                         optimizer={"type": "sgd", "lr": rate}) | {"loss": {"type": "softmax"}} | more
        for number in ("one", "two"):
            (folder / name / number).mkdir(parents=True)
            (folder / name / number / "config.yaml").write_text(yaml.safe_dump(config))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for number, launcher in (("one", [sys.executable]), ("two", torchrun)):
        words = [*launcher, folder / "record.py", *corpus, *(folder / name / number for name in SHARED)]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, timeout=600)
        assert done.returncode == 0, done.stderr[-5000:]
        assert ("2 processes, connected by gloo" in done.stderr) == (number == "two")
    return {name: [np.array(json.loads((folder / name / number / "losses.json").read_text()))
                   for number in ("one", "two")] for name in SHARED}


@pytest.mark.long
@pytest.mark.parametrize("name", SHARED)
def test_two_processes_train_as_one(curves, name):
    """The same losses over at least 30 steps, without dropout, whose masks differ between processes; losses between
    utterances gather the rows of all processes (the end of RECORD).

    In single precision, rounding differences grow from step to step, faster with larger steps.
    """
    one, two = curves[name]
    assert len(one) >= 30
    np.testing.assert_allclose(two[:, 0], one[:, 0], atol=SHARED[name][1], rtol=0)
    assert one[-10:, 0].mean() < one[:5, 0].mean() - 0.05  # it learns, so equal losses mean something


def test_batches_that_do_not_split_evenly_are_refused(corpus):
    with pytest.raises(InputError, match="batches of 8 chunks cannot be split evenly over 3 processes"):
        TrainingSet(corpus[0], network_config(SHORT, "x"), 1, 0, 3)


def test_new_speakers_on_an_old_model_with_a_frozen_encoder(corpus, tmp_path):
    trainer(corpus, tmp_path / "old").run()
    more = write_data(tmp_path / "more", 8, 10, 3)  # s0 to s5 are known, s6 and s7 new
    config = changed(init={"model": "old", "freeze": ["encoder"]}, loss={"margin": 0.4}, train={"chunk_frames": 40})
    run = trainer((more, corpus[1]), tmp_path / "new", config)
    old = weights(tmp_path / "old")
    start = run.network.state_dict()
    assert torch.equal(start["loss.weight"][:6], old["loss.weight"])
    assert len(start["loss.weight"]) == 8
    run.run()
    new = weights(tmp_path / "new")
    for name, value in new.items():
        if name.startswith("encoder."):
            assert torch.equal(value, old[name]), name  # batch-norm statistics, too
    assert not torch.equal(new["head.layers.0.affine.weight"], old["head.layers.0.affine.weight"])
    with pytest.raises(InputError, match="init: head.layers.1.dim is 13, .* has 12; front end, encoder"):
        trainer(corpus, tmp_path / "other", config | {"head": {"layers": [{"dim": 13, "embedding": "affine"}]}})
    with pytest.raises(InputError, match="train nowhere first"):
        trainer(corpus, tmp_path / "other", config | {"init": {"model": "nowhere"}})


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])  # whose moments begin later for everything else
def test_the_classifier_is_trained_first_with_everything_else_frozen(corpus, tmp_path, optimizer):
    trainer(corpus, tmp_path / "old").run()
    old = weights(tmp_path / "old")
    config = changed(init={"model": "old", "head_epochs": 1, "rate": 0.5}, train={"epochs": 2, "keep": "last"},
                     optimizer={"type": optimizer})
    run = trainer(corpus, tmp_path / "new", config)
    step, seen = run.train_step, {}

    def train_step(number, batch):
        seen[number] = {name: value.clone() for name, value in run.network.state_dict().items()}
        return step(number, batch)

    run.train_step = train_step
    run.run()
    assert run.rate(6) == 0.01 and run.rate(7) == pytest.approx(0.5 * 0.01 / 3)  # a warm-up of 3 steps begins
    for name, value in seen[7].items():  # after the classifier's epoch: batch-norm statistics are the old ones, too
        assert name.startswith("loss.") != torch.equal(value, old[name]), name
    new = weights(tmp_path / "new")
    assert {name.split(".")[0] for name in new if not torch.equal(new[name], old[name])} >= {"encoder", "head", "loss"}


TUNED = EVERYTHING | {"init": {"model": "old", "head_epochs": 2, "rate": 0.5, "freeze": ["pooling"]},
                      "train": EVERYTHING["train"] | {"epochs": 4}}


@pytest.fixture(scope="module")
def tuned(corpus, tmp_path_factory):
    """A folder with `old`, a trained model, and `tuned`, which started from it and was not interrupted."""
    folder = tmp_path_factory.mktemp("tuned")
    trainer(corpus, folder / "old").run()
    trainer(corpus, folder / "tuned", TUNED).run()
    return folder


@pytest.mark.parametrize("place", [5, "validation", 14, 17])  # with the classifier alone, between both phases, after
def test_fine_tuning_killed_in_either_phase_ends_with_the_same_bits(corpus, tuned, place):
    exp = tuned / f"killed.{place}"
    kill(trainer(corpus, exp, TUNED), place)
    assert not (exp / "model.safetensors").exists()
    trainer(corpus, exp, TUNED).run()
    assert same(weights(exp), weights(tuned / "tuned")) and not same(weights(exp), weights(tuned / "old"))
    ours, theirs = ([line.split("\t")[:6] for line in (one / "log/train.tsv").read_text().splitlines()]
                    for one in (exp, tuned / "tuned"))
    assert ours == theirs


def test_epochs_of_the_classifier_alone_do_not_end_the_training(corpus, tuned):
    """The embeddings do not change in them, so that the EER cannot improve."""
    config = TUNED | {"average": {"type": "none"}, "train": TUNED["train"] | {"epochs": 6, "patience": 1}}
    run = trainer(corpus, tuned / "patient", config)
    run.validation.eer = lambda *_: 50.0
    run.run()
    assert [row.split("\t")[0] for row in run.rows] == ["1", "2", "3"]


@pytest.mark.parametrize(("changes", "message"), [
    ({"loss": {"type": "angular_prototypical"}, "train": CONFIG["train"]},
     "head_epochs is 2, but loss: type angular_prototypical has no classifier to train; set init.head_epochs to 0"),
    ({"init": TUNED["init"] | {"head_epochs": 4}}, "head_epochs is 4 and train: epochs 4; wanted fewer than those"),
    ({"init": TUNED["init"] | {"rate": 0}}, "init: rate is 0; wanted above 0"),
    ({"encoder": {"type": "tdnn", "channels": [16, 16, 16, 16, 32]}},
     r"init: encoder.channels is \[16, 16, 16, 16, 32\], .*/old has \[16, 16, 16, 16, 24\]; front end, encoder, "),
])
def test_fine_tuning_that_cannot_work_is_refused(corpus, tuned, changes, message):
    with pytest.raises(InputError, match=message):
        trainer(corpus, tuned / "refused", TUNED | changes)
    assert not (tuned / "refused").exists()


def test_large_margin_fine_tuning_goes_on_from_the_recipes_xvector(corpus, tmp_path):
    conf = ROOT / "egs/voxceleb/conf"
    base, tuned = (load_config(conf / f"{name}.yaml", "mini") for name in ("xvector", "xvector_lm"))
    assert [base[key] for key in ("features", "frontend", "encoder", "pooling", "head")] == \
        [tuned[key] for key in ("features", "frontend", "encoder", "pooling", "head")]
    assert (base["train_set"], tuned["train_set"]) == ("train_net_sp", "train_net")
    assert tuned["train"]["chunk_frames"] > base["train"]["chunk_frames"]
    assert tuned["loss"]["margin"] > base["loss"]["margin"]
    assert float(tuned["optimizer"]["lr"]) < float(base["optimizer"]["lr"]) / 5
    for config in (base, tuned):
        config["encoder"] = config["encoder"] | {"channels": [8, 8, 8, 8, 12]}
        config["train"] = config["train"] | {"epochs": 1, "batch_size": 20}
    perturbed = write_data(tmp_path / "perturbed", 9, 10, 0)  # the speakers of the corpus, s0 to s5, and more
    trainer((perturbed, corpus[1]), tmp_path / "xvector", base).run()
    run = trainer(corpus, tmp_path / "xvector_lm", tuned)
    old, start = weights(tmp_path / "xvector"), run.network.state_dict()
    assert torch.equal(start["loss.weight"], old["loss.weight"][:6])
    assert torch.equal(start["encoder.layers.0.affine.weight"], old["encoder.layers.0.affine.weight"])
    run.run()
    assert not torch.equal(weights(tmp_path / "xvector_lm")["encoder.layers.0.affine.weight"],
                           old["encoder.layers.0.affine.weight"])


def test_event_files_hold_the_curves(corpus, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer(corpus, tmp_path / "x").run()
    events = EventAccumulator(str(tmp_path / "x/log"))
    events.Reload()
    assert [event.step for event in events.Scalars("valid_eer")] == [7, 14, 21]
    rows = [line.split("\t") for line in (tmp_path / "x/log/train.tsv").read_text().splitlines()[1:]]
    assert [f"{event.value:.4f}" for event in events.Scalars("loss")] == [row[2] for row in rows]
    assert {"waiting", "utterances_per_second", "memory_gb", "lr"} <= set(events.Tags()["scalars"])
