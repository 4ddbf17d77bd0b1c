#!/usr/bin/env bash
# Collect all scores of a work folder into exp/results.tsv and the table exp/RESULTS.md, with the differences between
# systems (exp/differences.tsv) and the card of the run (exp/card.json), and print the table.
# e.g.: steps/table.sh egs/voxceleb
command=steps/table.sh  # command line to print above the table
# <work>
. "$(dirname "$0")/../utils/step.sh"
exp=$1/exp

shopt -s nullglob
inputs=("$exp"/*/scores_*/.done.* "$1"/data/*/trials/*)
if in_status; then
  up_to_date "$exp/.done_table" ${inputs[@]+"${inputs[@]}"}
  exit
fi
step_begins
python3 -m steps.report.results --command "$command" "$1"
mark_done "$exp/.done_table" "${inputs[@]}" -- "$exp"/{results.tsv,differences.tsv,card.json,RESULTS.md}
