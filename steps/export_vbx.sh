#!/usr/bin/env bash
# Write the chain "center length lda200 length plda" (any dimension) as VBx reads it: plda, in Kaldi's format, and
# transform.h5. Needs the package h5py.
# e.g.: steps/export_vbx.sh exp/xvector/backend/vbx exp/xvector/vbx
# <chain-folder> <out>
. "$(dirname "$0")/../utils/step.sh"
chain=$1; out=$2

require_file "$chain/plda"
up_to_date "$out/.done" "$chain" && exit 0
step_begins
mkdir -p "$out"
python3 -m steps.backend.export_vbx "$chain" "$out"
mark_done "$out/.done" "$chain" -- "$out"/{plda,transform.h5}
