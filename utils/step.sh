# shellcheck shell=bash disable=SC2034,SC2154  # the sourcing script declares and uses the options
# Sourced by every steps/*.sh after its options: strict mode, option parsing, environment, and the
# functions that all steps share.

set -euo pipefail
# shellcheck source=parse_options.sh
. "$(dirname "${BASH_SOURCE[0]}")/parse_options.sh"
# shellcheck source=../path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"

step_inputs=  # what the inputs were like when the step began: a change before its end is an error

# The user sees one line when a step's work begins and one at its end, with the time that it took.
step=${script##*/} step=${step%.sh} step_out=${!#} step_began='' step_said='' step_details=''
step_begins() {
  [ -z "$step_began" ] && ! in_dry_run || return 0
  step_began=$SECONDS
  echo "$(date '+%H:%M:%S') $step ${step_out#"$PWD"/}" >&2
}
step_ends() {
  if [ $? = 0 ] && [ -n "$step_began" ]; then echo "         ...${VOX_BESIDE:+ $step ${step_out#"$PWD"/}} $((SECONDS - step_began)) s${step_said:+: $step_said}" >&2; fi
}
trap step_ends EXIT
log() { step_said=$*; step_said=${step_said#"$step_out: "}; }  # text for that last line

# Details are kept in a file beside the logs of the jobs: the full call and the output of programs such as validation.
detail() { step_details+="$("$@")"$'\n'; }  # command ...
validate() { in_dry_run || detail python3 -m utils.kaldi.validate_data_dir "$1"; }  # data
keep_call() {  # record
  local name=${1##*/}
  name=${name#.done}; case $name in .*) ;; *) name='' ;; esac  # one folder holds the scores of several lists
  mkdir -p "$(dirname "$1")/log"
  { as_typed "${script_call[@]}"; printf '\n%s' "$step_details"; } > "$(dirname "$1")/log/$step$name.call"
}

die() { echo "$script: error: $*" >&2; exit 1; }

in_status() { [ -n "${VOX_STATUS:-}" ]; }  # a recipe asks for the state of its steps: write nothing

# A launcher with --dry-run, a recipe's or the step's own, asks for requests: each step makes those of its jobs, whose data
# need not exist, and writes nothing. A recipe's steps without jobs end at once.
case " ${cmd:-} " in *" --dry-run "*) export VOX_DRY_RUN=true ;; esac
in_dry_run() { [ -n "${VOX_DRY_RUN:-}" ]; }
requests_end() { ! in_dry_run || exit 0; }  # after the step's last jobs
if in_dry_run; then
  [[ " ${step_options[*]} " == *" cmd "* ]] || exit 0
  mkdir() { :; }
fi

# A run that was suspended may have lost its lock to another; it must not write any more. (See utils/jobs/lock.py.)
require_lock() {
  [ -z "${VOX_RUN:-}" ] || grep -qsF "$VOX_RUN" "$VOX_LOCK" ||
    die "$VOX_LOCK: this run no longer holds the lock and ends here; another run may have taken over"
}

require_file() {  # path ...
  local file
  ! in_dry_run || return 0
  for file in "$@"; do
    [ -s "$file" ] && continue
    ! in_status || { printf 'to do\t%s\tneeds %s\n' "$script" "$file" >> "$VOX_STATUS"; exit 0; }
    die "$file is missing or empty; run the stage that makes it first"
  done
}

# Ends the step if its output is one of its inputs, under any name.
require_apart() {  # output input ...
  local input
  for input in "${@:2}"; do
    [ ! "$1" -ef "$input" ] || die "$1 is both input and output; name another output"
  done
}

# Whether the outputs listed in RECORD are intact and were made with these options from these inputs.
# Options that cannot change a result (how many jobs, where they run, what a report names) are left out of the record.
# When a recipe asks for its status, this only reports the record's state, and no step does any work.
up_to_date() {  # record input ...
  ! in_dry_run || return 1
  if in_status; then
    python3 -m utils.jobs.done status "$1" --report "$VOX_STATUS" --step "${script##*/}" "${step_record[@]}" --inputs "${@:2}"
    return 0
  fi
  ask_records check "$@"
}

# Whether FILE was made elsewhere, for example by Kaldi: no step here has begun to make it, and OPTIONS, which are kept
# beside ours, are not there. It is then used as it is; it must list the utterances of TABLE.
made_elsewhere() {  # record file table [options]
  ! in_dry_run || return 1
  [ -s "$2" ] && [ ! -e "$1" ] && [ ! -e "$(dirname "$1")/log/$step.call" ] && [ ! -e "${4-$1}" ] || return 1
  cmp -s <(cut -d ' ' -f 1 "$2") <(cut -d ' ' -f 1 "$3") ||
    die "$2 was made elsewhere and lists other utterances than $3, or in another order; correct it, or name another output folder"
  if in_status; then printf 'done\t%s\t\n' "$1" >> "$VOX_STATUS"
  else echo "$(date '+%H:%M:%S') $step ${2#"$PWD"/}: made elsewhere, used as it is" >&2
  fi
}

# Adds the voice activity of data directories, where it exists, to inputs: for steps that skip unvoiced frames.
add_voicing() {  # data ...
  local data
  for data in "$@"; do
    if [ -f "$data/.done_vad" ]; then inputs+=("$data/.done_vad")
    elif [ -f "$data/vad.scp" ]; then inputs+=("$data/vad.scp")  # made elsewhere
    fi
  done
}

# Sets `part` to a copy of an i-vector system's configuration without its back-end, beside the logs of a folder: an input
# of steps that a change of the back-end need not repeat. (Networks have network.yaml.)
without_backend() {  # config folder
  part=$2/log/before_backend.yaml
  ! in_status || part=$VOX_SCRATCH/before_backend.yaml
  if in_dry_run; then part=$1; else python3 -m steps.ivector.config "$1" "$part"; fi
}

leaves_unvoiced_out() {  # config: whether the system skips unvoiced frames
  local vad
  ! in_dry_run || return 1
  vad=$(python3 -m utils.config get --default False "$1" frontend.vad) || exit 1
  [ "$vad" = True ]
}

ask_records() {  # check | begin, record input ...: fails if the step must run; an error ends the step
  local code=0 found
  found=$(python3 -m utils.jobs.done "$1" "$2" --step "${script##*/}" "${step_record[@]}" --inputs "${@:3}") || code=$?
  [ -z "$found" ] || step_inputs+=$found$'\n'
  [ "$code" = 0 ] || [ "$code" = 3 ] || exit "$code"
  [ "$code" = 0 ] && [ "$1" = check ] || step_begins
  return "$code"
}

mark_done() {  # record input ... [-- output ...]; without outputs, every file beside the record
  local record=$1 inputs=() outputs=(); shift
  require_lock
  keep_call "$record"
  while [ $# -gt 0 ] && [ "$1" != -- ]; do inputs+=("$1"); shift; done
  [ $# -gt 0 ] && shift && outputs=(--outputs "$@")
  python3 -m utils.jobs.done mark "$record" --step "${script##*/}" "${step_record[@]}" --inputs "${inputs[@]}" \
    --began ${outputs[@]+"${outputs[@]}"} <<< "${step_inputs%$'\n'}"
}

# Before long work: keeps the contents of FOLDER if a killed run with the same options, jobs and inputs left them.
# Otherwise empties the folder and fails: the caller must then delete the outputs of an earlier run.
# Jobs with a marker in FOLDER (utils/once) do not run again.
begin() {  # folder input ...
  ! in_dry_run || return 0
  local step_record=("${step_record[@]}" --option "nj=${nj:-}") code=0
  ask_records begin "$@" || code=$?
  keep_call "$1"
  return "$code"
}

# Prints the seconds of this step, with those that stopped runs spent on a folder that `begin` has kept.
seconds_with() { echo $((SECONDS + $(cat "$1/.seconds" 2> /dev/null || echo 0))); }  # folder

# Threads per job; 0 means automatic: all cores on this machine, 4 on a batch system.
if [ "${num_threads:-}" = 0 ]; then
  case " ${cmd%% *}" in *[/\ ]run | *[/\ ]run.pl) num_threads=$(getconf _NPROCESSORS_ONLN) ;; *) num_threads=4 ;; esac
fi

# Sets `memory`, the launcher's option for the memory of the step's jobs, to an estimate, unless --cmd has one. In the
# dry run of a recipe, the configuration is in its folder of systems; all else that exists is in the work folder.
estimate() {  # module step name=value ...
  memory=()
  case " $cmd " in *" --mem "*) return 0 ;; esac
  # On this machine nothing is reserved, and importing PyTorch for the estimate would take seconds.
  case "$1 ${cmd%% *}" in "nnet.memory "*run | "nnet.memory "*run.pl) return 0 ;; esac
  local mem word words=()
  for word in "$@"; do
    case $word in
      exp="${VOX_EXP:-}"/* | config="${VOX_EXP:-}"/*)
        ! in_dry_run || [ -z "${VOX_EXP:-}" ] || word=${word%%=*}=$VOX_SYSTEMS${word#*="$VOX_EXP"} ;;
    esac
    words+=("$word")
  done
  mem=$(python3 -m "${words[@]}") || exit 1
  memory=(--mem "$mem")
}

require_lock
step_record=()
for option in "${step_options[@]}"; do
  case $option in
    nj | cmd | device | num_threads | num_processes | num_nodes | command) ;;
    init) ;;  # part of the network's configuration, an input of train_network.sh
    held_out | copies_data | copies_embeddings) ;;  # inputs of train_backend.sh, whose place may change
    max_shared_speakers) [ "${script##*/}" != prepare_data.sh ] || step_record+=(--option "$option=${!option}") ;;  # chooses lists
    *) step_record+=(--option "$option=${!option}") ;;
  esac
done
unset option
