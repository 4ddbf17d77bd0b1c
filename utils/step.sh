# shellcheck shell=bash disable=SC2034,SC2154  # options come from and go to the script that sources this
# Sourced by every steps/*.sh after its options: strict mode, option parsing, environment, and the
# few functions that all steps share.

set -euo pipefail
# shellcheck source=parse_options.sh
. "$(dirname "${BASH_SOURCE[0]}")/parse_options.sh"
# shellcheck source=../path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"

log() { echo "$(date '+%H:%M:%S') ${script##*/}: $*" >&2; }
die() { echo "$script: error: $*" >&2; exit 1; }

require_file() {  # path ...
  local file
  for file in "$@"; do
    [ -s "$file" ] || die "$file is missing or empty; run the stage that makes it first"
  done
}

# Whether the outputs that RECORD lists are whole and were made with these options from these inputs.
# Options that cannot change a result (how many jobs, where they run) are left out of the record.
up_to_date() {  # record input ...
  python3 -m utils.done check "$1" --step "${script##*/}" "${step_record[@]}" --inputs "${@:2}" || return 1
}

mark_done() {  # record input ... [-- output ...]; without outputs, every file beside the record
  local record=$1 inputs=() outputs=(); shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do inputs+=("$1"); shift; done
  [ $# -gt 0 ] && shift && outputs=(--outputs "$@")
  python3 -m utils.done mark "$record" --step "${script##*/}" "${step_record[@]}" --inputs "${inputs[@]}" \
    ${outputs[@]+"${outputs[@]}"}
}

# Before work that goes on for long: keeps in FOLDER what a killed run with the same options and inputs left, else empties it.
begin() {  # folder input ...
  python3 -m utils.done begin "$1" --step "${script##*/}" "${step_record[@]}" --inputs "${@:2}"
}

step_record=()
for option in "${step_options[@]}"; do
  case $option in nj | cmd | device | num_threads) ;; *) step_record+=(--option "$option=${!option}") ;; esac
done
unset option
printf '%s ' "$(date '+%H:%M:%S')" "${script_call[@]}" >&2; echo >&2
