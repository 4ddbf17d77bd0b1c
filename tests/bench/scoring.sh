#!/usr/bin/env bash
# Scoring and metrics of 1.44 million trials (1,200 vectors of dimension 200, each with all others): seconds from text and ark
# files to text files, the best of several runs; where Kaldi's programs are on the PATH, also theirs, and the ratio.
# e.g.: tests/bench/scoring.sh --runs 9
runs=5              # runs of each program
work=               # folder for the files (empty: a temporary one, removed at the end)
# (no arguments)
. "$(dirname "$0")/../../utils/step.sh"

if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
python3 - "$work" << 'END'
import sys
from pathlib import Path

import numpy as np

from steps.backend.plda import from_covariances, write_plda
from utils.kaldi.ark import ArkWriter
from utils.kaldi.objects import write_matrix, write_vector

work = Path(sys.argv[1])
rng = np.random.default_rng(0)
speakers = [f"id{speaker:05}" for speaker in range(40)]
ids = [f"{speaker}-{rng.bytes(5).hex()}x-{utterance:05}" for speaker in speakers for utterance in range(30)]
centres = rng.normal(size=(40, 200))
with ArkWriter(work / "xvector") as writer:
    for index, name in enumerate(ids):
        writer.write(name, centres[index // 30] + 3 * rng.normal(size=200))
write_vector(work / "backend/mean.vec", np.zeros(200, np.float32))
write_matrix(work / "backend/transform.mat", np.eye(200, 201, dtype=np.float32))
write_plda(work / "backend/plda", from_covariances(np.zeros(200), 9 * np.eye(200), np.diag(np.linspace(0.5, 1.5, 200))))
with open(work / "trials", "w") as stream:
    for enrolment in ids:
        stream.writelines(f"{enrolment} {test} {'target' if enrolment[:7] == test[:7] else 'nontarget'}\n"
                          for test in ids if test != enrolment)
END
export OPENBLAS_NUM_THREADS=1   # as steps/score.sh

# With Kaldi's programs on the PATH, they are timed in the same run, on one thread like ours.
timed() {  # command ...: sets best, in seconds
  local run
  best=$(for ((run = 0; run < runs; run++)); do
    TIMEFORMAT=%R
    { time "$@" > "$work/out" 2> "$work/error"; } 2>&1 || { cat "$work/error" >&2; exit 1; }
  done | sort -n | head -n 1)
}
measure() {  # name kaldi's-command command ...
  local name=$1 kaldi=$2 ours beside=''; shift 2
  timed "$@"; ours=$best
  if type -P compute-eer > /dev/null; then
    timed bash -o pipefail -ec "$kaldi"
    beside=$(awk -v ours="$ours" -v kaldi="$best" 'BEGIN { printf "   Kaldi %5.2f s   ratio %4.1f", kaldi, kaldi / ours }')
  fi
  printf '%-34s %6.2f s%s\n' "$name" "$ours" "$beside"
}

export work
# shellcheck disable=SC2016  # for the other shell
centred='ark:ivector-subtract-global-mean $work/backend/mean.vec scp:$work/xvector.scp ark:- | ivector-normalize-length ark:- ark:- |'
pairs="cut -d ' ' -f 1,2 $work/trials |"
measure "PLDA scores" "ivector-plda-scoring --normalize-length=true $work/backend/plda '$centred' '$centred' \"$pairs\" $work/kaldi.plda" \
  python3 -m steps.backend.score --chain "center lda length plda" "$work/backend" "$work/xvector.scp" "$work/trials" "$work/plda"
measure "cosine scores" "ivector-compute-dot-products \"$pairs\" '$centred' '$centred' $work/kaldi.cosine" \
  python3 -m steps.backend.score --chain "center length cosine" "$work/backend" "$work/xvector.scp" "$work/trials" "$work/cosine"
paste -d ' ' <(cut -d ' ' -f 3 "$work/plda") <(cut -d ' ' -f 3 "$work/trials") > "$work/labelled"
measure "EER, input of compute-eer" "compute-eer $work/labelled" python3 -m utils.metrics "$work/labelled"
measure "EER and minDCF, joined by id" "paste -d ' ' <(cut -d ' ' -f 3 $work/plda) <(cut -d ' ' -f 3 $work/trials) | compute-eer -" \
  python3 -m utils.metrics "$work/trials" "$work/plda"
