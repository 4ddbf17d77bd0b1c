#!/usr/bin/env bash
# Bundle a trained system: a folder of its own, for utils/verify and the other commands of docs/using_a_model.md. A system
# that cannot be used on recordings, such as one whose feature options are unknown, is named in a warning.
# e.g.: steps/bundle.sh exp/xvector exp/xvector/bundle
licence="not stated" # one line on who may use it for what
# <exp> <bundle>
. "$(dirname "$0")/../utils/step.sh"
exp=$1; out=$2

if [ -f "$exp/final.ie" ]; then
  inputs=("$exp"/{system.yaml,final.ubm,final.ie})
else
  inputs=("$exp"/{config.yaml,model.safetensors})
fi
require_file "${inputs[@]}"
for file in "$exp"/{feats.conf,vad.conf,backend,calibration.json}; do [ ! -e "$file" ] || inputs+=("$file"); done
record=$(dirname "$out")/.done_${out##*/}
up_to_date "$record" "${inputs[@]}" && exit 0
step_begins
[ ! -f "$out/bundle.json" ] || rm -r "$out"
detail python3 -m steps.use.bundle --or-warn --licence "$licence" "$exp" "$out"
[ -f "$out/bundle.json" ] || exit 0
mapfile -d '' made < <(find "$out" -type f ! -name '.*' -print0)
mark_done "$record" "${inputs[@]}" -- "${made[@]}"
