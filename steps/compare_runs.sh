#!/usr/bin/env bash
# Print the equal error rates of several runs, for example with different seeds: mean and range of each system, on the
# held-out speakers and on each list. <works> are the runs' work folders, separated by spaces.
# e.g.: steps/compare_runs.sh --systems "vgg_temporal vgg_mha" "egs/voxceleb work/seed2 work/seed3"
systems=            # systems to print, separated by spaces, in this order (empty: all, best first)
# <works>
. "$(dirname "$0")/../utils/step.sh"

read -ra works <<< "$1"
results=()
for work in ${works[@]+"${works[@]}"}; do results+=("$work/exp/results.tsv"); done
[ ${#results[@]} -gt 0 ] || bad_call "no work folder is named"
require_file "${results[@]}"
python3 -m steps.report.compare --systems "$systems" "${results[@]}"
