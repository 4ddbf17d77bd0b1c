#!/usr/bin/env bash
# Score a trial list with the embeddings of a test set: `id1 id2 score` a line.
# e.g.: steps/score.sh --backend plda exp/xvector/backend exp/xvector/embeddings_test data/test/trials/veri_test exp/xvector/scores_test/veri_test.plda
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
backend=plda        # cosine (of centred embeddings) or plda (LDA, length normalisation, PLDA)
# <backend> <embeddings> <trials> <scores>
. "$(dirname "$0")/../utils/step.sh"
folder=$1; embeddings=$2; trials=$3; scores=$4

vectors=$(ls "$embeddings"/{xvector,ivector}.scp 2>/dev/null || true)
require_file "$folder/mean.vec" "$folder/transform.mat" "$folder/plda" "$trials" "${vectors:-$embeddings/xvector.scp}"
record=$(dirname "$scores")/.done.${scores##*/}
up_to_date "$record" "$folder" "$embeddings" "$trials" && exit 0
# shellcheck disable=SC2086  # cmd holds words
$cmd "$(dirname "$scores")/log/${scores##*/}.log" \
  python3 -m steps.backend.score --backend "$backend" "$folder" "$vectors" "$trials" "$scores"
mark_done "$record" "$folder" "$embeddings" "$trials" -- "$scores"
