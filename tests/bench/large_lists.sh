#!/usr/bin/env bash
# Large lists: VoxCeleb1-E and -H after adaptive s-norm with a cohort of 5,994 speakers, and 58.9 million trials by cosine, at 256
# dimensions: seconds from ark and text files to a text file, and the largest memory of the job. The vectors are random, and
# as many as the lists' utterances. And PLDA with and without LDA, trained on as many vectors as VoxCeleb2 has.
# e.g.: tests/bench/large_lists.sh --lists "E H"
lists="E H large plda" # E: 581,480 trials of 145,160 utterances; H: 552,536 of 137,924; large: 58,900,000 of 145,160;
                    # plda: 1,092,009 vectors of 5,994 speakers, 512 dimensions
num_threads=2       # threads
work=               # folder for the files, up to 7 GB (empty: a temporary one, removed at the end)
# (no arguments)
. "$(dirname "$0")/../../utils/step.sh"

if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
measured() {  # what log: print a line from a log's accounting
  sed -n "s/^# Accounting: time=\([0-9]*\) .*peak_mb=\([0-9]*\).*/$1: \1 s, peak \2 MB/p" "$2"
}
train_plda() {
  python3 - "$work/plda" << 'END'
import sys
from pathlib import Path

import numpy as np

from utils.kaldi.ark import ArkWriter

folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
speakers, dim, vectors = 5994, 512, 1092009
means = rng.normal(size=(speakers, dim)).astype(np.float32)
with ArkWriter(folder / "xvector") as writer, open(folder / "data/utt2spk", "w") as utt2spk:
    for row in range(vectors):
        speaker = row * speakers // vectors
        name = f"id{speaker:05}-{row:07}"
        writer.write(name, means[speaker] + rng.normal(size=dim).astype(np.float32))
        utt2spk.write(f"{name} id{speaker:05}\n")
(folder / "system.yaml").write_text("backend: {plda: [center, length, plda], lda: [center, lda200, length, plda]}\n")
END
  "$VOX_ROOT/steps/train_backend.sh" "$work/plda/system.yaml" "$work/plda/data" "$work/plda/xvector.scp" "$work/plda/backend"
}
for list in $lists; do
  if [ "$list" = plda ]; then
    mkdir -p "$work/plda/data"
    train_plda 2> "$work/plda/said" || { cat "$work/plda/said" >&2; exit 1; }
    measured "plda: two chains, of 512 dimensions and of LDA to 200, trained on 1092009 vectors of 5994 speakers" \
      "$work/plda/backend/log/train.log"
    rm -r "${work:?}/plda"
    continue
  fi
  case $list in
    E) size=(581480 145160) chain="center length cosine asnorm300" ;;
    H) size=(552536 137924) chain="center length cosine asnorm300" ;;
    large) size=(58900000 145160) chain="center length cosine" ;;
    *) die "--lists $list: wanted E, H, large, plda" ;;
  esac
  mkdir -p "$work/$list"
  python3 - "$work/$list" "$chain" "${size[@]}" << 'END'
import sys
from pathlib import Path

import numpy as np

from steps.backend import parse_chain
from steps.backend.chain import Chain
from utils.kaldi.ark import ArkWriter

folder, chain, trials, utterances = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(0)
cohort = rng.normal(size=(2 * 5994, 256)).astype(np.float32)
speakers = [f"c{row // 2:05}" for row in range(len(cohort))]
Chain.fit(parse_chain(chain.split(), "chain"), cohort, speakers).save(folder / "chain")
names = [f"id1{row % 1251:04}-{row:011x}-{row:05}" for row in range(utterances)]
with ArkWriter(folder / "xvector") as writer:
    for name in names:
        writer.write(name, rng.normal(size=256).astype(np.float32))
ids = np.array(names, dtype="S")
with open(folder / "trials", "wb") as stream:
    for start in range(0, trials, 1 << 20):
        a, b = rng.integers(utterances, size=(2, min(1 << 20, trials - start)))
        b[a == b] = (a[a == b] + 1) % utterances
        stream.write(b"".join(b"%s %s nontarget\n" % pair for pair in zip(ids[a].tolist(), ids[b].tolist())))
END
  "$VOX_ROOT/steps/score.sh" --num-threads "$num_threads" "$work/$list/chain" "$work/$list/xvector.scp" "$work/$list/trials" \
    "$work/$list/scores" 2> "$work/$list/said" || { cat "$work/$list/said" >&2; exit 1; }
  measured "$list: ${size[0]} trials, $chain" "$work/$list/log/scores.log"
  rm -r "${work:?}/$list"
done
