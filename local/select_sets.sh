#!/usr/bin/env bash
# Assemble the sets for training and validating networks from the features of train and, if they exist, of
# train_sp and train_aug: valid, train_net, train_net_sp = train_net + train_sp, train_net_aug = train_net + train_aug
# and train_net_sp_aug = train_net_sp + train_aug.
# e.g.: local/select_sets.sh data data/fbank80
# <data> <feature-data>
. "$(dirname "$0")/../utils/step.sh"
data=$1; features=$2

# Assembles a set unless its records are up to date. Voice activity has a separate record, so that steps without it do
# not run again when it changes.
assemble() {  # set input ... -- command ...
  local out=$features/$1 from=() inputs=()
  shift
  while [ "$1" != -- ]; do from+=("$1"); shift; done
  shift
  add_voicing "${from[@]}"
  if up_to_date "$out/.done" "${from[@]}"; then
    [ ${#inputs[@]} -gt 0 ] || return 0
    up_to_date "$out/.done_vad" "${inputs[@]}" && return 0
  fi
  "$@"
  local file outputs=()
  for file in "$out"/* "$out"/trials/*; do
    case $file in "$out"/vad.*) ;; *) [ ! -f "$file" ] || outputs+=("$file") ;; esac
  done
  mark_done "$out/.done" "${from[@]}" -- "${outputs[@]}"
  [ ${#inputs[@]} = 0 ] || mark_done "$out/.done_vad" "${inputs[@]}" -- "$out"/vad.*
}
subset() {  # set
  detail python3 -m utils.kaldi.subset_data_dir --spk-list "$data/$1/spk2utt" "$features/train" "$features/$1"
  [ ! -d "$data/$1/trials" ] || cp -R "$data/$1/trials" "$features/$1"
}
combine() {  # set part ...
  [ ! -d "${*: -1}" ] || assemble "$1" "${@:2}" -- detail python3 -m utils.kaldi.combine_data "$features/$1" "${@:2}"
}

for set in valid train_net; do
  lists=()
  [ ! -d "$data/$set/trials" ] || lists=("$data/$set/trials")
  assemble "$set" "$data/$set" ${lists[@]+"${lists[@]}"} "$features/train" -- subset "$set"
done
combine train_net_sp "$features/train_net" "$features/train_sp"
combine train_net_aug "$features/train_net" "$features/train_aug"
[ ! -d "$features/train_net_sp" ] || combine train_net_sp_aug "$features/train_net_sp" "$features/train_aug"
