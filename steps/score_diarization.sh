#!/usr/bin/env bash
# Print the diarization error rate of a result, with its parts and a 95 % interval over recordings.
# e.g.: steps/score_diarization.sh --collar 0.25 reference.rttm result.rttm
collar=+0.0         # seconds around the reference's starts and ends that do not count
seed=1              # random seed of the drawn recordings
# <reference-rttm> <result-rttm>
. "$(dirname "$0")/../utils/step.sh"

require_file "$1" "$2"
python3 -m steps.diarization.error --collar "$collar" --seed "$seed" "$1" "$2"
