"""I-vectors of one part of a data directory: the job that steps/extract_ivectors.sh runs nj times."""

import argparse
from pathlib import Path

import torch

from steps.ivector.extractor import Posterior
from steps.ivector.frames import AT_ONCE
from steps.ivector.model import read_system
from steps.ivector.utterance_stats import UtteranceStatistics
from utils.device import find_device
from utils.errors import run_main
from utils.features.model_features import check_options, kept_options
from utils.files import count_lines
from utils.jobs.part import part_of
from utils.kaldi.ark import ArkWriter
from utils.space import require_space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", type=int, default=1, help="number of the part, from 1")
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--posteriors", help="script or archive of posteriors (Kaldi's), in the order of feats.scp")
    parser.add_argument("exp", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    device = find_device(arguments.device)
    torch.set_num_threads(arguments.num_threads)
    config, ubm, model = read_system(arguments.exp)
    wanted = kept_options(arguments.exp, config.frontend.vad)
    check_options(arguments.data, wanted, arguments.exp, remark=arguments.job == 1)
    posterior = Posterior(model, device)
    stream = UtteranceStatistics(config, arguments.data, ubm, device, 1, arguments.posteriors)
    part = part_of(count_lines(arguments.data / "feats.scp"), arguments.job, arguments.nj, AT_ONCE)
    require_space(arguments.out, 4.0 * len(part) * model.m.shape[2], "the i-vectors of this job")
    with ArkWriter(arguments.out / f"ivector.{arguments.job}") as writer:
        for ids, counts, sums in stream.with_ids(part):
            for name, vector in zip(ids, posterior.ivectors(counts, sums).cpu().numpy(), strict=True):
                writer.write(name, vector)


if __name__ == "__main__":
    run_main(main)
