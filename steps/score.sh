#!/usr/bin/env bash
# Score a trial list with the embeddings of a test set. Writes one line `id1 id2 score` per trial.
# e.g.: steps/score.sh --backend plda exp/xvector/backend exp/xvector/embeddings_test data/test/trials/veri_test exp/xvector/scores_test/veri_test.plda
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
num_threads=0       # threads, at most 8 (0: all cores of this machine; 4 on an engine)
backend=plda        # one of the trained back-ends listed below
enrolment=          # lines `model utt1 utt2 ...`: the first id of a trial is a model (empty: an utterance)
max_shared_speakers=0.0 # share of the list's speakers that may also be trained on
# <backend> <embeddings> <trials> <scores>
more_usage() {
  echo "Back-ends, of steps/backend/__init__.py:" \
    "$(sed -n '/^BACKENDS = {/,/^}/s/^    "\([^"]*\)": .*/\1/p' "$(dirname "$0")/backend/__init__.py" | paste -s -d ' ')"
}
. "$(dirname "$0")/../utils/step.sh"
folder=$1; embeddings=$2; trials=$3; scores=$4

require_file "$folder" "$trials" ${enrolment:+"$enrolment"}
inputs=("$folder" "$embeddings" "$trials" ${enrolment:+"$enrolment"})
record=$(dirname "$scores")/.done.${scores##*/}
up_to_date "$record" "${inputs[@]}" && exit 0
# OPENBLAS_NUM_THREADS: blocks of the list are scored in threads; more threads within each product would slow it down.
# shellcheck disable=SC2086  # cmd holds words
$cmd --num-threads "$num_threads" "$(dirname "$scores")/log/${scores##*/}.log" \
  env OPENBLAS_NUM_THREADS=1 python3 -m steps.backend.score --backend "$backend" --max-shared-speakers "$max_shared_speakers" \
  ${enrolment:+--enrolment "$enrolment"} "$folder" "$embeddings" "$trials" "$scores"
mark_done "$record" "${inputs[@]}" -- "$scores"
