#!/usr/bin/env bash
# Collect all scores of a work folder into exp/results.tsv and the table exp/RESULTS.md, and print the table.
# e.g.: steps/report.sh egs/voxceleb
command=steps/report.sh  # the command line to name in the report
seed=1              # the seed to name in the report
# <work>
. "$(dirname "$0")/../utils/step.sh"

python3 -m steps.backend.results --command "$command" --seed "$seed" "$1"
