#!/usr/bin/env bash
# Normalise the scores of a list with a cohort of any other speakers. Writes lines `id1 id2 score`. (A chain that ends in
# asnorm300 or the like normalises its scores itself, with its training speakers.)
# e.g.: steps/normalise_scores.sh exp/xvector/backend/cosine data/train exp/xvector/embeddings_train data/test exp/xvector/embeddings_test exp/xvector/scores_test/veri_test.cosine veri_test.cosine_asnorm
kind=asnorm300      # znorm, tnorm, snorm, or asnorm<N>: adaptive s-norm with the N highest cohort scores
chain=              # words of the chain, for a folder without the file `chain`, such as Kaldi's: "center lda length plda"
enrolment=          # lines `model utt1 utt2 ...`: the first id of a trial is a model (empty: an utterance)
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
num_threads=0       # threads, at most 8 (0: all cores of this machine; 4 on an engine)
max_shared_speakers=0.0 # share of the test's speakers that may also be in the cohort
# <chain-folder> <cohort-data> <cohort-embeddings> <data> <embeddings> <scores> <normalised-scores>
. "$(dirname "$0")/../utils/step.sh"
folder=$1; cohort_data=$2; cohort=$3; data=$4; embeddings=$5; scores=$6; out=$7

require_file "$folder" "$cohort_data/utt2spk" "$data/utt2spk" "$scores" ${enrolment:+"$enrolment"}
inputs=("$folder" "$cohort_data/utt2spk" "$cohort" "$data/utt2spk" "$embeddings" "$scores" ${enrolment:+"$enrolment"})
require_apart "$out" "$scores" ${enrolment:+"$enrolment"}
record=$(dirname "$out")/.done.${out##*/}
up_to_date "$record" "${inputs[@]}" && exit 0
estimate utils.jobs.memory score embeddings="$embeddings" threads="$num_threads" cohort="$cohort"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} --num-threads "$num_threads" "$(dirname "$out")/log/${out##*/}.log" \
  env OPENBLAS_NUM_THREADS=1 python3 -m steps.backend.normalise --kind "$kind" ${chain:+--chain "$chain"} \
  --max-shared-speakers "$max_shared_speakers" ${enrolment:+--enrolment "$enrolment"} \
  "$folder" "$cohort_data" "$cohort" "$data" "$embeddings" "$scores" "$out"
requests_end
mark_done "$record" "${inputs[@]}" -- "$out"
