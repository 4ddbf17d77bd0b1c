#!/usr/bin/env bash
# Score each trial by the mean over all pairs of the two utterances' segments. Writes one line `id1 id2 score` per
# trial.
# e.g.: steps/score_segments.sh exp/fast_resnet34_cap exp/fast_resnet34_cap/segments_test data/test/trials/veri_test exp/fast_resnet34_cap/scores_test/veri_test.segments
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda, for pooling the pairs
num_threads=0       # threads (0: all cores of this machine; 4 on an engine)
max_shared_speakers=0.0 # share of the list's speakers that may also be trained on
# <exp> <segments> <trials> <scores>
. "$(dirname "$0")/../utils/step.sh"
exp=$1; segments=$2; trials=$3; scores=$4

require_file "$exp"/{model.safetensors,config.yaml} "$segments/segments.scp" "$segments/num_segments" "$trials"
require_apart "$scores" "$trials"
record=$(dirname "$scores")/.done.${scores##*/}
inputs=("$exp"/{model.safetensors,config.yaml} "$segments" "$trials")
up_to_date "$record" "${inputs[@]}" && exit 0
resources=(--num-threads "$num_threads")
[ "$device" = cpu ] || resources+=(--gpu 1)
estimate nnet.memory score_segments exp="$exp" segments="$segments" count="$(cat "$segments/num_segments" 2> /dev/null || echo 10)" device="$device"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "$(dirname "$scores")/log/${scores##*/}.log" \
  python3 -m steps.network.score_segments --device "$device" --num-threads "$num_threads" \
    --max-shared-speakers "$max_shared_speakers" \
    "$exp" "$segments" "$trials" "$scores"
requests_end
mark_done "$record" "${inputs[@]}" -- "$scores"
