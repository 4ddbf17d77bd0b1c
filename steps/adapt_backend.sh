#!/usr/bin/env bash
# Adapt the PLDA of a back-end to embeddings of another domain, whose speakers need not be known. The new back-end has the
# same mean and LDA.
# e.g.: steps/adapt_backend.sh --method coral_plus exp/xvector/backend work/mine/embeddings work/mine/backend
method=kaldi        # kaldi (ivector-adapt-plda), coral or coral_plus
within=             # share of the excess for the within-speaker covariance (empty: kaldi 0.75, coral 1, coral_plus 0.8)
between=            # share of the excess for the between-speaker covariance (empty: kaldi 0.25, coral 1, coral_plus 0.8)
# <backend> <embeddings> <adapted-backend>
. "$(dirname "$0")/../utils/step.sh"
backend=$1; embeddings=$2; out=$3

require_file "$backend"/{mean.vec,transform.mat,plda}
up_to_date "$out/.done" "$backend" "$embeddings" && exit 0
mkdir -p "$out"
step_begins
python3 -m steps.backend.adapt --method "$method" ${within:+--within "$within"} ${between:+--between "$between"} \
  "$backend" "$embeddings" "$out"
mark_done "$out/.done" "$backend" "$embeddings"
