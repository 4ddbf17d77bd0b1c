#!/usr/bin/env bash
# The effect of the features' precision, augmentation, speakers and training time on the equal error rate: a mini system,
# trained and tested with several seeds as
#   1 2 4         features of 1 (Kaldi's CM), 2 (CM2) and 4 bytes per value; the speakers also at other speeds, as new ones
#   cm3           1 byte per value with one range for all bands (CM3)
#   unaugmented   2 bytes, no copies at other speeds, the same number of steps
#   speeds        as 2, with copies at 0.8 and 1.2 too, about the same number of steps
#   online        as 2, with the online augmentation of xvector_online: noise, babble, reverberation and telephone
#   half          as 2, with half of the speakers (network and back-end), the same number of steps
#   longer        as 2, twice the steps
# The folder <data> is made by the recipe's stage 0.
# e.g.: tests/bench/variants.sh --variants "2 unaugmented" egs/voxceleb/data
system=xvector      # name in egs/voxceleb/conf, with train_set train_net_sp
seeds="1 2 3"       # seeds of the training
variants="1 cm3 2 4 unaugmented speeds online half longer" # variants to run, of those above
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
mkdir -p "$work/conf"
steps=$VOX_ROOT/steps conf=$work/conf
cp -R "$VOX_ROOT"/egs/voxceleb/conf/. "$conf"
resolved() { python3 -m utils.config resolve --scale mini "$conf/$1.yaml"; }
value() { python3 -m utils.config get "$work/$1.yaml" "$2"; }
resolved "$system" > "$work/$system.yaml"
resolved xvector_online > "$work/xvector_online.yaml"
features=$(value "$system" features)
epochs=$(value "$system" train.epochs)
with_copies() { awk 'NR == FNR { keep[$1]; next } { id = $1; sub(/^sp[0-9.]+-/, "", id) } id in keep' "$@"; }
for variant in $variants; do
  method=3 train_set=train_net_sp back_end_set=train change=
  case $variant in
    1) method=2 ;;
    cm3) method=5 ;;
    2) ;;
    4) method=0 ;;
    unaugmented) train_set=train_net change="mini: {train: {epochs: $((3 * epochs))}}" ;;
    speeds) train_set=speeds/train_net_sp change="mini: {train: {epochs: $((3 * epochs / 5))}}" ;;
    half) train_set=half/train_net_sp back_end_set=half/train change="mini: {train: {epochs: $((2 * epochs))}}" ;;
    longer) change="mini: {train: {epochs: $((2 * epochs))}}" ;;
    online) change="online: $(value xvector_online online)" ;;
    *) echo "$0: no variant $variant" >&2; exit 1 ;;
  esac
  printf 'base: %s\n%s\n' "$system" "$change" > "$conf/variant.yaml"
  resolved variant > "$work/$variant.yaml"
  sets=$work/compression$method/$features
  for set in train train_sp test; do
    "$steps/make_feats.sh" --nj "$nj" --compression "$method" "$conf/features/$features.conf" "$data/$set" "$sets/$set"
  done
  "$VOX_ROOT/local/select_sets.sh" "$data" "$sets"
  if [ "$variant" = speeds ]; then
    python3 -m utils.kaldi.perturb_speed --speeds 0.8,1.2 "$data/train_net" "$work/train_sp2"
    "$steps/make_feats.sh" --nj "$nj" --compression "$method" "$conf/features/$features.conf" "$work/train_sp2" "$sets/train_sp2"
    python3 -m utils.kaldi.combine_data "$sets/$train_set" "$sets/train_net_sp" "$sets/train_sp2"
  elif [ "$variant" = half ]; then
    awk 'NR % 2' "$data/train/spk2utt" > "$work/half.speakers"
    for set in train train_net_sp; do
      with_copies "$work/half.speakers" "$sets/$set/spk2utt" > "$work/half.$set.speakers"
      python3 -m utils.kaldi.subset_data_dir --spk-list "$work/half.$set.speakers" "$sets/$set" "$sets/half/$set"
    done
  fi
  for seed in $seeds; do
    exp=$work/$variant/$system.$seed
    "$steps/train_network.sh" --device "$device" --seed "$seed" "$work/$variant.yaml" "$sets/$train_set" "$sets/valid" "$exp"
    for set in "$back_end_set" test; do
      "$steps/extract_embeddings.sh" --nj "$nj" --device "$device" "$exp" "$sets/$set" "$exp/embeddings_${set##*/}"
    done
    "$steps/train_backend.sh" "$work/$variant.yaml" "$sets/$back_end_set" "$exp/embeddings_train" "$exp/backend"
    for list in "$data"/test/trials/*; do
      for backend in cosine plda; do
        "$steps/score.sh" "$exp/backend/$backend" "$exp/embeddings_test" "$list" "$exp/${list##*/}.$backend"
        eer=$(python3 -m utils.metrics "$list" "$exp/${list##*/}.$backend" | sed -n 's/^eer *//p')
        printf '%-12s seed %s  %-16s %-7s EER %s %%  archives %.1f MB, trained in %.0f s\n' "$variant" "$seed" \
          "${list##*/}" "$backend" "$eer" "$(cat "$sets"/{train,train_sp,test}/feats.*.ark | wc -c | awk '{ print $1 / 1e6 }')" \
          "$(cat "$exp/train_seconds")"
      done
    done
  done
done
