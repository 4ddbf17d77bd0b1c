"""Score a trial list by segments (steps/network/extract_segments.py): the mean cosine over all pairs of the two
utterances' segments.

If a system pools pairs, each pair of segments is pooled from the encoder's stored frames, in batches of trials on the
device.
"""

import argparse
import re
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from nnet.embed import load_network
from nnet.model import Network
from nnet.poolings.cross_attention import Side
from steps.backend.scoring import Sides, score_trials
from utils.arguments import share
from utils.device import find_device
from utils.errors import InputError, run_main
from utils.kaldi.ark import RowReader, read_vectors
from utils.kaldi.shared_speakers import check_trials, trained_speakers

TRIALS = 64   # pooled together
CACHED = 500  # utterances whose frames, and values computed from them, stay on the device


class PairScores:
    """Scores of trials, pooled pair by pair: a Scorer (steps/backend/interface.py)."""

    def __init__(self, network: Network, rows: RowReader, segments: int, device: torch.device) -> None:
        self.network, self.rows, self.segments, self.device = network, rows, segments, device
        self.side = lru_cache(CACHED)(self._side)
        self.one_at_a_time = threading.Lock()  # the lines of a list are read in several threads

    def _side(self, index: int) -> Side:
        frames = torch.from_numpy(self.rows.read(index)).to(self.device)
        if len(frames) % self.segments:
            raise InputError(f"{self.rows.scp}: {self.rows.ids[index]} has {len(frames)} frames, not a multiple of "
                             f"{self.segments} segments; extract the segments again")
        return self.network.pooling.side(frames.unflatten(0, (self.segments, -1)))

    def scores(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Return the scores (float32) of trials of utterances `i` with utterances `j`."""
        scores = np.empty(len(i), np.float32)
        with self.one_at_a_time, torch.inference_mode():
            order = np.lexsort((j, i))
            for start in range(0, len(order), TRIALS):
                some = order[start:start + TRIALS]
                s, q = (Side(*map(torch.stack, zip(*(self.side(int(row)) for row in rows[some]), strict=True)))
                        for rows in (i, j))
                both = torch.stack(self.network.pooling.pairs(s, q))  # 2 x trials x segments x segments x d
                unit = normalize(self.network.head.embed(both.flatten(0, 3))).unflatten(0, both.shape[:4])
                scores[some] = (unit[0] * unit[1]).sum(dim=3).mean(dim=(1, 2)).cpu().numpy()
        return scores


def read_count(path: Path) -> int:
    """Return the number of segments of each utterance; raises InputError on a damaged file."""
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise InputError(f"{path}: {text[:40]!r} is not a number of segments; extract the segments again")
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--num-threads", type=int, default=2, help="threads on a CPU (default: %(default)s)")
    parser.add_argument("--max-shared-speakers", type=share("--max-shared-speakers"), default=0.0,
                        help="share of the list's speakers that may also be trained on (default: %(default)s)")
    parser.add_argument("model", type=Path)
    parser.add_argument("segments", type=Path, help="folder with segments.scp and num_segments")
    parser.add_argument("trials", type=Path)
    parser.add_argument("scores", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.num_threads)
    network, _ = load_network(arguments.model)
    script = arguments.segments / "segments.scp"
    if network.pairwise:
        device = find_device(arguments.device)
        rows, count = RowReader(script), read_count(arguments.segments / "num_segments")
        ids, sides = list(rows.ids), PairScores(network.to(device), rows, count, device)
    else:
        ids, vectors = read_vectors(script)
        sides = Sides(vectors, vectors)
    trained = trained_speakers(arguments.model)

    def check(*named: np.ndarray) -> None:
        check_trials(arguments.trials, (ids[row] for row in np.unique(np.concatenate(named))), trained,
                     arguments.max_shared_speakers)

    score_trials(arguments.trials, arguments.scores, sides, ids, ids, check)


if __name__ == "__main__":
    run_main(main)
