#!/usr/bin/env bash
# Train the universal background model of an i-vector system: final.dubm (diagonal), final.ubm (full).
# e.g.: steps/train_ubm.sh --device cuda exp/ivector/system.yaml data/mfcc24/train exp/ivector/ubm
nj=1                # jobs that share the sums of each iteration after the initial ones (1: one process for all)
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda
num_threads=0       # threads of each job (0: all cores of this machine; 4 on an engine)
seed=1              # random seed of the drawn frames, the initial means and the splits
diagonal=           # diagonal mixture to start from, for example Kaldi's final.dubm (empty: train one)
# <config> <data> <ubm-dir>
. "$(dirname "$0")/../utils/step.sh"
config=$1; data=$2; ubm=$3

require_file "$config" "$data/feats.scp" "$data/utt2num_frames" ${diagonal:+"$diagonal"}
without_backend "$config" "$ubm"
inputs=("$part" "$data" ${diagonal:+"$diagonal"})
add_voicing "$data"
up_to_date "$ubm/.done" "${inputs[@]}" && exit 0
validate "$data"
begin "$ubm/unfinished" "${inputs[@]}" || rm -f "$ubm"/final.*

resources=(--num-threads "$num_threads")
[ "$device" = cpu ] || resources=(--gpu 1)  # with a GPU, one thread works
train=(python3 -m steps.ivector.train_ubm --device "$device" --num-threads "$num_threads" --seed "$seed"
  ${diagonal:+--diagonal "$diagonal"} "$config" "$data" "$ubm")
sizes=(config="$config" data="$data" threads="$num_threads" device="$device")
# shellcheck disable=SC2086  # cmd holds words
if [ "$nj" = 1 ]; then
  estimate utils.jobs.memory train_ubm "${sizes[@]}"
  $cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "$ubm/log/train_ubm.log" "${train[@]}"
else
  initial=0 iterations=0
  if [ -z "$diagonal" ]; then
    initial=$(python3 -m utils.config get --default 20 "$config" ubm.split_iterations)
    iterations=$(python3 -m utils.config get --default 4 "$config" ubm.diagonal_iterations)
  fi
  iterations=$((iterations + $(python3 -m utils.config get --default 4 "$config" ubm.full_iterations)))
  estimate utils.jobs.memory train_ubm job=initial "${sizes[@]}"
  $cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "$ubm/log/initial.log" "${train[@]}" --initial
  for iteration in $(seq "$iterations"); do
    [ "$iteration" = "$iterations" ] || [ ! -s "$ubm/unfinished/$((initial + iteration)).safetensors" ] || continue
    estimate utils.jobs.memory train_ubm job=accumulate nj="$nj" "${sizes[@]}"
    $cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "JOB=1:$nj" "$ubm/log/accumulate.$iteration.JOB.log" \
      "${train[@]}" --iteration "$iteration" --accumulate JOB --nj "$nj"
    estimate utils.jobs.memory train_ubm job=update "${sizes[@]}"
    $cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "$ubm/log/update.$iteration.log" "${train[@]}" --iteration "$iteration" --update
  done
fi
requests_end
seconds_with "$ubm/unfinished" > "$ubm/train_seconds"
outputs=("$ubm"/{final.dubm,final.ubm,train_seconds})
for kept in "$ubm"/{feats,vad}.conf; do [ ! -f "$kept" ] || outputs+=("$kept"); done
mark_done "$ubm/.done" "${inputs[@]}" -- "${outputs[@]}"
rm -r "$ubm/unfinished"
