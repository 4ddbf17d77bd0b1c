#!/usr/bin/env bash
# Time from recordings to embeddings, with random weights: utils/embed against the recipe's steps on the same files, and
# the first embedding of a new process, once per repeat. Run it on an idle machine.
# e.g.: tests/bench/embed.sh --files 300 ../shared/corpora/minivox/test/wav
system=xvector      # name in egs/voxceleb/conf
scale=full          # full or mini
files=300           # how many recordings of the folder to embed
nj=2                # jobs of the steps
repeats=3           # of each measurement; the least counts
device=cpu          # cpu or cuda
# <folder>
. "$(dirname "$0")/../../utils/step.sh"
folder=$(cd "$1" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
conf=$VOX_ROOT/egs/voxceleb/conf
cat > "$work/prepare.py" << 'END'
import dataclasses
import sys
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file

from nnet.config import network_config, plain
from nnet.model import Network
from steps.use.embed import recordings
from utils.config import load_config
from utils.features.options import read_feature_options, written_out
from utils.features.vad import read_vad_options, vad_written_out

conf, name, scale, work, folder, count = Path(sys.argv[1]), *sys.argv[2:4], *map(Path, sys.argv[4:6]), int(sys.argv[6])
config = network_config(load_config(conf / f"{name}.yaml", scale), name)
options = read_feature_options(conf / f"features/{config.features}.conf")
vad = vad_written_out(read_vad_options(conf / "features/vad.conf")) if config.vad else None
config = dataclasses.replace(config, feature_dim=options.dim, speakers=1211, feature_options=written_out(options),
                             vad_options=vad)
weights = Network(config, options.dim, 1211).state_dict()
for place in (work / "exp", work / "data"):
    place.mkdir()
(work / "exp/config.yaml").write_text(yaml.safe_dump(plain(config)))
save_file({key: value.contiguous() for key, value in weights.items()}, work / "exp/model.safetensors")
chosen = dict(sorted(recordings([folder]).items())[:count])
for table, lines in (("wav.scp", chosen.items()), ("utt2spk", ((name, name) for name in chosen)),
                     ("spk2utt", ((name, name) for name in chosen))):
    (work / "data" / table).write_text("".join(f"{name} {value}\n" for name, value in lines))
print(config.features, str(bool(config.vad)).lower())
END
read -r features vad < <(python3 "$work/prepare.py" "$conf" "$system" "$scale" "$work" "$folder" "$files")

# Prints the least wall-clock seconds of several runs of a function.
least() {  # function
  local run started
  for ((run = 0; run < repeats; run++)); do
    started=$EPOCHREALTIME
    "$1" > "$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
    echo "$started $EPOCHREALTIME"
  done | awk '{ took = $2 - $1; if (NR == 1 || took < best) best = took } END { printf "%.2f\n", best }'
}
by_steps() {
  rm -rf "$work/feats" "$work/by_steps"
  "$VOX_ROOT/steps/make_feats.sh" --nj "$nj" "$conf/features/$features.conf" "$work/data" "$work/feats"
  [ "$vad" = false ] || "$VOX_ROOT/steps/compute_vad.sh" --nj "$nj" "$conf/features/vad.conf" "$work/feats"
  "$VOX_ROOT/steps/extract_embeddings.sh" --nj "$nj" --device "$device" "$work/exp" "$work/feats" "$work/by_steps"
}
by_embed() { "$VOX_ROOT/utils/embed" --device "$device" "$work/exp" "$work/data/wav.scp" --out "$work/embed.scp"; }
first() {
  python3 -c 'import sys
from nnet.embed import load
load(sys.argv[1]).embed(sys.argv[2])' "$work/exp" "$(head -n 1 "$work/data/wav.scp" | cut -d ' ' -f 2-)"
}
steps=$(least by_steps) embed=$(least by_embed) first=$(least first)
python3 - "$work" "$system" "$scale" "$device" "$steps" "$embed" "$first" << 'END'
import os
import sys

import numpy as np
import soundfile

from utils.kaldi.ark import read_table, read_vectors

work, system, scale, device, *times = sys.argv[1:]
ids, theirs = read_vectors(f"{work}/by_steps/xvector.scp")
found, ours = read_vectors(f"{work}/embed.scp")
theirs = theirs[[ids.index(name) for name in found]]
cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
seconds = sum(soundfile.info(path).duration for path in read_table(f"{work}/data/wav.scp")[1])
steps, embed, first = map(float, times)
print(f"{system} {scale} {device}  {len(found)} files, {seconds:.0f} s of audio, {os.cpu_count()} cores, "
      f"load {os.getloadavg()[0]:.1f}\n  steps        {steps:8.2f} s\n  utils/embed  {embed:8.2f} s, ratio "
      f"{embed / steps:.2f}\n  first embedding of a process {first:.2f} s\n  lowest cosine between the two "
      f"{cosine.min():.6f}")
END
