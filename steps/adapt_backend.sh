#!/usr/bin/env bash
# Adapt the PLDA of a chain to embeddings of another domain, whose speakers need not be known. The new chain has the same
# transforms.
# e.g.: steps/adapt_backend.sh --method coral_plus exp/xvector/backend/plda work/mine/embeddings work/mine/backend
method=kaldi        # kaldi (ivector-adapt-plda), coral or coral_plus
chain=              # words of the chain, for a folder without the file `chain`, such as Kaldi's: "center lda length plda"
within=             # share of the excess for the within-speaker covariance (empty: kaldi 0.75, coral 1, coral_plus 0.8)
between=            # share of the excess for the between-speaker covariance (empty: kaldi 0.25, coral 1, coral_plus 0.8)
# <chain-folder> <embeddings> <adapted-chain-folder>
. "$(dirname "$0")/../utils/step.sh"
folder=$1; embeddings=$2; out=$3

require_file "$folder/plda"
require_apart "$out" "$folder" "$embeddings"
up_to_date "$out/.done" "$folder" "$embeddings" && exit 0
mkdir -p "$out"
step_begins
python3 -m steps.backend.adapt --method "$method" ${chain:+--chain "$chain"} ${within:+--within "$within"} ${between:+--between "$between"} \
  "$folder" "$embeddings" "$out"
mark_done "$out/.done" "$folder" "$embeddings"
