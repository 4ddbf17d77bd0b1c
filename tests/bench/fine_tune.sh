#!/usr/bin/env bash
# Fine-tuning, from simulated speakers to real ones: a mini system is trained on simulated speakers, then on few or many
# speakers of minivox, from random weights and with --init. Prints a markdown table: EER in % on both lists of minivox with
# the first model as it is, with its back-end adapted to the speakers, trained from scratch, and fine-tuned at each rate.
# e.g.: tests/bench/fine_tune.sh --system resnet34_tstp --work work/fine_tune ../shared/corpora/minivox
system=vgg_attention # name in egs/voxceleb/conf
simulated_speakers=900 # speakers of the simulated corpus; a third of them are test speakers
speakers="10 30 110" # training speakers of minivox, a run each
set=                # keys of the system's YAML file to change in every run, as in the recipe: "train.epochs=1"
rates="0.1 1.0"     # factors of the learning rate in fine-tuning (init.rate), a run each
seed=1              # random seed
device=cpu          # cpu or cuda
nj=2                # jobs of features and embeddings
work=               # folder for corpora and models (empty: a temporary one, removed at the end)
# <minivox>
. "$(dirname "$0")/../../utils/step.sh"
corpus=$(cd "$1" && pwd)
require_file "$corpus"/veri_test{,_hard}.txt

if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
work=$(cd "$work" && pwd)
steps=$VOX_ROOT/steps start=$work/simulated/exp/$system
rm -rf "$work/conf"
cp -R "$VOX_ROOT/egs/voxceleb/conf" "$work/conf"
tuned=()
for rate in $rates; do
  tuned+=("tuned_${rate/./}")
  printf 'base: %s\ninit: {rate: %s}\n' "$system" "$rate" > "$work/conf/${tuned[-1]}.yaml"
done
recipe() {  # name held-out-speakers option ...
  "$VOX_ROOT/egs/voxceleb/run.sh" --work "$work/$1" --conf "$work/conf" --scale mini --seed "$seed" --device "$device" \
    --nj "$nj" --fuse "" --stop-stage 6 --valid-speakers "$2" ${set:+--set "$set"} \
    --backend "{cosine: [center, length, cosine], plda: [center, lda100, length, plda]}" "${@:3}"
}
eer() {  # list scores
  python3 -m utils.metrics "$corpus_data/test/trials/$1" "$2" | awk '$1 == "eer" { printf "%.2f", $2 }'
}
row() {  # what cosine-scores plda-scores, each without the list's name (empty: none)
  local cells='' scores list
  for scores in "${@:2}"; do
    for list in veri_test veri_test_hard; do
      cells+=" $([ -z "$scores" ] || eer "$list" "${scores/LIST/$list}") |"
    done
  done
  echo "| $1 |$cells" >> "$table"
}
score() {  # chain-folder embeddings scores-of-LIST
  for list in veri_test veri_test_hard; do
    "$steps/score.sh" "$1" "$2" "$corpus_data/test/trials/$list" "${3/LIST/$list}"
  done
}

recipe simulated "$((simulated_speakers / 30 + 2))" --voxceleb1-root simulated --stage 0 \
  --simulated-speakers "$simulated_speakers" --systems "$system"
features=$(python3 -m utils.config get "$start/system.yaml" features)
table=$work/table.md
{ echo "| Training speakers, model | Cosine | hard | LDA-PLDA | hard |"; echo "| --- | --- | --- | --- | --- |"; } > "$table"
for number in $speakers; do
  here=$work/$number corpus_data=$work/$number/data held_out=$((number / 10 > 2 ? number / 10 : 2))
  if [ ! -f "$here/corpus/veri_test.txt" ]; then
    mkdir -p "$here/corpus/dev/wav"
    cp -R "$corpus/test" "$here/corpus"
    find "$corpus/dev/wav" -mindepth 1 -maxdepth 1 | sort | awk -v n="$number" 'NR <= n' |
      while IFS= read -r speaker; do cp -R "$speaker" "$here/corpus/dev/wav"; done
    cp "$corpus"/veri_test{_hard,}.txt "$here/corpus"
  fi
  recipe "$number" "$held_out" --voxceleb1-root "$here/corpus" --systems "$system"
  recipe "$number" "$held_out" --voxceleb1-root "$here/corpus" --systems "${tuned[*]}" --init "$start"
  for name in train test; do
    "$steps/extract_embeddings.sh" --nj "$nj" --device "$device" "$start" "$corpus_data/$features/$name" \
      "$here/start/embeddings_$name"
  done
  for chain in cosine plda; do
    score "$start/backend/$chain" "$here/start/embeddings_test" "$here/start/scores/LIST.$chain"
  done
  for model in start "${tuned[@]/#/exp/}"; do
    "$steps/adapt_backend.sh" "$start/backend/plda" "$here/$model/embeddings_train" "$here/adapted/$model/plda"
    score "$here/adapted/$model/plda" "$here/$model/embeddings_test" "$here/adapted/$model/scores/LIST.plda"
  done
  row "$number: simulated speakers only" "$here/start/scores/LIST.cosine" "$here/start/scores/LIST.plda"
  row "$number: the same, back-end adapted" "" "$here/adapted/start/scores/LIST.plda"
  row "$number: from scratch" "$here/exp/$system"/scores_test/LIST.{cosine,plda}
  for rate in $rates; do
    row "$number: fine-tuned, rate $rate" "$here/exp/tuned_${rate/./}"/scores_test/LIST.{cosine,plda}
    row "$number: the same, first model's back-end adapted" "" "$here/adapted/exp/tuned_${rate/./}/scores/LIST.plda"
  done
done
cat "$table"
