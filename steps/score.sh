#!/usr/bin/env bash
# Score a trial list with a trained chain and the embeddings of a test set. Writes one line `id1 id2 score` per trial.
# e.g.: steps/score.sh exp/xvector/backend/plda exp/xvector/embeddings_test data/test/trials/veri_test exp/xvector/scores_test/veri_test.plda
chain=              # words of the chain, for a folder without the file `chain`, such as Kaldi's: "center lda length plda"
enrolment=          # lines `model utt1 utt2 ...`: the first id of a trial is a model (empty: an utterance)
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
num_threads=0       # threads, at most 8 (0: all cores of this machine; 4 on an engine)
max_shared_speakers=0.0 # share of the list's speakers that may also be trained on
# <chain-folder> <embeddings> <trials> <scores>
. "$(dirname "$0")/../utils/step.sh"
folder=$1; embeddings=$2; trials=$3; scores=$4

require_file "$folder" "$trials" ${enrolment:+"$enrolment"}
inputs=("$folder" "$embeddings" "$trials" ${enrolment:+"$enrolment"})
require_apart "$scores" "$trials" ${enrolment:+"$enrolment"}
record=$(dirname "$scores")/.done.${scores##*/}
up_to_date "$record" "${inputs[@]}" && exit 0
# OPENBLAS_NUM_THREADS: blocks of the list are scored in threads; more threads within each product would slow it down.
about=(embeddings="$embeddings" threads="$num_threads")
[ -n "$enrolment" ] || about+=(trials="$trials")
estimate utils.jobs.memory score "${about[@]}"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} --num-threads "$num_threads" "$(dirname "$scores")/log/${scores##*/}.log" \
  env OPENBLAS_NUM_THREADS=1 python3 -m steps.backend.score --max-shared-speakers "$max_shared_speakers" \
  ${chain:+--chain "$chain"} ${enrolment:+--enrolment "$enrolment"} "$folder" "$embeddings" "$trials" "$scores"
requests_end
mark_done "$record" "${inputs[@]}" -- "$scores"
