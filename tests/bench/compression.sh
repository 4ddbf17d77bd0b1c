#!/usr/bin/env bash
# What compressed features cost in equal error rate: a mini system, trained and tested on features of 1 byte a value,
# Kaldi's CM and CM3, of 2 bytes, CM2, and of 4, over some seeds. <data> is what the recipe's stage 0 makes.
# e.g.: tests/bench/compression.sh --seeds "1 2 3" work/data
system=xvector      # name in egs/voxceleb/conf
seeds="1"           # of the training
methods="2 5 3 0"   # Kaldi's compression methods: 2 CM, 5 CM3, 3 CM2, 0 none
device=cpu          # cpu or cuda
nj=2                # jobs of features and embeddings
work=               # folder for features and models (empty: a temporary one, removed at the end)
# <data>
. "$(dirname "$0")/../../utils/step.sh"
data=$(cd "$1" && pwd)
require_file "$data/train/wav.scp" "$data/train_sp/wav.scp" "$data/test/wav.scp" "$data/valid/spk2utt"

if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
steps=$VOX_ROOT/steps conf=$VOX_ROOT/egs/voxceleb/conf
python3 -m utils.config resolve --scale mini "$conf/$system.yaml" > "$work/system.yaml"
features=$(python3 -m utils.config get "$work/system.yaml" features)
train_set=$(python3 -m utils.config get "$work/system.yaml" train_set --default train_net)
for method in $methods; do
  sets=$work/$method/$features
  for set in train train_sp test; do
    "$steps/make_feats.sh" --nj "$nj" --compression "$method" "$conf/features/$features.conf" "$data/$set" "$sets/$set"
  done
  "$VOX_ROOT/local/select_sets.sh" "$data" "$sets"
  for seed in $seeds; do
    exp=$work/$method/exp.$seed
    "$steps/train_network.sh" --device "$device" --seed "$seed" "$work/system.yaml" "$sets/$train_set" "$sets/valid" "$exp"
    for set in train test; do
      "$steps/extract_embeddings.sh" --nj "$nj" --device "$device" "$exp" "$sets/$set" "$exp/embeddings_$set"
    done
    "$steps/train_backend.sh" "$work/system.yaml" "$sets/train" "$exp/embeddings_train" "$exp/backend"
    for list in "$data"/test/trials/*; do
      for backend in cosine plda; do
        "$steps/score.sh" --backend "$backend" "$exp/backend" "$exp/embeddings_test" "$list" "$exp/${list##*/}.$backend"
        eer=$(python3 -m steps.backend.metrics "$list" "$exp/${list##*/}.$backend" | sed -n 's/^eer *//p')
        printf 'method %s  seed %s  %-16s %-7s EER %s %%  archives %.1f MB\n' "$method" "$seed" "${list##*/}" "$backend" \
          "$eer" "$(cat "$sets"/{train,train_sp,test}/feats.*.ark | wc -c | awk '{ print $1 / 1e6 }')"
      done
    done
  done
done
