#!/usr/bin/env bash
# Scoring and metrics of 1.44 million trials (1,200 vectors of dimension 200, each with all others) against Kaldi's programs on
# 2 cores: seconds from text and ark files to text files, Kaldi's seconds, and the ratio. The best of several runs.
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

measure() {  # name kaldi's-seconds command ...
  local name=$1 kaldi=$2 best run; shift 2
  best=$(for ((run = 0; run < runs; run++)); do
    TIMEFORMAT=%R
    { time "$@" > "$work/out"; } 2>&1
  done | sort -n | head -n 1)
  awk -v name="$name" -v seconds="$best" -v kaldi="$kaldi" \
    'BEGIN { printf "%-34s %6.2f s   Kaldi %5.2f s   ratio %4.1f\n", name, seconds, kaldi, kaldi / seconds }'
}

measure "PLDA scores" 4.33 python3 -m steps.backend.score --chain "center lda length plda" "$work/backend" "$work/xvector.scp" "$work/trials" "$work/plda"
measure "cosine scores" 1.47 python3 -m steps.backend.score --chain "center length cosine" "$work/backend" "$work/xvector.scp" "$work/trials" "$work/cosine"
paste -d ' ' <(cut -d ' ' -f 3 "$work/plda") <(cut -d ' ' -f 3 "$work/trials") > "$work/labelled"
measure "EER, input of compute-eer" 0.72 python3 -m utils.metrics "$work/labelled"
measure "EER and minDCF, joined by id" 0.72 python3 -m utils.metrics "$work/trials" "$work/plda"
