#!/usr/bin/env bash
# Disturb the recipe on purpose and print, fault by fault, what happened: a line each, `ok` where it was survived.
# Takes some 20 minutes; needs the shared data, and root for what fills a disk and restarts engines' daemons.
# e.g.: tests/faults/run.sh kills disk        only these
#       tests/faults/run.sh                   all
set -euo pipefail
unset CDPATH
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=../../path.sh
. ./path.sh
exec python3 -m tests.faults.faults "$@"
