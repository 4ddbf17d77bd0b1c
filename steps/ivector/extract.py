"""I-vectors of one part of a data directory: the job that steps/extract_ivectors.sh runs nj times."""

import argparse
from pathlib import Path

import torch

from steps.ivector.config import read_ivector_config
from steps.ivector.extractor import Posterior, read_extractor
from steps.ivector.frames import blocks
from steps.ivector.gmm import FullPosteriors
from steps.ivector.gmm_files import read_full
from steps.ivector.train_extractor import block_statistics
from utils.ark import ArkWriter
from utils.errors import InputError, run_main


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", type=int, default=1, help="which part, from 1")
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("exp", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.num_threads)
    config = read_ivector_config(arguments.exp / "system.yaml")
    gmm = read_full(arguments.exp / "final.ubm").to(arguments.device, torch.float32)
    posteriors_of = FullPosteriors(gmm, config.ubm.num_gselect, config.extractor.min_post)
    model = read_extractor(arguments.exp / "final.ie")
    if model.m.shape[:2] != gmm.means.shape:
        raise InputError(f"{arguments.exp}: final.ie is of {tuple(model.m.shape[:2])} Gaussians and dimensions, "
                         f"final.ubm of {tuple(gmm.means.shape)}; train the extractor again")
    posterior = Posterior(model, arguments.device)
    with open(arguments.data / "feats.scp", "rb") as stream:
        count = sum(1 for _ in stream)
    part = range(count * (arguments.job - 1) // arguments.nj, count * arguments.job // arguments.nj)
    with ArkWriter(arguments.out / f"ivector.{arguments.job}") as writer:
        for ids, x, lengths in blocks(arguments.data, config.frontend, part=part):
            frames = torch.from_numpy(x).to(arguments.device)
            if frames.shape[1] != gmm.means.shape[1]:
                raise InputError(f"{arguments.data}: {frames.shape[1]} values a frame, the model has "
                                 f"{gmm.means.shape[1]}")
            vectors = posterior.ivectors(*block_statistics(posteriors_of, frames, lengths)[:2]).cpu().numpy()
            for name, vector in zip(ids, vectors, strict=True):
                writer.write(name, vector)


if __name__ == "__main__":
    run_main(main)
