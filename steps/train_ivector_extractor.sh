#!/usr/bin/env bash
# Train the total-variability model of an i-vector system: final.ie.
# e.g.: steps/train_ivector_extractor.sh exp/ivector/system.yaml data/mfcc24/train exp/ivector
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda
num_threads=$(getconf _NPROCESSORS_ONLN) # threads on a CPU
seed=1              # of the first values of the model
# <config> <data> <exp>
. "$(dirname "$0")/../utils/step.sh"
config=$1; data=$2; exp=$3

require_file "$config" "$data/feats.scp" "$exp/final.ubm" "$exp/.done_ubm"
up_to_date "$exp/.done" "$config" "$data" "$exp/.done_ubm" && exit 0

gpu=()
[ "$device" = cpu ] || gpu=(--gpu 1)
# shellcheck disable=SC2086  # cmd holds words
$cmd --num-threads "$num_threads" ${gpu[@]+"${gpu[@]}"} "$exp/log/train_extractor.log" \
  python3 -m steps.ivector.train_extractor --device "$device" --num-threads "$num_threads" --seed "$seed" \
    "$config" "$data" "$exp"
mark_done "$exp/.done" "$config" "$data" "$exp/.done_ubm" -- "$exp"/{final.ie,train_seconds}
