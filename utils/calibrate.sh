# shellcheck shell=bash disable=SC2154  # the sourcing script declares the options
# Sourced by steps/calibrate.sh and steps/fuse.sh after step.sh: trains on one list and applies to another.

train_trials=$1 trials=$3 out=$5
# Splits names into the array `words`; blanks and quotes in a name are quoted, or follow a backslash.
split() {  # names
  local lines
  lines=$(xargs printf '%s\n' <<< "$1") || die "$1: cannot be split into names; put quotes around those that hold quotes"
  words=()
  [ -z "$lines" ] || mapfile -t words <<< "$lines"
}
split "$2"; train_scores=("${words[@]}")
split "$4"; scores=("${words[@]}")
split "$train_quality"; train_measures=(${words[@]+"${words[@]}"})
split "$quality"; measures=(${words[@]+"${words[@]}"})

require_file "$train_trials" "${train_scores[@]}" "$trials" "${scores[@]}"
for list in "$train_trials" "$trials"; do require_file "$(dirname "$list")/../utt2spk"; done
inputs=("$train_trials" "${train_scores[@]}" "$trials" "${scores[@]}")
for table in ${train_measures[@]+"${train_measures[@]}"} ${measures[@]+"${measures[@]}"}; do
  require_file "${table#log:}"
  inputs+=("${table#log:}")
done
require_apart "$out" "${inputs[@]}"
record=$(dirname "$out")/.done.${out##*/} json=$(dirname "$out")/calibration/${out##*/}.json
up_to_date "$record" "${inputs[@]}" && exit 0
mkdir -p "$(dirname "$json")"
step_begins
python3 -m steps.backend.calibrate --prior "$prior" --max-shared-speakers "$max_shared_speakers" \
  --train-quality ${train_measures[@]+"${train_measures[@]}"} --quality ${measures[@]+"${measures[@]}"} \
  --train-scores "${train_scores[@]}" --scores "${scores[@]}" -- "$train_trials" "$trials" "$out" "$json"
mark_done "$record" "${inputs[@]}" -- "$out" "$json"
