#!/usr/bin/env bash
# Print the equal error rates of several runs, such as those of other seeds: of each system the mean, and from where to
# where it goes. Runs are work folders, as words.
# e.g.: steps/compare_runs.sh --systems "vgg_temporal vgg_mha" "egs/voxceleb work/seed2 work/seed3"
systems=            # words: these systems, in this order (empty: all, the best first)
# <works>
. "$(dirname "$0")/../utils/step.sh"

results=()
for work in $1; do results+=("$work/exp/results.tsv"); done
require_file "${results[@]}"
python3 -m steps.report.compare --systems "$systems" "${results[@]}"
