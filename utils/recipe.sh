# shellcheck shell=bash disable=SC2034,SC2154  # options come from and go to the script that sources this
# Sourced by egs/*/run.sh after its options: option parsing, environment, folders, stages.
# Sets: work (made absolute), data, exp, conf, jobs, threads, recipe_call; resolves conf/<system>.yaml of every system at
# --scale into exp/<system>/system.yaml (config_of).

# shellcheck source=parse_options.sh
. "$(dirname "${BASH_SOURCE[0]}")/parse_options.sh"
# shellcheck source=../path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
if [ -z "$cmd" ]; then
  # shellcheck source=../cmd.sh
  . "$VOX_ROOT/cmd.sh"
fi

[ "$stage" -le "$stop_stage" ] && [ "$stage" -le 7 ] ||
  bad_call "--stage $stage to --stop-stage $stop_stage: there is no stage to run; stages are 0 to 7"
work=${work:-$here}
case $work in /*) ;; *) work=$PWD/$work ;; esac
conf=${conf:-$VOX_ROOT/egs/voxceleb/conf}
for place in "$work" "$conf"; do
  ! parse_bad_path "$place" || bad_call "the folder $(printf '%q' "$place") $parse_why_bad"
done
# What is kept for this run alone: the state of the audio, looked at once; with --status also what is reported.
VOX_SCRATCH=$(mktemp -d)
export VOX_SCRATCH
trap 'rm -rf "$VOX_SCRATCH"' EXIT
if [ "$status" = true ]; then
  # Nothing is written to the work folder, in which a run may be going on.
  export VOX_STATUS=$VOX_SCRATCH/status
  : > "$VOX_STATUS"
  [ ! -d "$work" ] || work=$(cd "$work" && pwd)
  resolved=$VOX_SCRATCH/systems
else
  mkdir -p "$work"
  work=$(cd "$work" && pwd)
  resolved=$work/exp
  # All that is started from here inherits the open lock. (See utils/jobs/lock.py.)
  export VOX_LOCK=$work/.lock VOX_LOCK_FD VOX_RUN
  exec {VOX_LOCK_FD}>> "$VOX_LOCK"
  VOX_RUN=$(python3 -m utils.jobs.lock take "$VOX_LOCK" "$VOX_LOCK_FD" $$)
  # Machines that do not see the lock are to see that its holder lives.
  (exec {VOX_LOCK_FD}>&-; while kill -0 $$ && grep -qsF "$VOX_RUN" "$VOX_LOCK"; do touch -c "$VOX_LOCK"; sleep 20; done) \
    < /dev/null > /dev/null 2>&1 &
  lock_keeper=$!
  trap 'kill "$lock_keeper" 2> /dev/null || true; rm -rf "$VOX_SCRATCH"
    python3 -m utils.jobs.lock release "$VOX_LOCK" "$VOX_RUN"' EXIT
  python3 -m utils.jobs.place "$work"
fi
data=$work/data exp=$work/exp
recipe_call=$(as_typed "${script_call[@]}")
jobs=(--nj "$nj" --cmd "$cmd") threads=(--cmd "$cmd" --num-threads "$num_threads")

# A line a system: name kind features train_set vad online scoring
read -ra names <<< "$systems"
system_table=$(python3 -m steps.systems --scale "$scale" --conf "$conf" --exp "$resolved" ${names[@]+"${names[@]}"})
systems=$(awk '{ print $1 }' <<< "$system_table")

config_of() { echo "$resolved/$1/system.yaml"; }  # system
of_kind() { awk -v kind="$1" '$2 == kind { print $1 }' <<< "$system_table"; }                # ivector | network
data_of() { echo "$data/$(awk -v name="$1" '$1 == name { print $3 }' <<< "$system_table")"; }        # system
train_set_of() {  # system: what augments online needs no augmented copies
  awk -v name="$1" -v more="${augment:+_aug}" '$1 == name { print $4 ($6 == "online" ? "" : more) }' <<< "$system_table"
}
noises_of() {  # system: sets noises, the options that name corpora to a system that augments online
  noises=()
  [ -z "$(awk -v name="$1" '$1 == name && $6 == "online"' <<< "$system_table")" ] ||
    noises=(--musan-root "$musan_root" --rirs-root "$rirs_root")
}
backends_of() { awk -v name="$1" '$1 == name { gsub(",", " ", $7); print $7 }' <<< "$system_table"; }  # system
scored_by() { awk -v how="$1" '("," $7 ",") ~ ("," how ",") { print $1 }' <<< "$system_table"; }      # cosine | ...
all_features() { awk '{ print $3 }' <<< "$system_table" | sort -u; }
network_features() { awk '$2 == "network" { print $3 }' <<< "$system_table" | sort -u; }
vad_features() { awk '$5 == "vad" { print $3 }' <<< "$system_table" | sort -u; }
sets_of() {  # features: the sets that some system with them reads
  echo train test
  awk -v name="$1" '$3 == name && $4 == "train_net_sp" { print "train_sp"; exit }' <<< "$system_table"
  [ -z "$augment" ] || awk -v name="$1" '$2 == "network" && $3 == name && $6 == "stored" { print "train_aug"; exit }' <<< "$system_table"
}

# Whether a stage is to run; says so, and how long the stage before it took.
stage() {  # number title
  stage_ended
  [ "$stage" -le "$1" ] && [ "$1" -le "$stop_stage" ] || return 1
  current_stage=$1 current_title=$2
  if [ -n "${VOX_STATUS:-}" ]; then status_lines=$(wc -l < "$VOX_STATUS"); return 0; fi
  echo "== Stage $1: $2" >&2
  touch "$exp/.stage"
  SECONDS=0
}

# Says of a stage whether it is done, stale, partial or to do, and of its steps what is not done, with the reason.
print_status() {
  tail -n +$((status_lines + 1)) "$VOX_STATUS" | work=$work/ awk -F '\t' -v stage="$current_stage" -v title="$current_title" '
    { count[$1]++; if (index($2, ENVIRON["work"]) == 1) $2 = substr($2, length(ENVIRON["work"]) + 1) }
    $1 != "done" && shown < 5 { lines = lines sprintf("         %s: %s%s\n", $2, $1, $3 == "" ? "" : ", " $3); shown++ }
    END {
      state = count["stale"] ? "stale" : !count["to do"] ? "done" : count["done"] ? "partial" : "to do"
      printf "%-8sstage %d: %s (%d of %d steps done)\n%s", state, stage, title, count["done"], NR, lines
      if (NR - count["done"] > shown) printf "         and %d more\n", NR - count["done"] - shown
    }'
}

# Says where the results are, and what to try next.
recipe_ended() {
  stage_ended
  [ -z "${VOX_STATUS:-}" ] && [ "$stop_stage" -ge 7 ] || return 0
  local call=$script
  cat >&2 <<END

table:    $exp/RESULTS.md (and results.tsv)
figures:  $exp/figures/ ($(cd "$exp/figures" && echo *.png))
END
  [[ "${script_call[*]}" == *"root simulated"* ]] || return 0
  cat >&2 <<END

These speakers are simulated: the figures show that the system works, not how good it is. To go on:
  $call --systems "ivector vgg_statistics vgg_mha"    another pooling on the same speakers
  $VOX_ROOT/egs/speechocean762/run.sh    real, free speech, which it downloads
  $call --voxceleb1-root /corpora/VoxCeleb1 --device cuda    VoxCeleb, at the papers' sizes
END
}

# Says what the stage took: the time, and the memory of its largest job (from the logs that it wrote).
current_stage=
stage_ended() {
  [ -n "$current_stage" ] || return 0
  if [ -n "${VOX_STATUS:-}" ]; then print_status; current_stage=; return 0; fi
  local peak_mb
  peak_mb=$(find "$data" "$exp" -name '*.log' -newer "$exp/.stage" -exec sed -n 's/^# Accounting.*peak_mb=//p' {} + |
    sort -n | tail -n 1)
  echo "== Stage $current_stage took $SECONDS s${peak_mb:+; its largest job $peak_mb MB}" >&2
  current_stage=
}
