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
    [ -s "$file" ] && continue
    [ -z "${VOX_STATUS:-}" ] || { printf 'to do\t%s\tneeds %s\n' "$script" "$file" >> "$VOX_STATUS"; exit 0; }
    die "$file is missing or empty; run the stage that makes it first"
  done
}

# Whether the outputs that RECORD lists are whole and were made with these options from these inputs.
# Options that cannot change a result (how many jobs, where they run, what a report names) are left out of the record.
# While a recipe asks for its status, the record's state is only reported, and no step does anything.
up_to_date() {  # record input ...
  if [ -n "${VOX_STATUS:-}" ]; then
    python3 -m utils.done status "$1" --report "$VOX_STATUS" --step "${script##*/}" "${step_record[@]}" --inputs "${@:2}"
    return 0
  fi
  python3 -m utils.done check "$1" --step "${script##*/}" "${step_record[@]}" --inputs "${@:2}" || return 1
}

mark_done() {  # record input ... [-- output ...]; without outputs, every file beside the record
  local record=$1 inputs=() outputs=(); shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do inputs+=("$1"); shift; done
  [ $# -gt 0 ] && shift && outputs=(--outputs "$@")
  python3 -m utils.done mark "$record" --step "${script##*/}" "${step_record[@]}" --inputs "${inputs[@]}" \
    ${outputs[@]+"${outputs[@]}"}
}

# Before work that goes on for long: keeps in FOLDER what a killed run with the same options, jobs and inputs left. Fails
# where there is nothing to go on from: the folder is made anew, empty, and outputs of an earlier run are to be deleted.
# Jobs that leave a marker in FOLDER (utils/once) do not run again.
begin() {  # folder input ...
  python3 -m utils.done begin "$1" --step "${script##*/}" "${step_record[@]}" --option "nj=${nj:-}" --inputs "${@:2}"
}

step_record=()
for option in "${step_options[@]}"; do
  case $option in nj | cmd | device | num_threads | num_processes | num_nodes | command) ;; *) step_record+=(--option "$option=${!option}") ;; esac
done
unset option
[ -n "${VOX_STATUS:-}" ] || echo "$(date '+%H:%M:%S') $(as_typed "${script_call[@]}")" >&2
