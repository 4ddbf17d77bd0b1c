# shellcheck shell=bash disable=SC2034,SC2154  # the sourcing script declares and uses the options
# Sourced by egs/*/run.sh after parse_options.sh: sets up environment, folders, lock, systems and stages.
# Sets: work (made absolute), data, exp, conf, jobs, threads, systems (their names). Resolves each system's
# conf/<system>.yaml at --scale and writes exp/<system>/system.yaml and facts.sh beside it (read_facts).

# shellcheck source=../path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
if [ -z "$cmd" ]; then
  # shellcheck source=../cmd.sh
  . "$VOX_ROOT/cmd.sh"
fi

[ "$stage" -le "$stop_stage" ] && [ "$stage" -le 8 ] ||
  bad_call "--stage $stage to --stop-stage $stop_stage: no stage to run; stages are 0 to 8"
work=${work:-$here}
case $work in /*) ;; *) work=$PWD/$work ;; esac
conf=${conf:-$VOX_ROOT/egs/voxceleb/conf}
for place in "$work" "$conf"; do
  ! parse_bad_path "$place" || bad_call "the folder $(printf '%q' "$place") $parse_why_bad"
done

take_lock() {
  # All child processes inherit the open lock. (See utils/jobs/lock.py.)
  export VOX_LOCK=$work/.lock VOX_LOCK_FD VOX_RUN
  exec {VOX_LOCK_FD}>> "$VOX_LOCK"
  VOX_RUN=$(python3 -m utils.jobs.lock take "$VOX_LOCK" "$VOX_LOCK_FD" $$)
  # Where machines do not see each other's locks, the file's time shows that the holder is alive.
  (exec {VOX_LOCK_FD}>&-; while kill -0 $$ && grep -qsF "$VOX_RUN" "$VOX_LOCK"; do touch -c "$VOX_LOCK"; sleep 20; done) \
    < /dev/null > /dev/null 2>&1 &
  VOX_KEEPER=$!
}

# A recipe that has made its own data continues as this script in the same process (go_on_with): set-up is already done.
begun=false
[ "${VOX_RECIPE:-}" != $$ ] || begun=true
if ! $begun; then
  export VOX_RECIPE=$$ VOX_SCRATCH VOX_CALL VOX_KEEPER='' VOX_PICKED=''
  # Files of this run alone: the state of the audio, checked once; with --status also the report.
  VOX_SCRATCH=$(mktemp -d)
  VOX_CALL=$(as_typed "${script_call[@]}")
fi
trap 'rm -rf "$VOX_SCRATCH"' EXIT
case " $cmd " in *" --dry-run "*) export VOX_DRY_RUN=true ;; esac
if [ -n "${VOX_DRY_RUN:-}" ]; then  # write nothing to the work folder: another run may be active in it
  resolved=$VOX_SCRATCH/systems
elif [ "$status" = true ]; then
  # Write nothing to the work folder: another run may be active in it.
  export VOX_STATUS=$VOX_SCRATCH/status
  touch "$VOX_STATUS"
  [ ! -d "$work" ] || work=$(cd "$work" && pwd)
  printf '%s\n' "$work" > "$VOX_SCRATCH/.place"  # files made to be compared leave this path out, as those of the work folder
  resolved=$VOX_SCRATCH/systems
else
  mkdir -p "$work"
  work=$(cd "$work" && pwd)
  resolved=$work/exp
  if ! $begun; then take_lock; fi
  trap 'kill "$VOX_KEEPER" 2> /dev/null || true; rm -rf "$VOX_SCRATCH"
    python3 -m utils.jobs.lock release "$VOX_LOCK" "$VOX_RUN"' EXIT
  $begun || python3 -m utils.jobs.place "$work"
fi
data=$work/data exp=$work/exp
export VOX_EXP=$exp VOX_SYSTEMS=$resolved  # the steps' estimates read the systems' configurations from the latter
jobs=(--nj "$nj" --cmd "$cmd") threads=(--cmd "$cmd" --num-threads "$num_threads")
case " ${cmd%% *}" in *[/\ ]run | *[/\ ]run.pl) on_engine=false ;; *) on_engine=true ;; esac
# Jobs with --device: on this machine they take turns on each GPU, so that more jobs than GPUs only load the model again.
device_jobs=("${jobs[@]}")
if [ "$device" != cpu ]; then
  if [ "$gpu_nj" = 0 ]; then
    gpu_nj=4
    $on_engine || gpu_nj=$(python3 -c 'from utils.jobs.run import visible_gpus as g; print(len(g()) or 1)')
  fi
  device_jobs=(--nj "$gpu_nj" --cmd "$cmd")
fi

# With --scale auto of a recipe that picks sizes, they depend on data that are still to be made: check the systems, but do
# not write them.
resolve_at=$scale
[ "$scale ${picks_sizes:-}" != "auto true" ] || { resolve_at=mini resolved=$VOX_SCRATCH/systems; }
picked=(${VOX_PICKED:+--picked "$VOX_PICKED"})
! $begun || picked+=(--quiet)
# Fine-tuning: without --systems, the system that the model is of.
init=${init:-}
case $init in "" | /*) ;; *) init=$PWD/$init ;; esac
[ -z "$init" ] || given systems || systems=
read -ra names <<< "$systems"
systems=$(python3 -m steps.systems --scale "$resolve_at" --conf "$conf" --exp "$resolved" ${augment:+--augmented} \
  ${backend:+--backend "$backend"} ${init:+--init "$init"} ${set:+--set "$set"} ${picked[@]+"${picked[@]}"} \
  ${names[@]+"${names[@]}"})
for system in $systems; do
  for place in "$init" "$init/.."; do
    [ -z "$init" ] || [ ! "$exp/$system" -ef "$place" ] ||
      bad_call "--init $init: this run would write it; name another folder with --work, or copy the model"
  done
done

# Sets a system's facts: kind (ivector | network), features, train_set, sets, vad, online, after (see utils/systems.py),
# and chains, segments, copies, of its back-ends (see steps/systems.py);
# config; feats, the folder of its data with features; noises, the options that name corpora for online augmentation.
read_facts() {  # system
  # shellcheck source=/dev/null
  . "$resolved/$1/facts.sh"
  config=$resolved/$1/system.yaml feats=$data/$features noises=()
  [ "$online" = false ] || noises=(--musan-root "$musan_root" --rirs-root "$rirs_root")
}

# Prints the words of one fact over all systems, each word once; or over those systems whose other fact has this value.
each() {  # fact [other-fact value]
  local system
  for system in $systems; do
    read_facts "$system"
    if [ $# -eq 1 ] || [ "${!2}" = "$3" ]; then tr ' ' '\n' <<< "${!1}"; fi
  done | awk '!seen[$0]++'
}

# Sets paths to a path in the folder of each of a fusion's systems that have a chain, as steps/fuse.sh takes them, and number.
of_members() {  # fusion chain path
  local system
  paths='' number=0
  for system in ${1#* }; do
    read_facts "$system"
    [[ " $chains " == *" $2 "* ]] || continue
    paths+="$(sed 's/[^A-Za-z0-9_./]/\\&/g' <<< "$exp/$system/$3") " number=$((number + 1))
  done
}

# Sets fusions from --fuse, each as "name system system ...": `fusion` of all systems, others named by their systems.
read_fusions() {
  local groups group names name
  fusions=()
  IFS=, read -ra groups <<< "$fuse"
  for group in ${groups[@]+"${groups[@]}"}; do
    read -ra names <<< "$group"
    if [ "${names[*]}" = all ]; then
      read -ra names <<< "$systems"
      [ "${#names[@]}" -lt 2 ] || fusions+=("fusion ${names[*]}")
      continue
    fi
    for name in ${names[@]+"${names[@]}"}; do
      [[ " $systems " == *" $name "* ]] || bad_call "--fuse names $name; it is not among the systems: $systems"
    done
    [ "${#names[@]}" -gt 1 ] || bad_call "--fuse '$fuse': a fusion is of two systems or more, or of all"
    name=${names[*]}
    fusions+=("${name// /+} $name")
  done
  [[ " $systems " != *" fusion "* ]] || bad_call "no system can be called fusion; rename its YAML file"
}
read_fusions

# Calls a function, which a system's facts are set for, for each system of a kind: one after the other on this machine. On
# an engine, they run side by side, at most --max-jobs-run of them, but a system that needs the models of others runs after
# those. A failure ends neither the others nor what does not need that model; the error names those that failed.
for_each() {  # kind function
  local system before first failed='' wanted=$1
  local -A running=()
  for first in true false; do
    for system in $systems; do
      read_facts "$system"
      [ "$kind" = "$wanted" ] || continue
      if ! $on_engine || [ -n "${VOX_STATUS:-}${VOX_DRY_RUN:-}" ]; then ! $first || "$2"; continue; fi
      [ "$([ -n "$after" ] && echo false || echo true)" = $first ] || continue
      for before in $after; do
        if [[ " $failed " == *" $before "* ]] || { [ -n "${running[$before]:-}" ] && ! wait "${running[$before]}"; }; then
          failed+=" $system"
          continue 2
        fi
      done
      while [ "$max_jobs_run" != 0 ] && [ "$(jobs -rp | grep -cvx "$VOX_KEEPER")" -ge "$max_jobs_run" ]; do sleep 1; done
      (export VOX_BESIDE=true; "$2") &
      running[$system]=$!
    done
  done
  for system in "${!running[@]}"; do wait "${running[$system]}" || failed+=" $system"; done
  [ -z "$failed" ] || { echo "$script: error: failed:$failed; the other systems ended well" >&2; exit 1; }
}

# Sets picked_scale, picked_set and picked_valid: sizes that suit the data (local/auto_scale.py).
read_picked() {
  picked_scale=mini picked_set='' picked_valid=2
  if [ -s "$data/picked.sh" ]; then
    # shellcheck source=/dev/null
    . "$data/picked.sh"
  elif [ -z "${VOX_STATUS:-}${VOX_DRY_RUN:-}" ]; then
    echo "$script: error: $data/picked.sh is missing; run stage 0, which looks at the data, first" >&2
    exit 1
  fi
}

# For a recipe that has made its own data: continues with the stages of another recipe, which gets this one's options
# except those named. It replaces this process, so that the lock stays held.
go_on_with() {  # run.sh own-option ...
  local own=" stage ${*:2} " words=() option
  stage_ended
  [ "$stop_stage" -gt 0 ] || exit 0
  for option in "${step_options[@]}"; do
    [[ $own == *" $option "* ]] || words+=("--${option//_/-}=${!option}")
  done
  exec "$BASH" "$1" --stage $((stage > 1 ? stage : 1)) "${words[@]}"
}

# Whether a stage is to run; prints its title, and the duration of the stage before it.
stage() {  # number title
  stage_ended
  [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ] || return 1
  current_stage=$1 current_title=$2
  if [ -n "${VOX_STATUS:-}" ]; then status_lines=$(wc -l < "$VOX_STATUS"); return 0; fi
  echo "== Stage $1: $2" >&2
  [ -z "${VOX_DRY_RUN:-}" ] || return 0
  mkdir -p "$exp"
  touch "$exp/.stage"
  SECONDS=0
}

# Prints whether a stage is done, stale, partial or to do, and which of its steps are not done, with the reasons.
print_status() {
  tail -n +$((status_lines + 1)) "$VOX_STATUS" |
    work=$work/ scratch=$VOX_SCRATCH/ root=$VOX_ROOT/ awk -F '\t' -v stage="$current_stage" -v title="$current_title" '
    function without(text, folder,  at) {  # leaves the folder out of the path that a text names
      at = index(" " text, " " folder)
      return at ? substr(text, 1, at - 1) substr(text, at + length(folder)) : text
    }
    { count[$1]++
      $2 = without(without($2, ENVIRON["work"]), ENVIRON["root"])
      $3 = without(without($3, ENVIRON["work"]), ENVIRON["scratch"]) }
    $1 != "done" && shown < 5 { lines = lines sprintf("         %s: %s%s\n", $2, $1, $3 == "" ? "" : ", " $3); shown++ }
    END {
      state = count["stale"] ? "stale" : !count["to do"] ? "done" : count["done"] ? "partial" : "to do"
      printf "%-8sstage %d: %s (%d of %d steps done)\n%s", state, stage, title, count["done"], NR, lines
      if (NR - count["done"] > shown) printf "         and %d more\n", NR - count["done"] - shown
    }'
}

# Prints where the results are and what to try next.
recipe_ended() {
  stage_ended
  [ -z "${VOX_STATUS:-}${VOX_DRY_RUN:-}" ] && [ "$stop_stage" -ge 8 ] || return 0
  local call=$script
  cat >&2 <<END

report:   ${exp#"$PWD"/}/report.html
table:    ${exp#"$PWD"/}/RESULTS.md (and results.tsv)
figures:  ${exp#"$PWD"/}/figures/ ($(cd "$exp/figures" && echo *.png))
bundles:  ${exp#"$PWD"/}/*/bundle (docs/using_a_model.md says how to use them)
END
  [ "${voxceleb1_root:-}" = simulated ] || return 0
  local system recordings=("$work"/simulated/test/wav/*/s1/00001.wav)
  for system in $systems; do ! grep -qs weights "$exp/$system/bundle/calibration.json" || break; done
  cat >&2 <<END

These speakers are simulated: the figures show that the system works, not how good it is. To continue:
  $(as_typed "$VOX_ROOT/utils/verify" "${exp#"$PWD"/}/$system/bundle" "${recordings[@]:0:2}")   whether two recordings are of one speaker
  $call --systems "ivector vgg_statistics vgg_mha"    another pooling on the same speakers
  $VOX_ROOT/egs/speechocean762/run.sh    real, free speech, which it downloads
  $call --voxceleb1-root /corpora/VoxCeleb1 --device cuda    VoxCeleb, at the papers' sizes
END
}

# Prints the time that the stage took and the memory of its largest job (from its logs).
current_stage=
stage_ended() {
  [ -n "$current_stage" ] || return 0
  if [ -n "${VOX_STATUS:-}" ]; then print_status; current_stage=; return 0; fi
  [ -z "${VOX_DRY_RUN:-}" ] || return 0
  local peak_mb
  peak_mb=$(find "$data" "$exp" -name '*.log' -newer "$exp/.stage" -exec sed -n 's/^# Accounting.*peak_mb=\([0-9]*\).*/\1/p' {} + |
    sort -n | tail -n 1)
  echo "== Stage $current_stage took $SECONDS s${peak_mb:+; its largest job $peak_mb MB}" >&2
  current_stage=
}
