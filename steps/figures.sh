#!/usr/bin/env bash
# Draw figures of a work folder's systems into exp/figures: DET curves for every trial list (det_<list>.png), and
# attention weights below the spectrogram of an utterance (attention_<system>.png, with their entropies in
# attention.tsv).
# e.g.: steps/figures.sh egs/voxceleb
utterance=          # test utterance to draw attention weights for (empty: the first)
systems=            # systems to draw attention weights for, separated by spaces (empty: all)
# <work>
. "$(dirname "$0")/../utils/step.sh"
work=$1 out=$1/exp/figures

inputs=("$work/exp/results.tsv" "$work"/exp/*/scores_*/.done.*)  # the table lists the valid scores
for model in "$work"/exp/*/model.safetensors; do [ ! -e "$model" ] || inputs+=("$model"); done
up_to_date "$out/.done" "${inputs[@]}" && exit 0
mkdir -p "$out"
rm -f "$out"/*.png
export MPLCONFIGDIR=$out/.matplotlib  # the default is the home folder
detail python3 -m steps.report.det_curves "$work" "$out"
detail python3 -m steps.report.draw_attention --utterance "$utterance" --systems "$systems" "$work" "$out"
rm -rf "$MPLCONFIGDIR"
mark_done "$out/.done" "${inputs[@]}"
