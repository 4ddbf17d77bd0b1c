#!/usr/bin/env bash
# From the features of train (and train_sp, where there are any) assemble those of the sets that networks
# are trained and validated on: valid, train_net, and train_net_sp = train_net + train_sp.
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
[ -d "$features/train_sp" ] || exit 0
set=train_net_sp
up_to_date "$features/$set/.done" "$features/train_net" "$features/train_sp" && exit 0
python3 -m utils.combine_data "$features/$set" "$features/train_net" "$features/train_sp"
mark_done "$features/$set/.done" "$features/train_net" "$features/train_sp"
