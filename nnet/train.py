"""Train a network on the chunks of a data directory, validate it on held-out speakers.

Writes into <exp>: model.safetensors and config.yaml (all that extraction needs), speakers (one a line, in
the order of the classifier), train_seconds, log/train.tsv (a line an epoch) and, until it ends,
checkpoint.safetensors. Killed at any moment and started again, it goes on from the checkpoint and ends, on
a CPU, with the same bits: batches depend on (seed, step) alone, and so do the random numbers of a step.
"""

import argparse
import dataclasses
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import save
from torch import Tensor, nn

from nnet.checkpoint import load_checkpoint, save_checkpoint
from nnet.config import NetworkConfig, OptimizerOptions, ScheduleOptions, read_network_config
from nnet.data import Prefetcher, TrainingSet, Utterances
from nnet.extract import embed_utterances
from nnet.model import Network
from steps.backend.metrics import measure
from utils.errors import InputError, run_main
from utils.files import write_aside

COLUMNS = ("epoch", "step", "loss", "accuracy", "lr", "valid_eer", "utterances_per_second", "waiting", "seconds")


def learning_rate(options: ScheduleOptions, step: int, steps: int) -> float:
    """Return the factor on the learning rate at a step (from 0) of `steps`."""
    warm = min(1.0, (step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    if options.type == "constant":
        return warm
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return warm * (options.final + (1 - options.final) * cosine)


def make_optimizer(options: OptimizerOptions, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimiser; fused implementations, which compute the same."""
    if options.type == "sgd":
        return torch.optim.SGD(parameters, lr=options.lr, momentum=options.momentum,
                               weight_decay=options.weight_decay, fused=True)
    kind = torch.optim.Adam if options.type == "adam" else torch.optim.AdamW
    return kind(parameters, lr=options.lr, weight_decay=options.weight_decay, fused=True)


class Validation:
    """EER of cosine scores on the trials of the held-out speakers (trials/valid)."""

    def __init__(self, data: Path, config: NetworkConfig, device: str) -> None:
        self.utterances = Utterances(data, config)
        self.batch_frames = config.train.valid_batch_frames
        self.device = device
        place = {name: index for index, name in enumerate(self.utterances.rows.ids)}
        trials = [line.split() for line in (data / "trials/valid").read_text(encoding="utf-8").splitlines()]
        unknown = [name for trial in trials for name in trial[:2] if name not in place]
        if unknown:
            raise InputError(f"{data}/trials/valid names {unknown[0]}, which has no features")
        self.pairs = np.array([[place[first], place[second]] for first, second, _ in trials])
        self.is_target = np.array([label == "target" for *_, label in trials])

    def eer(self, network: Network) -> float:
        """Return the equal error rate in %."""
        network.eval()
        found = embed_utterances(network, self.utterances, range(len(self.utterances.rows)), self.device,
                                 self.batch_frames)
        vectors = np.stack([vector for _, vector in found])
        network.train()
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = (vectors[self.pairs[:, 0]] * vectors[self.pairs[:, 1]]).sum(axis=1)
        return measure(scores[self.is_target], scores[~self.is_target]).eer


class Trainer:
    """One training run."""

    def __init__(self, config: NetworkConfig, train: Path, valid: Path, exp: Path, device: str, seed: int) -> None:
        self.config, self.exp, self.device, self.seed = config, exp, device, seed
        self.data = TrainingSet(train, config, seed)
        if config.features and config.feature_dim not in (None, self.data.utterances.feature_dim):
            raise InputError(f"{train}: {self.data.utterances.feature_dim} values a frame, not {config.feature_dim}")
        torch.manual_seed(seed)
        self.network = Network(config, self.data.utterances.dim, len(self.data.speakers)).to(device).train()
        if config.train.chunk_frames < self.network.encoder.receptive_field:
            raise InputError(f"train: chunk_frames is {config.train.chunk_frames}, fewer than the "
                             f"{self.network.encoder.receptive_field} frames that the encoder sees at once")
        self.optimizer = make_optimizer(config.optimizer, list(self.network.parameters()))
        self.validation = Validation(valid, config, device)
        self.steps = config.train.epochs * self.data.steps_per_epoch
        self.step, self.best_eer, self.bad_epochs, self.seconds = 0, math.inf, 0, 0.0
        self.best: dict[str, Tensor] = {}
        self.rows: list[str] = []

    @property
    def checkpoint(self) -> Path:
        """The file of the run's state."""
        return self.exp / "checkpoint.safetensors"

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one of this configuration and seed."""
        if not self.checkpoint.exists():
            return
        self.best, where = load_checkpoint(self.checkpoint, self.network, self.optimizer)
        if where["run"] != self.identity():
            raise InputError(f"{self.checkpoint} is of another configuration, data or seed; delete it to train anew")
        self.step, self.best_eer, self.bad_epochs = where["step"], where["best_eer"], where["bad_epochs"]
        self.seconds, self.rows = where["seconds"], where["rows"]
        print(f"resuming after step {self.step} of {self.steps}", file=sys.stderr)

    def identity(self) -> str:
        """What a checkpoint must agree with."""
        return repr((self.config, self.seed, self.data.speakers[0], len(self.data.speakers), len(self.data.labels)))

    def save(self) -> None:
        """Write the checkpoint."""
        where = {"run": self.identity(), "step": self.step, "best_eer": self.best_eer, "rows": self.rows,
                 "bad_epochs": self.bad_epochs, "seconds": self.seconds}
        save_checkpoint(self.checkpoint, self.network, self.optimizer, self.best, where)

    def run(self) -> None:
        """Train to the end and write the model."""
        self.resume()
        batches = Prefetcher(self.data, self.step, self.steps)
        started, waited = time.perf_counter(), 0.0
        losses, hits = [], []
        for step, x, labels in batches:
            loss, accuracy = self.train_step(step, torch.from_numpy(x), torch.from_numpy(labels))
            losses.append(loss)
            hits.append(accuracy)
            self.step = step + 1
            if self.step % self.data.steps_per_epoch:
                continue
            seconds = time.perf_counter() - started
            speed = len(losses) * self.data.batch_size / seconds
            eer = self.validation.eer(self.network)
            self.seconds += time.perf_counter() - started
            self.end_epoch(float(np.mean(losses)), float(np.mean(hits)), eer, speed,
                           (batches.waited - waited) / seconds)
            self.save()
            if self.config.train.patience and self.bad_epochs >= self.config.train.patience:
                break
            losses, hits, waited, started = [], [], batches.waited, time.perf_counter()
        self.finish()

    def train_step(self, step: int, x: Tensor, labels: Tensor) -> tuple[float, float]:
        """Take one step; return loss and accuracy. Raises InputError when the loss is no number."""
        torch.manual_seed(hash((self.seed, step)) % 2**63)  # so that dropout, too, depends on (seed, step) alone
        options = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = options.optimizer.lr * learning_rate(options.schedule, step, self.steps)
        warmup = options.loss.margin_warmup * self.steps
        self.network.loss.margin_share = min(1.0, step / warmup) if warmup else 1.0
        x, labels = x.to(self.device), labels.to(self.device)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=options.train.precision == "bf16"):
            loss, logits = self.network(x, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise InputError(f"the loss at step {step} is {value}; lower optimizer.lr ({options.optimizer.lr}) "
                             "or set train.precision to fp32")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), options.train.clip)
        self.optimizer.step()
        return value, (logits.argmax(dim=1) == labels).float().mean().item()

    def end_epoch(self, loss: float, accuracy: float, eer: float, speed: float, waiting: float) -> None:
        """Note the epoch in log/train.tsv; keep the weights if they are the best so far."""
        if eer < self.best_eer:
            self.best_eer, self.bad_epochs = eer, 0
            self.best = {name: value.clone() for name, value in self.network.state_dict().items()}
        else:
            self.bad_epochs += 1
        rate = self.optimizer.param_groups[0]["lr"]
        values = [str(self.step // self.data.steps_per_epoch), str(self.step), f"{loss:.4f}", f"{accuracy:.4f}",
                  f"{rate:.3g}", f"{eer:.3f}", f"{speed:.1f}", f"{waiting:.3f}", f"{self.seconds:.1f}"]
        self.rows.append("\t".join(values))
        print(f"epoch {values[0]} of {self.config.train.epochs}: "
              + ", ".join(f"{name} {value}" for name, value in zip(COLUMNS[1:], values[1:], strict=True)),
              file=sys.stderr)
        with write_aside(self.exp / "log/train.tsv") as stream:
            stream.write("\n".join(["\t".join(COLUMNS), *self.rows]) + "\n")

    def finish(self) -> None:
        """Write the model and what belongs to it; model.safetensors comes last."""
        weights = self.best if self.config.train.keep == "best" else self.network.state_dict()
        complete = dataclasses.replace(self.config, feature_dim=self.data.utterances.feature_dim,
                                       speakers=len(self.data.speakers))
        plain = yaml.safe_load(yaml.dump(_plain(dataclasses.asdict(complete))))
        with write_aside(self.exp / "config.yaml") as stream:
            yaml.safe_dump(plain, stream, sort_keys=False, width=100)
        with write_aside(self.exp / "speakers") as stream:
            stream.writelines(f"{name}\n" for name in self.data.speakers)
        with write_aside(self.exp / "train_seconds") as stream:
            stream.write(f"{self.seconds:.1f}\n")
        with write_aside(self.exp / "model.safetensors", "wb") as stream:
            stream.write(save({name: value.cpu().contiguous() for name, value in weights.items()}))
        self.checkpoint.unlink(missing_ok=True)


def _plain(value: object) -> object:
    """Tuples to lists, for YAML."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("config")
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("exp", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.num_threads)
    config = read_network_config(arguments.config)
    trainer = Trainer(config, arguments.train, arguments.valid, arguments.exp, arguments.device, arguments.seed)
    trainer.run()


if __name__ == "__main__":
    run_main(main)
