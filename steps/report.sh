#!/usr/bin/env bash
# Draw the figures of a work folder whose table is made (steps/table.sh), with steps/figures.sh, and write one page with the
# table and all figures, exp/report.html, that needs no other file.
# e.g.: steps/report.sh egs/voxceleb
command=steps/report.sh  # command line to print in the report
# <work>
. "$(dirname "$0")/../utils/step.sh"
exp=$1/exp

"$(dirname "$0")/figures.sh" "$1"

inputs=("$exp"/{results.tsv,differences.tsv} "$exp/figures/.done")
up_to_date "$exp/.done_page" "${inputs[@]}" && exit 0
python3 -m steps.report.page --command "$command" "$1"
mark_done "$exp/.done_page" "${inputs[@]}" -- "$exp/report.html"
log report.html
