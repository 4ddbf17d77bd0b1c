#!/usr/bin/env bash
# Feed damaged files to every reader for some minutes each: tests/fuzz/run.sh 10 [reader ...]
set -euo pipefail
unset CDPATH
minutes=${1:?usage: tests/fuzz/run.sh <minutes> [reader ...], for example: tests/fuzz/run.sh 10 final.ubm plda}
shift
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../../path.sh
. ./path.sh
export VOX_FUZZ_EXAMPLES=2000
mapfile -t readers < <(if [ $# -gt 0 ]; then printf '%s\n' "$@"; else
  python3 -c 'from tests.fuzz.test_readers import READERS; print(*READERS, sep="\n")'; fi)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for reader in "${readers[@]}"; do
  end=$(($(date +%s) + 60 * minutes)) rounds=0
  while [ "$(date +%s)" -lt "$end" ]; do
    VOX_FUZZ_SEED=$RANDOM$RANDOM python3 -m pytest -q -p no:cacheprovider "tests/fuzz/test_readers.py::test_damaged_files_are_refused_or_read[$reader]" \
      > "$log" || { cat "$log"; exit 1; }
    rounds=$((rounds + 1))
  done
  echo "$reader: $((2000 * rounds)) damaged files in $minutes minutes, each read or refused"
done
