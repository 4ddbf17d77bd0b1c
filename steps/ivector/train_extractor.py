"""Train the total-variability model from the UBM: final.ie and the matching final.ubm, both Kaldi's files.

The training utterances are summed in a fixed number of parts (extractor.parts), and the parts are added in a fixed
order. One process runs all iterations; or, on a cluster, each job of an iteration sums some parts into
files (--accumulate) and a last job adds them (--update), with bit-identical results. Each iteration's model stays in
the folder `work` until the step is done; if training is killed, the next call continues from the last one.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steps.ivector.config import ExtractorOptions, IvectorConfig, read_ivector_config
from steps.ivector.extractor import Extractor, Posterior, Statistics, update, write_extractor
from steps.ivector.gmm import FullGmm
from steps.ivector.gmm_files import read_full, write_full
from steps.ivector.threads import in_order
from steps.ivector.utterance_stats import UtteranceStatistics, with_means
from utils.arguments import seed
from utils.device import find_device
from utils.errors import InputError, run_main
from utils.features.model_features import check_options, keep_options, kept_options
from utils.files import count_lines
from utils.jobs.part import part_of
from utils.space import require_space
from utils.tensor_file import load_tensors, save_tensors
from utils.versions import write_versions


class ExtractorTraining:
    """EM of the total-variability model, by parts and iterations that are kept as files."""

    def __init__(self, config: IvectorConfig, data: Path, ubm: FullGmm, work: Path, device: str | torch.device = "cpu",
                 threads: int = 1, seed: int = 1, posteriors: str | None = None) -> None:
        self.options: ExtractorOptions = config.extractor
        if posteriors and self.options.update_ubm:
            raise InputError("extractor.update_ubm needs new posteriors in each iteration; leave --posteriors out")
        self.ubm, self.work, self.device, self.threads, self.seed = ubm, work, device, threads, seed
        self.stream = UtteranceStatistics(config, data, ubm, device, threads, posteriors)
        self.second: dict[int, Tensor] = {}  # of each part; the same in all iterations unless the UBM follows
        count = count_lines(data / "feats.scp")
        parts = min(self.options.parts, count)
        self.parts = [part_of(count, part, parts) for part in range(1, parts + 1)]
        gaussians, features = ubm.means.shape
        model_bytes = 8 * gaussians * features * (self.options.dim + features)
        part_bytes = 4 * gaussians * self.options.dim * (features + (self.options.dim + 1) / 2)
        require_space(work, self.options.iterations * model_bytes + len(self.parts) * part_bytes,
                      "the models and sums of the iterations")
        self.started = time.perf_counter()

    def model(self, iteration: int) -> Extractor:
        """Return the model after an iteration; 0: the initial one. Raises InputError if it is missing or damaged."""
        if iteration == 0:
            return Extractor.from_ubm(self.ubm, self.options.dim, self.seed)
        tensors, where = self._load(self._model_file(iteration))
        return Extractor(tensors["m"], tensors["precision"], where["offset"], tensors["weights"])

    def _load(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        found = load_tensors(path)
        if found is None:
            raise InputError(f"{path} is missing or was damaged; run again to make it")
        return found

    def run(self) -> Extractor:
        """Run the missing iterations in this process; return the last model."""
        done = next((n for n in range(self.options.iterations, 0, -1) if load_tensors(self._model_file(n))), 0)
        model = self.model(done)
        for iteration in range(done + 1, self.options.iterations + 1):
            posterior = self._start(model)
            total = self._empty()
            for part in range(len(self.parts)):
                total.merge(self._sum(posterior, part, keep=True))
            model = self._finish(model, total, iteration)
        return model

    def accumulate(self, iteration: int, job: int, jobs: int) -> None:
        """Write the sums of one job's parts, unless they exist."""
        mine = range(job - 1, len(self.parts), jobs)
        missing = [part for part in mine if not load_tensors(self._part_file(iteration, part))]
        if missing:
            posterior = self._start(self.model(iteration - 1))
        for part in missing:
            save_tensors(self._part_file(iteration, part), self._sum(posterior, part, keep=False), {})

    def update(self, iteration: int) -> Extractor:
        """Add the parts, write the iteration's model and delete the parts."""
        total = self._empty()
        for part in range(len(self.parts)):
            total.merge(self._load(self._part_file(iteration, part))[0])
        model = self._finish(self.model(iteration - 1), total, iteration)
        for part in range(len(self.parts)):
            self._part_file(iteration, part).unlink()
        return model

    def _start(self, model: Extractor) -> Posterior:
        if self.options.update_ubm:
            self.stream.follow(model)
            self.second.clear()
        return Posterior(model, self.device)

    def _sum(self, posterior: Posterior, part: int, keep: bool) -> dict[str, Tensor]:
        stats = self._empty()
        second = None if part in self.second else stats.second
        blocks = self.stream.of_part(self.parts[part], second, keep)
        for block in in_order(posterior.with_statistics, blocks, self.threads):
            stats.add(*block)
        if keep:
            self.second.setdefault(part, stats.second)
        return stats.tensors() | {"second": self.second.get(part, stats.second)}

    def _finish(self, model: Extractor, total: Statistics, iteration: int) -> Extractor:
        model = update(model, total, self.threads)
        tensors = {"m": model.m, "precision": model.precision, "weights": model.weights}
        save_tensors(self._model_file(iteration), tensors, {"offset": model.offset})
        print(f"extractor, iteration {iteration} of {self.options.iterations}: {total.utterances} utterances, prior "
              f"offset {model.offset:.3f}, {time.perf_counter() - self.started:.1f} s", file=sys.stderr)
        return model

    def _empty(self) -> Statistics:
        return Statistics(*self.ubm.means.shape, self.options.dim, self.threads)

    def _model_file(self, iteration: int) -> Path:
        return self.work / f"{iteration}.safetensors"

    def _part_file(self, iteration: int, part: int) -> Path:
        return self.work / f"{iteration}.part{part + 1}.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num-threads", type=int, default=2)
    parser.add_argument("--seed", type=seed, default=1)
    parser.add_argument("--posteriors", help="script or archive of posteriors (Kaldi's), in the order of feats.scp")
    parser.add_argument("--iteration", type=int, help="with --accumulate or --update: number of the iteration, from 1")
    parser.add_argument("--accumulate", type=int, metavar="JOB", help="sum the parts of this job")
    parser.add_argument("--nj", type=int, default=1, help="number of jobs that accumulate")
    parser.add_argument("--update", action="store_true", help="add the parts of all jobs")
    parser.add_argument("config", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("ubm", type=Path, help="final.ubm")
    parser.add_argument("work", type=Path, help="folder of unfinished work")
    parser.add_argument("exp", type=Path)
    arguments = parser.parse_args()
    device = find_device(arguments.device)
    threads = arguments.num_threads if device.type == "cpu" else 1
    torch.set_num_threads(1)  # blocks side by side, one core each
    ubm = read_full(arguments.ubm)
    first = {arguments.iteration, arguments.accumulate} <= {None, 1} and not arguments.update
    config, before = read_ivector_config(arguments.config), arguments.ubm.parent
    options = check_options(arguments.data, kept_options(before, config.frontend.vad), before, remark=first)
    training = ExtractorTraining(config, arguments.data, ubm, arguments.work, device, threads, arguments.seed,
                                 arguments.posteriors)
    if arguments.accumulate:
        training.accumulate(arguments.iteration, arguments.accumulate, arguments.nj)
        return
    model = training.update(arguments.iteration) if arguments.update else training.run()
    if arguments.iteration in (None, training.options.iterations):
        keep_options(arguments.exp, options)
        write_versions(arguments.exp)
        write_full(arguments.exp / "final.ubm", with_means(ubm, model) if training.options.update_ubm else ubm)
        write_extractor(arguments.exp / "final.ie", model)


if __name__ == "__main__":
    run_main(main)
