#!/usr/bin/env bash
# Measure whether attention avoids noise: overlay the middle third of utterances with noise, another voice or music, or mute
# it, and compare its share of the attention weights with that before. Writes attention_noise.tsv and a figure, .png and
# .pdf. The systems, folders of trained networks or bundles, are separated by spaces.
# e.g.: steps/attention_noise.sh "exp/vgg_attention exp/vgg_mha" data/test exp/attention_noise
utterances=40       # utterances, spread evenly over the data directory (fewer: all)
snrs="10 0"         # dB from the overlay up to the speech, one overlay each
musan_root=         # MUSAN, for music (empty: no music)
seed=1              # random seed of the overlays and the intervals
# <systems> <data> <out>
. "$(dirname "$0")/../utils/step.sh"
read -ra systems <<< "$1"
data=$2; out=$3

inputs=("$data"/{wav.scp,utt2spk})
for system in "${systems[@]}"; do inputs+=("$system"/{config.yaml,model.safetensors}); done
require_file "${inputs[@]}"
[ ! -e "$data/segments" ] || inputs+=("$data/segments")
up_to_date "$out/.done" "${inputs[@]}" && exit 0
step_begins
mkdir -p "$out"
export MPLCONFIGDIR=$out/.matplotlib  # the default is the home folder
python3 -m steps.report.attention_noise --utterances "$utterances" --snrs "$snrs" ${musan_root:+--musan-root "$musan_root"} \
  --seed "$seed" "$data" "$out" "${systems[@]}"
rm -rf "$MPLCONFIGDIR"
mark_done "$out/.done" "${inputs[@]}" -- "$out"/attention_noise.{tsv,png,pdf}
