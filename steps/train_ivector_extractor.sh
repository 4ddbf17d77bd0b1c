#!/usr/bin/env bash
# Train the total-variability model of an i-vector system: writes final.ie and the matching final.ubm.
# e.g.: steps/train_ivector_extractor.sh exp/ivector/system.yaml data/mfcc24/train exp/ivector/ubm exp/ivector
nj=1                # jobs that share the sums of each iteration (1: one process, which keeps the sums in memory)
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda
num_threads=0       # threads of each job (0: all cores of this machine; 4 on an engine)
seed=1              # random seed of the initial model
posteriors=         # script of posteriors from make_posteriors.sh or Kaldi (empty: compute them here)
# <config> <data> <ubm-dir> <exp>
. "$(dirname "$0")/../utils/step.sh"
config=$1; data=$2; ubm=$3; exp=$4

require_file "$config" "$data/feats.scp" "$ubm/final.ubm" ${posteriors:+"$posteriors"}
without_backend "$config" "$exp"
inputs=("$part" "$data" "$ubm/final.ubm" ${posteriors:+"$posteriors"})
add_voicing "$data"
up_to_date "$exp/.done" "${inputs[@]}" && exit 0
begin "$exp/unfinished" "${inputs[@]}" || rm -f "$exp"/final.*

longest=$(python3 -m utils.config get --default 0 "$config" extractor.longest)
if ! in_dry_run && [ "$longest" != 0 ] && [ "$(wc -l < "$data/feats.scp")" -gt "$longest" ]; then
  [ -z "$posteriors" ] || die "extractor.longest is $longest, but --posteriors are those of all utterances; leave one out"
  python3 -m utils.kaldi.subset_data_dir --longest "$longest" "$data" "$exp/unfinished/data"
  data=$exp/unfinished/data
fi

resources=(--num-threads "$num_threads")
[ "$device" = cpu ] || resources=(--gpu 1)  # with a GPU, one thread works
train=(python3 -m steps.ivector.train_extractor --device "$device" --num-threads "$num_threads" --seed "$seed"
  ${posteriors:+--posteriors "$posteriors"} "$config" "$data" "$ubm/final.ubm" "$exp/unfinished" "$exp")
sizes=(config="$config" data="$data" threads="$num_threads" device="$device")
# shellcheck disable=SC2086  # cmd holds words
if [ "$nj" = 1 ]; then
  estimate utils.jobs.memory train_extractor "${sizes[@]}"
  $cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "$exp/log/train_extractor.log" "${train[@]}"
else
  iterations=$(python3 -m utils.config get --default 5 "$config" extractor.iterations)
  for iteration in $(seq "$iterations"); do
    [ "$iteration" = "$iterations" ] || [ ! -s "$exp/unfinished/$iteration.safetensors" ] || continue
    estimate utils.jobs.memory train_extractor job=accumulate "${sizes[@]}"
    $cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "JOB=1:$nj" "$exp/log/accumulate.$iteration.JOB.log" \
      "${train[@]}" --iteration "$iteration" --accumulate JOB --nj "$nj"
    estimate utils.jobs.memory train_extractor job=update "${sizes[@]}"
    $cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "$exp/log/update.$iteration.log" "${train[@]}" --iteration "$iteration" --update
  done
fi
requests_end
echo $(($(seconds_with "$exp/unfinished") + $(cat "$ubm/train_seconds" || echo 0))) > "$exp/train_seconds"  # a UBM from Kaldi has no such file
outputs=("$exp"/{final.ie,final.ubm,versions.yaml,train_seconds})
for kept in "$exp"/{feats,vad}.conf; do [ ! -f "$kept" ] || outputs+=("$kept"); done
mark_done "$exp/.done" "${inputs[@]}" -- "${outputs[@]}"
rm -r "$exp/unfinished"
