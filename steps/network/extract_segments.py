"""Embed segments taken at regular intervals from each utterance: the job of extract_segments.sh.

Each utterance has one entry: the mean of its segments' unit-length embeddings. The dot product of two such means is
the mean cosine over all pairs of segments. Systems that pool pairs have no such vector: their entry is a matrix of the
encoder's frames, segment after segment, with two bytes per value, so that scoring never runs the encoder again.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from nnet.embed import load_network, utterances_for
from nnet.model import Network
from nnet.utterances import Utterances
from utils.device import find_device
from utils.errors import InputError, run_main
from utils.jobs.part import part_of
from utils.kaldi.ark import ArkWriter
from utils.progress import progress
from utils.space import require_space


@torch.inference_mode()
def embed_segments(network: Network, data: Utterances, chosen: range, device: torch.device, batch_frames: int,
                   segments: int, frames: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number of the utterance, its vector E or, if the system pools pairs, its matrix (segments T') x d)."""
    together = max(1, batch_frames // (segments * frames))
    for start in range(chosen.start, chosen.stop, together):
        batch = range(start, min(start + together, chosen.stop))
        x = torch.from_numpy(np.concatenate([data.segments(index, frames, segments) for index in batch])).to(device)
        x = x if x.dim() == 3 else network.frontend(x)[0]
        if network.pairwise:
            found = network.frames(x)[0].unflatten(0, (len(batch), segments)).flatten(1, 2)
        else:
            found = normalize(network.embed_features(x).float()).unflatten(0, (len(batch), segments)).mean(dim=1)
        yield from zip(batch, found.float().cpu().numpy(), strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", type=int, default=1, help="number of the part, from 1")
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--segments", type=int, default=10, help="segments per utterance (default: %(default)s)")
    parser.add_argument("--segment-frames", type=int, default=350, help="frames per segment (default: %(default)s)")
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.num_threads)
    network, config = load_network(arguments.model)
    segments, frames = arguments.segments, arguments.segment_frames
    if segments < 1 or frames < network.encoder.receptive_field:
        raise InputError(f"--segments is {segments} and --segment-frames {frames}; wanted 1 or more, and no fewer than "
                         f"the {network.encoder.receptive_field} frames that the encoder sees at once")
    device = find_device(arguments.device)
    network.to(device)
    data = utterances_for(config, arguments.model, arguments.data, remark=arguments.job == 1)
    part = part_of(len(data.rows), arguments.job, arguments.nj)
    size = 2.0 * segments * frames * network.encoder.output_dim if network.pairwise else 4096.0
    require_space(arguments.out, size * len(part), "the segments of this job")
    with ArkWriter(arguments.out / f"segments.{arguments.job}", compression=3) as writer:
        found = embed_segments(network, data, part, device, config.train.valid_batch_frames, segments, frames)
        for index, values in progress(found, len(part), "segments"):
            writer.write(data.rows.ids[index], values)


if __name__ == "__main__":
    run_main(main)
