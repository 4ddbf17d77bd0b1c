#!/usr/bin/env bash
# Collect all scores of a work folder into exp/results.tsv and the table exp/RESULTS.md, print the table, draw the
# figures with steps/figures.sh, and write one page with all of it, exp/report.html, that needs no other file.
# e.g.: steps/report.sh egs/voxceleb
command=steps/report.sh  # command line to print in the report
# <work>
. "$(dirname "$0")/../utils/step.sh"
exp=$1/exp

shopt -s nullglob
inputs=("$exp"/*/scores_*/.done.* "$1"/data/*/trials/*)
if in_status; then
  up_to_date "$exp/.done_report" ${inputs[@]+"${inputs[@]}"}
else
  step_begins
  python3 -m steps.report.results --command "$command" "$1"
  mark_done "$exp/.done_report" "${inputs[@]}" -- "$exp"/{results.tsv,differences.tsv,card.json,RESULTS.md}
fi
"$(dirname "$0")/figures.sh" "$1"

inputs=("$exp"/{results.tsv,differences.tsv} "$exp/figures/.done")
up_to_date "$exp/.done_page" "${inputs[@]}" && exit 0
python3 -m steps.report.page --command "$command" "$1"
mark_done "$exp/.done_page" "${inputs[@]}" -- "$exp/report.html"
log report.html
