#!/usr/bin/env bash
# Run a benchmark in two checkouts in turn, with the same Python environment: the other, this one, the other, this one.
# What both print can be compared although the machine's speed drifts.
# e.g.: tests/bench/pair.sh ../before "tests/bench/scoring.sh --runs 9"
runs=2              # times each checkout runs it
# <other-checkout> <command>
. "$(dirname "$0")/../../utils/step.sh"
other=$(cd "$1" && pwd); command=$2

python=$(dirname "$(command -v python3)")
for ((run = 1; run <= runs; run++)); do
  for root in "$other" "$VOX_ROOT"; do
    echo "== $root ($(git -C "$root" rev-parse --short HEAD)), run $run"
    (cd "$root" && VOX_READY=$root VOX_ROOT=$root PYTHONPATH=$root PATH=$python:$root/utils:$PATH bash -c "$command")
  done
done
