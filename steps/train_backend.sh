#!/usr/bin/env bash
# Train the back-ends that a system is scored with (`scoring:`, `backend:`) on its training embeddings: for cosine the mean,
# for PLDA also LDA and PLDA.
# e.g.: steps/train_backend.sh exp/xvector/system.yaml data/train exp/xvector/embeddings_train exp/xvector/backend
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
# <config> <data> <embeddings> <backend>
. "$(dirname "$0")/../utils/step.sh"
config=$1; data=$2; embeddings=$3; backend=$4

require_file "$config" "$data/utt2spk"
up_to_date "$backend/.done" "$config" "$data/utt2spk" "$embeddings" && exit 0
# shellcheck disable=SC2086  # cmd holds words
$cmd "$backend/log/train.log" \
  python3 -m steps.backend.train_backend "$config" "$data/utt2spk" "$embeddings" "$backend"
mark_done "$backend/.done" "$config" "$data/utt2spk" "$embeddings"
