"""Embed a part of a data directory's utterances: the job of steps/extract_embeddings.sh.

An utterance longer than --max-frames is cut into equal pieces of at most that many frames, whose embeddings are
averaged.
"""

import argparse
from pathlib import Path

import torch

from nnet.device import keep_freed_memory
from nnet.embed import MAX_FRAMES, embed_utterances, load_network, utterances_for
from utils.device import find_device
from utils.errors import InputError, run_main
from utils.jobs.part import part_of
from utils.kaldi.ark import ArkWriter
from utils.progress import progress
from utils.space import require_space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--job", type=int, default=1, help="number of the part, from 1")
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--num-threads", type=int, default=1)
    parser.add_argument("--max-frames", type=int, default=MAX_FRAMES)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.num_threads)
    network, config = load_network(arguments.model)
    if arguments.max_frames < network.encoder.receptive_field:
        raise InputError(f"--max-frames is {arguments.max_frames}; wanted no fewer than the "
                         f"{network.encoder.receptive_field} frames that the encoder sees at once")
    device = find_device(arguments.device)
    network.to(device)
    data = utterances_for(config, arguments.model, arguments.data, remark=arguments.job == 1)
    part = part_of(len(data.rows), arguments.job, arguments.nj)
    require_space(arguments.out, 4096.0 * len(part), "the embeddings of this job")
    with ArkWriter(arguments.out / f"xvector.{arguments.job}") as writer:
        found = embed_utterances(network, data, part, device, config.train.valid_batch_frames,
                                 arguments.max_frames)
        for index, vector in progress(found, len(part), "embeddings"):
            writer.write(data.rows.ids[index], vector)


if __name__ == "__main__":
    run_main(main)
