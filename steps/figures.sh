#!/usr/bin/env bash
# Draw the figures of a work folder's systems into exp/figures, as PNG and PDF, line drawings also as SVG: DET curves and
# histograms of scores (det_ and scores_<list>.<back-end>), groups of trials, parameters against EER, attention weights below
# the spectrogram of an utterance (attention_<system>, with their entropies in attention.tsv), their entropies over several
# utterances, pair weights (cap_<system>), embeddings, training curves, costs. figures.json lists them for the report.
# e.g.: steps/figures.sh egs/voxceleb
utterance=          # test utterance to draw attention weights for (empty: the first)
systems=            # systems to draw attention weights for, separated by spaces (empty: all)
# <work>
. "$(dirname "$0")/../utils/step.sh"
work=$1 out=$1/exp/figures
require_file "$work/exp/results.tsv"

inputs=("$work/exp/results.tsv" "$work"/exp/*/scores_*/.done.*)  # the table lists the valid scores
for file in "$work"/exp/*/{model.safetensors,calibration.json} "$work"/data/*/spk2{gender,age}; do [ ! -e "$file" ] || inputs+=("$file"); done
up_to_date "$out/.done" "${inputs[@]}" && exit 0
step_begins
rm -rf "$out"
mkdir -p "$out"
export MPLCONFIGDIR=$out/.matplotlib  # the default is the home folder
detail python3 -m steps.report.figures --utterance "$utterance" --systems "$systems" "$work" "$out"
rm -rf "$MPLCONFIGDIR"
mark_done "$out/.done" "${inputs[@]}"
