#!/usr/bin/env bash
# What lowers the error rate of a small ResNet on minivox: the systems in tests/bench/what_helps/, trained with several
# seeds, each of which holds other training speakers out. Prints a table of equal error rates, mean and range over the
# seeds, of the held-out speakers and of both lists; then one of `small` on speech unlike that of the training: minivox
# over a simulated telephone, and noisy utterances against reverberant ones.
# e.g.: tests/bench/what_helps.sh --work work/what_helps ../shared/corpora/minivox
systems="small s_topk s_lm s_pool4 s_wide s_vgg s_distil" # names in tests/bench/what_helps/
fuse="small s_topk, small s_topk s_pool4, small s_vgg, s_wide s_vgg" # fusions of them
seeds="1 2 3"       # a run each
device=cpu          # cpu or cuda
nj=2                # jobs of features and embeddings
num_threads=0       # threads that train (0: all cores)
work=               # folder for data and models (empty: a temporary one, removed at the end)
# <minivox>
. "$(dirname "$0")/../../utils/step.sh"
corpus=$(cd "$1" && pwd)
require_file "$corpus"/veri_test{,_hard}.txt

if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work/conf"
work=$(cd "$work" && pwd)
steps=$VOX_ROOT/steps conf=$work/conf
cp -R "$VOX_ROOT"/egs/voxceleb/conf/. "$VOX_ROOT"/tests/bench/what_helps/. "$conf"
runs=()
for seed in $seeds; do
  runs+=("$work/seed$seed")
  "$VOX_ROOT/egs/voxceleb/run.sh" --voxceleb1-root "$corpus" --scale mini --conf "$conf" --work "${runs[-1]}" --seed "$seed" \
    --systems "$systems" --fuse "$fuse" --device "$device" --nj "$nj" --num-threads "$num_threads" --stop-stage 7
done
"$steps/compare_runs.sh" "${runs[*]}"

[[ " $systems " = *" small "* ]] || exit 0
test=${runs[0]}/data/test far=$work/far chains=(cosine cosine_asnorm lda_plda lda_plda_copies plda plda5 both)
"$steps/augment_data.sh" --kinds telephone "$test" "$far/telephone"
"$steps/augment_data.sh" --kinds "noise reverb" "$test" "$far/noise"
for name in telephone noise; do
  "$steps/make_feats.sh" --nj "$nj" "$conf/features/fbank80.conf" "$far/$name" "$far/fbank80/$name"
done
for list in "$test"/trials/veri_test{,_hard}; do
  awk '{ print $1 "-telephone", $2 "-telephone", $3 }' "$list" > "$far/telephone.${list##*/}"
  awk '{ print $1 "-noise", $2 "-reverb", $3 }' "$list" > "$far/noise.${list##*/}"
done
printf '\n| speech, list |%s\n| --- |%s\n' "$(printf ' %s |' "${chains[@]}")" "$(printf ' ---: |%.0s' "${chains[@]}")"
for run in "${runs[@]}"; do
  for name in telephone noise; do
    "$steps/extract_embeddings.sh" --nj "$nj" --device "$device" "$run/exp/small" "$far/fbank80/$name" "$far/${run##*/}/$name"
  done
done
for name in telephone noise; do
  for list in veri_test veri_test_hard; do
    printf '| %s, %s |' "$name" "$list"
    for chain in "${chains[@]}"; do
      for run in "${runs[@]}"; do
        "$steps/score.sh" "$run/exp/small/backend/$chain" "$far/${run##*/}/$name" "$far/$name.$list" \
          "$far/${run##*/}/scores/$name.$list.$chain" > /dev/null
        python3 -m utils.metrics "$far/$name.$list" "$far/${run##*/}/scores/$name.$list.$chain"
      done | awk '$1 == "eer" { sum += $2; number++ } END { printf " %.2f |", sum / number }'
    done
    echo
  done
done
