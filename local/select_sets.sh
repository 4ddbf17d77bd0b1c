#!/usr/bin/env bash
# From the features of train (and train_sp, where there are any) assemble those of the sets that networks
# are trained and validated on: valid, train_net, train_net_sp = train_net + train_sp, and, with augmented copies,
# train_net_aug = train_net + train_aug and train_net_sp_aug = train_net_sp + train_aug.
# e.g.: local/select_sets.sh data data/fbank80
# <data> <feature-data>
. "$(dirname "$0")/../utils/step.sh"
data=$1; features=$2

for set in valid train_net; do
  up_to_date "$features/$set/.done" "$data/$set" "$features/train" && continue
  python3 -m utils.subset_data_dir --spk-list "$data/$set/spk2utt" "$features/train" "$features/$set"
  [ ! -d "$data/$set/trials" ] || cp -R "$data/$set/trials" "$features/$set"
  mark_done "$features/$set/.done" "$data/$set" "$features/train"
done
combine() {  # set part ...
  local set=$1; shift
  [ -d "${*: -1}" ] || return 0
  up_to_date "$features/$set/.done" "$@" && return
  python3 -m utils.combine_data "$features/$set" "$@"
  mark_done "$features/$set/.done" "$@"
}
combine train_net_sp "$features/train_net" "$features/train_sp"
combine train_net_aug "$features/train_net" "$features/train_aug"
[ ! -d "$features/train_net_sp" ] || combine train_net_sp_aug "$features/train_net_sp" "$features/train_aug"
