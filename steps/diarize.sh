#!/usr/bin/env bash
# Say who speaks when in a recording, as RTTM: windows of speech, compared by a chain of the model's back-end, clustered from
# the bottom up, and assigned anew by VBx if the chain ends in PLDA. A small use of speaker embeddings; toolkits for
# diarization do more.
# e.g.: steps/diarize.sh --device cuda work/xvector meeting.wav work/meeting.rttm
chain=              # name of a back-end (empty: the best calibrated one)
window=+1.5         # seconds of a window
shift=+0.25         # seconds between windows
bias=+0.0           # added to the threshold of the clustering; higher: more clusters
vbx=true            # whether VBx assigns the windows anew
fa=+0.3             # VBx: scale of likelihoods
fb=+17.0            # VBx: scale of the speakers' prior; higher: fewer speakers
loop=0.99           # VBx: probability that the next window has the same speaker
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda
# <bundle> <recording> <rttm>
. "$(dirname "$0")/../utils/step.sh"
bundle=$1; recording=$2; rttm=$3

require_file "$bundle" "$recording"
require_apart "$rttm" "$recording"
inputs=("$bundle" "$recording")
for one in "$bundle"/{backend,calibration.json}; do  # the record of a folder in exp/ tells of the network alone
  [ ! -e "$one" ] || inputs+=("$one")
done
record=$(dirname "$rttm")/.done.${rttm##*/}
up_to_date "$record" "${inputs[@]}" && exit 0
step_begins
gpu=()
[ "$device" = cpu ] || gpu=(--gpu 1)
# shellcheck disable=SC2086  # cmd holds words
$cmd ${gpu[@]+"${gpu[@]}"} "$(dirname "$rttm")/log/${rttm##*/}.log" \
  python3 -m steps.diarization.diarize ${chain:+--chain "$chain"} --window "$window" --shift "$shift" --bias="$bias" --vbx "$vbx" \
    --fa "$fa" --fb "$fb" --loop "$loop" --device "$device" "$bundle" "$recording" "$rttm"
requests_end
mark_done "$record" "${inputs[@]}" -- "$rttm"
log "$(cut -d ' ' -f 8 "$rttm" | sort -u | wc -l) speakers, $(wc -l < "$rttm") turns"
