#!/usr/bin/env bash
# Real-time factor of extraction on one core, by system: seconds of work per second of speech for the features (from
# samples) and for the embedding (from features), with utterances of 8 s in batches as in extraction; random weights.
# e.g.: tests/bench/extract.sh --systems "xvector vgg_mha" --scale full
systems="xvector vgg_mha" # names in egs/voxceleb/conf
scale=full          # full or mini
device=cpu          # cpu or cuda, for the embeddings
utterances=24       # utterances to embed
# (no arguments)
. "$(dirname "$0")/../../utils/step.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
cat > "$work/extract.py" << 'END'
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from nnet.config import network_config
from nnet.device import find_device, keep_freed_memory
from nnet.embed import embed_utterances
from nnet.model import Network
from utils.features.compute import compute_features
from utils.features.frontend import apply_frontend
from utils.features.options import read_feature_options
from utils.config import load_config

SECONDS = 8
keep_freed_memory()
torch.set_num_threads(1)
conf, name, scale, device, count = Path(sys.argv[1]), *sys.argv[2:5], int(sys.argv[5])
config = network_config(load_config(conf / f"{name}.yaml", scale), name)
options = read_feature_options(conf / f"features/{config.features}.conf")
network = Network(config, options.dim, 1211).eval().to(find_device(device))
samples = (1000 * np.random.default_rng(0).standard_normal(SECONDS * options.rate)).astype(np.float32)


def best(action):
    found = []
    for _ in range(4):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return min(found[1:])


frames = compute_features(samples, options)


class Data:
    """Any number of identical utterances."""

    def whole(self, index):
        return apply_frontend(frames, np.ones(len(frames)), config.frontend)


features = best(lambda: compute_features(samples, options)) / SECONDS
embedding = best(lambda: list(embed_utterances(network, Data(), range(count), find_device(device),
                                               config.train.valid_batch_frames))) / SECONDS / count
load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
print(f"{name:24} {scale}  features {features:.5f} ({config.features})  embedding {embedding:.5f} ({device})  "
      f"both {features + embedding:.5f}  {load}")
END
for system in $systems; do
  python3 "$work/extract.py" "$VOX_ROOT/egs/voxceleb/conf" "$system" "$scale" "$device" "$utterances"
done
