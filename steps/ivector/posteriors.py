"""Posteriors and selected Gaussians of one part of a data directory, as Kaldi's files.

The job that steps/make_posteriors.sh runs nj times: post.JOB and gselect.JOB, archives and scripts.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from steps.ivector.alignments import Alignment, iterate_alignments, write_gselect, write_posteriors
from steps.ivector.config import read_ivector_config
from steps.ivector.frames import AT_ONCE, utterances
from steps.ivector.gmm import FullPosteriors
from steps.ivector.gmm_files import read_full
from utils.errors import InputError, run_main
from utils.features.model_features import check_options, kept_options
from utils.files import count_lines
from utils.jobs.part import part_of
from utils.kaldi.ark import ArkWriter


def alignments_of(posteriors_of: FullPosteriors, x: Tensor, selected: Tensor | None = None,
                  ) -> tuple[Alignment, Alignment]:
    """Return the posteriors and the selection of T x D frames, each frame's likeliest Gaussian first.

    selected: T x K, an earlier selection.
    """
    chosen, posteriors, _ = posteriors_of(x, selected)
    order = posteriors.argsort(dim=1, descending=True, stable=True)
    chosen, posteriors = chosen.gather(1, order).cpu().numpy(), posteriors.gather(1, order).cpu().numpy()
    kept = posteriors > 0
    sizes = np.full(len(chosen), chosen.shape[1])
    return (Alignment(kept.sum(1), chosen[kept], posteriors[kept]),
            Alignment(sizes, chosen.ravel(), np.ones(chosen.size, np.float32)))


def selection(path: str, alignment: Alignment, name: str, frames: int, count: int) -> Tensor:
    """Return a file's gselect as T x K; raises InputError unless it fits the frames and the UBM's `count` Gaussians."""
    sizes, gaussians = alignment.sizes, alignment.gaussians
    if len(sizes) != frames:
        raise InputError(f"{path}: {name} has {len(sizes)} frames, its features {frames}")
    if frames and (sizes.min() < 1 or sizes.min() != sizes.max()):
        raise InputError(f"{path}: {name} has frames with {sizes.min()} and with {sizes.max()} Gaussians; wanted the "
                         "same number for each, as gmm-gselect writes")
    if frames and gaussians.max() >= count:
        raise InputError(f"{path}: {name} has Gaussian {gaussians.max()}, the UBM has {count}, counted from 0; was one "
                         "dropped after the selection?")
    return torch.from_numpy(gaussians).long().view(frames, -1 if frames else 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", type=int, default=1, help="number of the part, from 1")
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--gselect", help="script or archive of selections (Kaldi's), in the order of feats.scp")
    parser.add_argument("--text", action="store_true", help="write text instead of binary")
    parser.add_argument("config", type=Path)
    parser.add_argument("ubm", type=Path, help="final.ubm")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = read_ivector_config(arguments.config)
    ubm = read_full(arguments.ubm).to("cpu", torch.float32)
    model = arguments.ubm.parent
    check_options(arguments.data, kept_options(model, config.frontend.vad), model, remark=arguments.job == 1)
    posteriors_of = FullPosteriors(ubm, config.ubm.num_gselect, config.extractor.min_post)
    part = part_of(count_lines(arguments.data / "feats.scp"), arguments.job, arguments.nj, AT_ONCE)
    binary = not arguments.text
    with (ArkWriter(arguments.out / f"post.{arguments.job}", binary=binary) as post,
          ArkWriter(arguments.out / f"gselect.{arguments.job}", binary=binary) as gselect):
        listed = iterate_alignments(arguments.gselect, gselect=True, part=part) if arguments.gselect else None
        for name, x in utterances(arguments.data, config.frontend, part=part):
            chosen = None
            if listed is not None:
                other, alignment = next(listed, ("nothing", None))
                if other != name:
                    raise InputError(f"{arguments.gselect}: {other} where {arguments.data} has {name}")
                chosen = selection(arguments.gselect, alignment, name, len(x), len(ubm.weights))
            posteriors, selected = alignments_of(posteriors_of, torch.from_numpy(x), chosen)
            post.write_object(name, lambda kaldi, entry=posteriors: write_posteriors(kaldi, entry))
            gselect.write_object(name, lambda kaldi, entry=selected: write_gselect(kaldi, entry))


if __name__ == "__main__":
    run_main(main)
