#!/usr/bin/env bash
# A rehearsal of the recipe at VoxCeleb1's size: seconds, peak memory of the largest process, and MB on disk that each stage
# adds, on a corpus of as many speakers and files (tests/bench/large_corpus.py), or of a share of it. Error rates mean
# nothing here. The corpus is in the page cache and takes little disk: a slow file server takes longer.
# e.g.: tests/bench/rehearsal.sh --share 0.1 --stop-stage 2 work/tenth
share=1.0           # share of the speakers and of the utterances
speakers=1251       # speakers of the whole
utterances=148642   # utterances of the whole
format=wav          # wav or m4a
systems=ivector     # systems of egs/voxceleb/conf, at full size
set=                # keys of their YAML files to change: "train.epochs=1"; may be repeated
stop_stage=2        # last stage of the recipe to run
device=cpu          # cpu or cuda
nj=2                # jobs
# <work>
. "$(dirname "$0")/../../utils/step.sh"
work=$1
mkdir -p "$work"
of_whole() { awk -v n="$1" -v share="$share" 'BEGIN { n = int(n * share + 0.5); print n < 160 ? 160 : n }'; }  # 40 test, 40 valid

printf '| share %s: %s speakers, %s utterances | seconds | peak MB of a process | MB on disk, added |\n| --- | ---: | ---: | ---: |\n' \
  "$share" "$(of_whole "$speakers")" "$(of_whole "$utterances")"
if [ ! -d "$work/corpus" ]; then
  python3 -m tests.bench.large_corpus --speakers "$(of_whole "$speakers")" --utterances "$(of_whole "$utterances")" \
    --format "$format" "$work/corpus"
fi
size() { du -sm --exclude=corpus "$work" | cut -f 1; }
before=$(size)
for ((stage = 0; stage <= stop_stage; stage++)); do
  measured=$(python3 - "$work/said" "$VOX_ROOT/egs/voxceleb/run.sh" --voxceleb1-root "$work/corpus" --systems "$systems" \
    --set "$set" --work "$work" --device "$device" --nj "$nj" --stage "$stage" --stop-stage "$stage" << 'END'
import resource
import subprocess
import sys
import time

started = time.perf_counter()
with open(sys.argv[1], "w") as said:
    code = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=said).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest of all processes below
print(f"{time.perf_counter() - started:.0f} | {peak:.0f}")
sys.exit(code)
END
  ) || { cat "$work/said" >&2; exit 1; }
  after=$(size)
  printf '| %s | %s | %s |\n' "$(sed -n "s/^== Stage \($stage: .*\)/\1/p" "$work/said")" "$measured" "$((after - before))"
  before=$after
done
