#!/usr/bin/env bash
# Fine-tuning from simulated speakers to a corpus with few: the EERs of a network that was trained on simulated speakers
# alone, of one trained on the corpus from random weights, and of the first one after --init, with several numbers of
# training speakers. Back-ends are trained on the corpus in all three.
# e.g.: tests/bench/fine_tune.sh --speakers "10 30" ../shared/corpora/minivox
system=vgg_statistics # name in egs/voxceleb/conf, at mini scale
set="train_set=train_net" # keys of its YAML file to change, in all trainings
simulated=300       # simulated speakers, a third of which are left out
speakers="10 30 110" # training speakers of the corpus
init_set=           # keys to change in fine-tuning alone: "init.head_epochs=3 init.rate=0.05"
device=cpu          # cpu or cuda
nj=2                # jobs of features and embeddings
seed=1              # random seed
work=               # folder for data and models (empty: a temporary one, removed at the end)
# <corpus>
. "$(dirname "$0")/../../utils/step.sh"
corpus=$1
require_file "$corpus/veri_test.txt"
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
steps=$VOX_ROOT/steps
recipe() {  # work option ...
  local log=$1.log; shift
  "$VOX_ROOT/egs/voxceleb/run.sh" --systems "$system" --scale mini --set "$set" --device "$device" --nj "$nj" --seed "$seed" \
    "$@" >> "$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
}
row() {  # speakers title results
  awk -v first="| $1 | $2 |" -F '\t' '$1 == "system" { next } { eer[$2 " " $3] = $6 }
    END { print first, eer["cosine veri_test"], "|", eer["cosine veri_test_hard"], "|", eer["plda veri_test"], "|", eer["plda veri_test_hard"], "|" }' "$3"
}

recipe "$work/simulated" --voxceleb1-root simulated --simulated-speakers "$simulated" --valid-speakers 10 \
  --work "$work/simulated" --stop-stage 3
model=$work/simulated/exp/$system
echo "| training speakers | network | cosine | hard | LDA-PLDA | hard |"
echo "| ---: | --- | ---: | ---: | ---: | ---: |"
for number in $speakers; do
  here=$work/$number held_out=$((number / 10 > 2 ? number / 10 : 2))
  few=$work/corpus$number
  if [ ! -d "$few" ]; then
    mkdir -p "$few/dev/wav"
    find "$corpus/dev/wav" -mindepth 1 -maxdepth 1 | sort | head -n "$number" | xargs -I '{}' cp -R '{}' "$few/dev/wav"
    cp -R "$corpus/test" "$corpus"/veri_test*.txt "$few"
  fi
  dim=$((number - held_out - 1 < 100 ? number - held_out - 1 : 100))
  options=(--voxceleb1-root "$few" --valid-speakers "$held_out" --work "$here" --stop-stage 7
    --backend "{cosine: [center, length, cosine], plda: [center, lda$dim, length, plda]}")
  recipe "$here" "${options[@]}"
  cp "$here/exp/results.tsv" "$here/scratch.tsv"
  before=$work/before$number
  features=$(python3 -m utils.config get "$here/exp/$system/system.yaml" features)
  {
    for name in train test; do
      "$steps/extract_embeddings.sh" --nj "$nj" --device "$device" "$model" "$here/data/$features/$name" "$before/embeddings_$name"
    done
    "$steps/train_backend.sh" "$here/exp/$system/system.yaml" "$here/data/train" "$before/embeddings_train" "$before/backend"
    : > "$before/results.tsv"
    for chain in cosine plda; do
      for list in veri_test veri_test_hard; do
        "$steps/score.sh" "$before/backend/$chain" "$before/embeddings_test" "$here/data/test/trials/$list" "$before/scores/$list.$chain"
        printf 'x\t%s\t%s\t\t\t%s\n' "$chain" "$list" \
          "$(python3 -m utils.metrics "$here/data/test/trials/$list" "$before/scores/$list.$chain" | sed -n 's/^eer *//p')" >> "$before/results.tsv"
      done
    done
  } >> "$here.log" 2>&1 || { tail -n 20 "$here.log" >&2; exit 1; }
  recipe "$here" "${options[@]}" --init "$model" --set "$init_set"
  row "$number" "simulated speakers alone" "$before/results.tsv"
  row "$number" "from random weights" "$here/scratch.tsv"
  row "$number" "fine-tuned" "$here/exp/results.tsv"
done
