#!/usr/bin/env bash
# Train the calibration of a system's chains on the labelled trials of held-out speakers, whose scores are <scores>.<chain>.
# The JSON file has, for each chain, the weight and offset that turn a score into a log-likelihood ratio, the threshold for
# --prior, and the error rates of these trials at it.
# e.g.: steps/train_calibration.sh data/valid/trials/valid exp/xvector/held_out/scores/valid "cosine plda" exp/xvector/calibration.json
prior=0.05          # probability of a target, for the fit and the threshold
# <trials> <scores> <chains> <calibration.json>
. "$(dirname "$0")/../utils/step.sh"
trials=$1; json=$4
read -ra chains <<< "$3"
scores=()
for chain in "${chains[@]}"; do scores+=("$2.$chain"); done

require_file "$trials" "${scores[@]}"
record=$(dirname "$json")/.done_${json##*/}
up_to_date "$record" "$trials" "${scores[@]}" && exit 0
step_begins
python3 -m steps.backend.train_calibration --prior "$prior" -- "$trials" "${scores[@]}" "$json"
mark_done "$record" "$trials" "${scores[@]}" -- "$json"
