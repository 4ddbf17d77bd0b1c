#!/usr/bin/env bash
# Run the tests: makes the environment if needed, then runs pytest (which also runs ruff and shellcheck).
# e.g.: tests/run.sh                       all but the long tests, in up to four workers at once
#       tests/run.sh --all                 these, too: faults, job engines, documents, several runs of the recipe
#       tests/run.sh -k plda               the tests that pytest's arguments select, one after the other
# Tests that need the shared data look for them in VOX_SHARED (default ../shared); skipped tests are listed.
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=../path.sh
. ./path.sh
python3 -c "import hypothesis, pytest, xdist" 2> /dev/null || {
  echo "$0: error: $(command -v python3) lacks the packages of the tests: python3 -m pip install -r tests/requirements.txt" >&2
  exit 1
}
words=(-m "not long")
if [ "${1:-}" = --all ]; then words=(); shift; export VOX_FUZZ_EXAMPLES=${VOX_FUZZ_EXAMPLES:-150}; fi
if [[ "$*" =~ ^(--[a-z-]+=[^ ]+( |$))*$ ]]; then
  cores=$(getconf _NPROCESSORS_ONLN)
  # One more than cores: tests of launchers and locks mostly wait.
  words+=(-n "$((cores < 4 ? cores + 1 : 4))")
else
  words=()  # what is named is run
fi
exec python3 -m pytest -rs ${words[@]+"${words[@]}"} "$@"
