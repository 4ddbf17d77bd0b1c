#!/usr/bin/env bash
# Write the mean score of each utterance with the cohort of a chain, lines `utterance value`: a quality measure for
# calibrate.sh and fuse.sh.
# e.g.: steps/cohort_means.sh exp/xvector/backend/cosine_asnorm exp/xvector/embeddings_test exp/xvector/cohort_means_test
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
num_threads=0       # threads, at most 8 (0: all cores of this machine; 4 on an engine)
# <chain-folder> <embeddings> <table>
. "$(dirname "$0")/../utils/step.sh"
folder=$1; embeddings=$2; table=$3

require_file "$folder"
record=$(dirname "$table")/.done.${table##*/}
up_to_date "$record" "$folder" "$embeddings" && exit 0
estimate utils.jobs.memory score embeddings="$embeddings" threads="$num_threads"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} --num-threads "$num_threads" "$(dirname "$table")/log/${table##*/}.log" \
  env OPENBLAS_NUM_THREADS=1 python3 -m steps.backend.cohort_means "$folder" "$embeddings" "$table"
requests_end
mark_done "$record" "$folder" "$embeddings" -- "$table"
