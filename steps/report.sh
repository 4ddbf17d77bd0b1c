#!/usr/bin/env bash
# Collect all scores of a work folder into exp/results.tsv and the table exp/RESULTS.md, and print the table.
# e.g.: steps/report.sh egs/voxceleb
command=steps/report.sh  # command line to print in the report
# <work>
. "$(dirname "$0")/../utils/step.sh"

shopt -s nullglob
inputs=("$1"/exp/*/scores_*/.done.* "$1"/data/*/trials/*)
! in_status || { up_to_date "$1/exp/.done_report" ${inputs[@]+"${inputs[@]}"} && exit 0; }
step_begins
python3 -m steps.report.results --command "$command" "$1"
mark_done "$1/exp/.done_report" "${inputs[@]}" -- "$1"/exp/{results.tsv,RESULTS.md}
