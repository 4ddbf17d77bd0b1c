"""Train a network on the chunks of a data directory, validate it on held-out speakers.

Writes into <exp>: model.safetensors and config.yaml (all that extraction needs), versions.yaml, speakers (one per line,
in the order of the classifier), train_seconds, log/train.tsv (one line per epoch) and, until it ends,
checkpoint.safetensors; TensorBoard writes its event files to log/. Killed at any moment and started again, it resumes
from the checkpoint and ends, on a CPU, with bit-identical weights: batches, and the random numbers of a step, depend
only on (seed, step). On SIGTERM or SIGUSR1 it saves after the step and exits with 99; the launchers (and Grid Engine,
and Slurm with RequeueExit=99) then run the job again.

Several processes: torchrun --nproc-per-node 2 -m nnet.training.train ...; see nnet/training/distributed.py.
"""

import argparse
import dataclasses
import json
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from safetensors.torch import save
from torch import Tensor, nn

from nnet.config import NetworkConfig, plain, read_network_config, training_part
from nnet.device import has_bf16, keep_freed_memory
from nnet.model import make_network
from nnet.training.averaging import make_average
from nnet.training.checkpoint import load_checkpoint, save_checkpoint
from nnet.training.data import Batch, TrainingSet, batches_ahead
from nnet.training.distillation import Teachers
from nnet.training.distributed import Processes, share_batch_norms, start_processes
from nnet.training.event_log import Watch
from nnet.training.fine_tuning import initialise, training_mode
from nnet.training.optimizers import learning_rate, make_optimizer
from nnet.training.signals import Stopper, note_stop
from nnet.training.validation import Validation
from utils.arguments import seed
from utils.device import find_device
from utils.errors import InputError, run_main
from utils.features.model_features import check_options, kept_options
from utils.files import write_aside
from utils.jobs.task import REQUEUE
from utils.progress import progress
from utils.space import require_space
from utils.versions import write_versions

COLUMNS = ("epoch", "step", "loss", "accuracy", "lr", "valid_eer", "utterances_per_second", "waiting", "seconds")
ALONE = Processes()
CHECK_STEPS = 50  # steps whose losses are fetched from the device, and checked, together


@dataclass
class EpochSums:
    """Sums over the steps of the current epoch, for its line in log/train.tsv."""

    steps: int = 0
    loss: float = 0.0
    hits: float = 0.0     # chunks whose speaker has the largest logit
    seconds: float = 0.0  # without validation
    waited: float = 0.0   # of these, for data


class Trainer:
    """One training run. Its state: the fields set after `steps` in the constructor."""

    def __init__(self, config: NetworkConfig, train: Path, valid: Path, exp: Path, device: torch.device,
                 seed: int, processes: Processes = ALONE, stopper: Stopper | None = None,
                 musan: Path | None = None, rirs: Path | None = None) -> None:
        self.exp, self.device, self.seed, self.processes = exp, device, seed, processes
        self.stopper = stopper
        self.corpora = musan, rirs
        options = kept_options(train, config.vad)
        check_options(valid, options, train, remark=processes.rank == 0)
        self.data = TrainingSet(train, config, seed, processes.rank, processes.count, musan, rirs)
        self.config = config = dataclasses.replace(
            config, feature_dim=self.data.utterances.feature_dim, speakers=len(self.data.speakers),
            feature_options=options.features, vad_options=options.vad or None)
        torch.manual_seed(seed)
        self.network = make_network(config, config.feature_dim, config.speakers)
        if config.init:
            initialise(self.network, self.data.speakers, config, train, exp)
        else:
            self.network.frontend.initialise()
        self.network = share_batch_norms(self.network, processes, device).to(device)
        self.teachers = Teachers(config.distil, config, train, exp, device) if config.distil else None
        training_mode(self.network, config.init)
        if config.init and config.init.head_epochs and not any(True for _ in self.network.loss.parameters()):
            raise InputError(f"init: head_epochs is {config.init.head_epochs}, but loss: type {config.loss.type} has "
                             "no classifier to train; set init.head_epochs to 0")
        chunk, sees = self.data.utterances.shape(config.train.chunk_frames), self.network.encoder.receptive_field
        if chunk[0] < (sees if len(chunk) == 2 else self.network.frontend.samples_of(sees)):
            raise InputError(f"train: chunk_frames is {config.train.chunk_frames}, fewer than the {sees} frames that "
                             "the encoder sees at once")
        self.bf16 = config.train.precision == "bf16" and has_bf16(device)
        if config.train.precision == "bf16" and not self.bf16 and processes.rank == 0:
            print("train: precision is bf16, which this processor lacks in hardware: fp32 is used",
                  file=sys.stderr)
        self.trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        frontend = self.network.frontend
        self.optimizer = make_optimizer(config.optimizer, self.trained, frontend.slow_parameters(), frontend.slow_rate)
        self.average = make_average(self.network, config.average, config.train.epochs, config.train.patience)
        self.validation = Validation(valid, config)
        size = sum(value.nbytes for value in self.network.state_dict().values())
        require_space(exp, 10 * size, "the model and its checkpoints")  # weights, best, average, moments; old and new
        self.checkpoint = exp / "checkpoint.safetensors"
        self.steps = config.train.epochs * self.data.steps_per_epoch
        self.head_epochs, self.rest = (config.init.head_epochs, config.init.rate) if config.init else (0, 1.0)
        self.head_steps = self.head_epochs * self.data.steps_per_epoch  # in which the classifier alone is trained
        self.step, self.best_eer, self.bad_epochs, self.drops, self.seconds = 0, math.inf, 0, 0, 0.0
        self.best: dict[str, Tensor] = {}
        self.rows: list[str] = []
        self.epoch = EpochSums()
        self.unread: list[Tensor] = []  # loss, hits and gradient norm of the steps since the last `look`

    def identity(self) -> str:
        """The values that a checkpoint must agree with."""
        rows = self.data.utterances.rows.num_rows
        return json.dumps([training_part(self.config), self.config.vad_options, self.seed, self.data.speakers[:1],
                           len(rows), int(rows.sum(dtype="int64")), list(map(str, self.corpora))], sort_keys=True)

    def resume(self) -> None:
        """Resume from the checkpoint, if there is one; raises InputError if it belongs to another run."""
        found = load_checkpoint(self.checkpoint, self.network, self.optimizer, self.average.model)
        if found is None:
            return
        self.best, where = found
        if where["run"] != self.identity():
            raise InputError(f"{self.checkpoint} is for another configuration, data or seed; delete it to start over")
        self.step, self.best_eer, self.bad_epochs = where["step"], where["best_eer"], where["bad_epochs"]
        self.seconds, self.rows, self.epoch = where["seconds"], where["rows"], EpochSums(**where["epoch"])
        self.drops = where["drops"]
        print(f"resuming after step {self.step} of {self.steps}", file=sys.stderr)

    def save(self) -> None:
        """Write the checkpoint."""
        if not self.processes.writes:
            return
        where = {"run": self.identity(), "step": self.step, "best_eer": self.best_eer, "rows": self.rows,
                 "bad_epochs": self.bad_epochs, "drops": self.drops, "seconds": self.seconds, "epoch": vars(self.epoch)}
        save_checkpoint(self.checkpoint, self.network, self.optimizer, self.best, self.average.model, where)

    @property
    def stopped_early(self) -> bool:
        """Whether the EER has not improved for `train.patience` epochs."""
        return 0 < self.config.train.patience <= self.bad_epochs

    def run(self) -> None:
        """Train to the end and write the model; raises SystemExit(REQUEUE) if a signal asks to stop earlier."""
        self.resume()
        self.begin_phase()
        self.watch = Watch(self.exp / "log", self.step, self.device) if self.processes.writes else None
        if self.step == (len(self.rows) + 1) * self.data.steps_per_epoch:
            self.end_epoch()  # it was stopped in validation
        last = self.step if self.stopped_early else self.steps
        batches = batches_ahead(self.data, self.step, last, self.device)
        bar = progress(batches, last - self.step, "training", "steps", self.words if self.watch else str)
        looked, waited = time.perf_counter(), 0.0
        for step, batch in bar if self.watch else batches:
            self.can_stop_at_once(False)
            self.unread.append(self.train_step(step, batch))
            self.step = step + 1
            ends_epoch = self.step % self.data.steps_per_epoch == 0
            stops = self.processes.any_of(self.stopper is not None and self.stopper.asked)
            saves = stops or ends_epoch or self.step % self.config.train.checkpoint_steps == 0
            if not saves and len(self.unread) < CHECK_STEPS:
                continue
            self.look(time.perf_counter() - looked, batches.waited - waited)
            looked, waited = time.perf_counter(), batches.waited
            if saves:
                self.save()
                if stops:
                    print(f"asked to stop: saved after step {self.step}", file=sys.stderr)
                    if self.watch:
                        self.watch.close()
                    note_stop()
                    self.processes.leave(REQUEUE)
                    raise SystemExit(REQUEUE)
                if ends_epoch:
                    self.can_stop_at_once(True)
                    self.end_epoch()
                    self.can_stop_at_once(False)
                    self.save()
                self.seconds += time.perf_counter() - looked
                looked = time.perf_counter()
            if self.stopped_early:
                break
        if self.processes.writes:
            self.finish()
            self.watch.close()

    def words(self) -> str:
        """Return the text beside the progress bar: the epoch, and the latest figures."""
        epochs = self.config.train.epochs
        epoch = min(self.step // self.data.steps_per_epoch + 1, epochs)
        return ", ".join(filter(None, (f"epoch {epoch} of {epochs}", self.watch.line())))

    def rate(self, step: int) -> float:
        """Return the learning rate at a step."""
        if step < self.head_steps:
            return self.config.optimizer.lr
        epochs = self.config.train.epochs - self.head_epochs
        return self.config.optimizer.lr * self.rest * learning_rate(
            self.config.schedule, step - self.head_steps, self.steps - self.head_steps, epochs, self.drops)

    def begin_phase(self) -> None:
        """Set what learns from this step on: the classifier alone, or everything but `init.freeze`."""
        training_mode(self.network, self.config.init, self.step < self.head_steps)
        self.model = None  # releases the hooks of an earlier wrapper
        self.model = self.processes.wrap(self.network)

    def can_stop_at_once(self, yes: bool) -> None:
        """Set whether a signal may end the process at once, because all is saved, as in a long validation."""
        if self.stopper:
            self.stopper.nothing_unsaved = yes

    def train_step(self, step: int, batch: Batch) -> Tensor:
        """Take one step; return loss, number of hits and gradient norm, still on the device."""
        # So that dropout, too, depends only on (seed, step), and differs between processes.
        torch.manual_seed(hash((self.seed, step, self.processes.rank)) % 2**63)
        options = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step) * group["factor"]
        self.network.loss.margin_share = options.loss.margin_share(step / self.steps)
        self.optimizer.zero_grad(set_to_none=True)
        parts = options.train.accumulate
        sums = torch.zeros(2, device=self.device)
        moved = [[None] * parts if part is None else part.to(self.device, non_blocking=True).chunk(parts)
                 for part in batch]
        for part, (x, labels, spans) in enumerate(zip(*moved, strict=True), start=1):
            waits = nullcontext() if part == parts or self.processes.count == 1 else self.model.no_sync()
            with waits:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    targets = self.teachers.similarities(x) if self.teachers else None
                    loss, accuracy = self.model(x, labels, spans, targets)
                (loss / parts).backward()
            sums += torch.stack([loss.detach() / parts, accuracy * len(labels) * self.processes.count])
        norm = nn.utils.clip_grad_norm_(self.trained, options.train.clip or math.inf)
        self.optimizer.step()
        self.average.after_step()
        return torch.cat([sums, norm[None]])

    def look(self, seconds: float, waited: float) -> None:
        """Add the steps since the last look to the sums; raises InputError on a NaN or infinite loss or gradient."""
        values = self.processes.mean(torch.stack(self.unread).double()).cpu()
        wrong = torch.nonzero(~values.isfinite())
        if len(wrong):
            self.refuse(self.step - len(values) + int(wrong[0, 0]), values[wrong[0, 0]])
        loss, hits, norm = values.sum(dim=0).tolist()
        sums = self.epoch
        self.epoch = EpochSums(sums.steps + len(values), sums.loss + loss, sums.hits + hits,
                               sums.seconds + seconds, sums.waited + waited)
        self.seconds += seconds
        self.unread = []
        if self.watch:
            chunks = len(values) * self.data.batch_size
            self.watch.add(self.step, {
                "loss": loss / len(values), "accuracy": hits / chunks, "gradient_norm": norm / len(values),
                "lr": self.rate(self.step - 1), "utterances_per_second": chunks / seconds,
                "waiting": waited / seconds, "memory_gb": self.watch.memory_gb()})

    def refuse(self, step: int, values: Tensor) -> None:
        """Save the batch of a step whose loss or gradient is NaN or infinite, and raise InputError."""
        batch = {name: part for name, part in self.data.batch(step)._asdict().items() if part is not None}
        path = self.exp / f"log/bad_batch.{self.processes.rank}.safetensors"
        with write_aside(path, "wb") as stream:
            stream.write(save({**batch, "utterances": torch.from_numpy(self.data.chosen(step).copy())}))
        raise InputError(f"the loss at step {step} is {values[0].item()}, the norm of its gradient "
                         f"{values[2].item()}; lower optimizer.lr ({self.config.optimizer.lr}) or set "
                         f"train.precision to fp32; the batch is saved in {path}")

    def end_epoch(self) -> None:
        """Validate; keep the weights if they are the best so far; write the epoch's line of log/train.tsv."""
        started = time.perf_counter()
        self.average.after_epoch(self.step // self.data.steps_per_epoch)
        network = self.average.network
        rate = self.rate(self.step - 1)
        eer = self.processes.from_first(self.validation.eer(network, self.device) if self.processes.writes else 0.0)
        training_mode(self.network, self.config.init, self.step < self.head_steps)
        if self.head_steps and self.step == self.head_steps:
            self.begin_phase()
        if eer < self.best_eer:
            self.best_eer, self.bad_epochs = eer, 0
            self.best = {name: value.clone() for name, value in network.state_dict().items()}
        elif self.step > self.head_steps:  # before, the embeddings cannot change
            self.bad_epochs += 1
            plateau = self.config.schedule.patience
            self.drops += 1 if plateau and self.bad_epochs % plateau == 0 else 0
        sums, chunks = self.epoch, self.epoch.steps * self.data.batch_size
        seconds = self.seconds + time.perf_counter() - started
        values = [str(self.step // self.data.steps_per_epoch), str(self.step), f"{sums.loss / sums.steps:.4f}",
                  f"{sums.hits / chunks:.4f}", f"{rate:.3g}", f"{eer:.3f}",
                  f"{chunks / sums.seconds:.1f}", f"{sums.waited / sums.seconds:.3f}", f"{seconds:.1f}"]
        self.epoch = EpochSums()
        self.rows.append("\t".join(values))
        if not self.watch:
            return
        self.watch.add(self.step, {"valid_eer": eer})
        print(f"epoch {values[0]} of {self.config.train.epochs}: "
              + ", ".join(f"{name} {value}" for name, value in zip(COLUMNS[1:], values[1:], strict=True)),
              file=sys.stderr)
        with write_aside(self.exp / "log/train.tsv") as stream:
            stream.write("\n".join(["\t".join(COLUMNS), *self.rows]) + "\n")

    def finish(self) -> None:
        """Write the model's files, model.safetensors last."""
        weights = self.best if self.config.train.keep == "best" else self.average.network.state_dict()
        with write_aside(self.exp / "config.yaml") as stream:
            yaml.safe_dump(plain(self.config), stream, sort_keys=False, width=100)
        write_versions(self.exp)
        with write_aside(self.exp / "speakers") as stream:
            stream.writelines(f"{name}\n" for name in self.data.speakers)
        with write_aside(self.exp / "train_seconds") as stream:
            stream.write(f"{self.seconds:.1f}\n")
        with write_aside(self.exp / "model.safetensors", "wb") as stream:
            stream.write(save({name: value.cpu().contiguous() for name, value in weights.items()}))
        self.checkpoint.unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=1,
                        help="of weights, batches, masks and dropout (default: %(default)s)")
    parser.add_argument("--num-threads", type=int, default=2, help="threads on a CPU (default: %(default)s)")
    parser.add_argument("--musan-root", type=Path, help="MUSAN, for `online:`; without it, noise is synthetic")
    parser.add_argument("--rirs-root", type=Path, help="RIRS_NOISES, for `online:`; without it, rooms are simulated")
    parser.add_argument("--init", type=Path, help="bundle, or folder of a trained network, to start from")
    parser.add_argument("config", help="resolved configuration, as `utils.config resolve` prints it")
    parser.add_argument("train", type=Path, help="data directory with features: the training speakers")
    parser.add_argument("valid", type=Path, help="data directory with features and trials/valid: other speakers")
    parser.add_argument("exp", type=Path, help="model directory to write")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.num_threads)
    stopper = Stopper()
    config = read_network_config(arguments.config, arguments.init)
    processes, device = start_processes(arguments.device)
    trainer = Trainer(config, arguments.train, arguments.valid, arguments.exp, find_device(device, tf32=True),
                      arguments.seed, processes, stopper, arguments.musan_root, arguments.rirs_root)
    trainer.run()
    processes.leave()


if __name__ == "__main__":
    run_main(main)
