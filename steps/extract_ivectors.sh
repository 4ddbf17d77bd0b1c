#!/usr/bin/env bash
# Extract the i-vectors of whole utterances: writes ivector.scp into the output directory, unless
# one that was made elsewhere is there.
# e.g.: steps/extract_ivectors.sh --nj 4 exp/ivector data/mfcc24/test exp/ivector/embeddings_test
nj=2                # number of jobs
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda
posteriors=         # script of posteriors from make_posteriors.sh or Kaldi (empty: compute them here)
# <exp> <data> <out>
. "$(dirname "$0")/../utils/step.sh"
exp=$1; data=$2; out=$3

made_elsewhere "$out/.done" "$out/ivector.scp" "$data/utt2spk" && exit 0
require_file "$exp/final.ie" "$exp/final.ubm" "$exp/system.yaml" "$data/feats.scp"
without_backend "$exp/system.yaml" "$out"
inputs=("$exp"/{final.ie,final.ubm} "$part" "$data" ${posteriors:+"$posteriors"})
add_voicing "$data"
up_to_date "$out/.done" "${inputs[@]}" && exit 0
validate "$data"

gpu=()
[ "$device" = cpu ] || gpu=(--gpu 1)
mkdir -p "$out/log"
begin "$out/unfinished" "${inputs[@]}" || rm -f "$out"/{,.}ivector.* "$out"/log/extract.*
estimate utils.jobs.memory extract_ivectors config="$exp/system.yaml" data="$data" device="$device"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} ${gpu[@]+"${gpu[@]}"} "JOB=1:$nj" "$out/log/extract.JOB.log" \
  once "$out/unfinished/ivector.JOB" "$out/ivector.JOB.ark" "$out/ivector.JOB.scp" -- \
  python3 -m steps.ivector.extract --job JOB --nj "$nj" --device "$device" \
    ${posteriors:+--posteriors "$posteriors"} "$exp" "$data" "$out"
requests_end
grep -h '^warning: ' "$out"/log/extract.*.log >&2 || true
python3 -m utils.kaldi.join_tables "$data/feats.scp" "$out/ivector.scp" "$out"/ivector.*.scp
mark_done "$out/.done" "${inputs[@]}"
rm -r "$out/unfinished"
