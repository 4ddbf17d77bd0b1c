#!/usr/bin/env bash
# i-vector training and extraction against Kaldi's programs on minivox (110 training speakers, 2 cores): seconds of
# each stage, Kaldi's, the ratio, and the peak memory of its process. The last line is the total.
# Kaldi extracted 4,200 utterances; here it is dev and test, 3,000, and the time is scaled to 4,200.
# e.g.: tests/bench/ivector.sh --gaussians 1024 --dim 400 exp-work/data/mfcc24
gaussians=256       # 256 (dim 200) and 1024 (dim 400) have figures of Kaldi's
dim=200             # total factors
num_frames=300000   # frames that the UBM is trained on
num_threads=2       # threads
speakers=           # train on that many speakers only (empty: all)
work=               # folder for the models (empty: a temporary one, removed at the end)
# <feature-data>
. "$(dirname "$0")/../../utils/step.sh"
data=$1
require_file "$data/train/feats.scp" "$data/train/vad.scp" "$data/test/feats.scp"

if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
train=$data/train
if [ -n "$speakers" ]; then
  head -n "$speakers" "$data/train/spk2utt" > "$work/speakers"
  python3 -m utils.subset_data_dir --spk-list "$work/speakers" "$data/train" "$work/train" >&2
  train=$work/train
fi
cat > "$work/system.yaml" << END
kind: ivector
features: mfcc24
frontend: {deltas: 2, delta_window: 3, cmn: sliding, cmn_window: 300, vad: true}
ubm: {num_gaussians: $gaussians, num_frames: $num_frames}
extractor: {dim: $dim, iterations: 5}
END
case $gaussians in
  256) kaldi=(91 38 5 83 32) ;;
  1024) kaldi=(253 59 14 1000 354) ;;
  *) kaldi=(0 0 0 0 0) ;;
esac
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

measured() {  # log module argument ...: runs the module; the log ends in its seconds and its peak memory in MB
  local log=$1; shift
  python3 - "$@" > /dev/null 2> "$log" << 'END'
import resource
import subprocess
import sys
import time

started = time.perf_counter()
code = subprocess.run([sys.executable, "-m", *sys.argv[1:]], check=False).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
print(f"{time.perf_counter() - started:.1f} {peak}", file=sys.stderr)
sys.exit(code)
END
}

total=0
line() {  # stage seconds peak-mb kaldi's-seconds
  awk -v name="$1" -v seconds="$2" -v peak="$3" -v kaldi="$4" 'BEGIN {
    printf "%-28s %7.1f s   Kaldi %5d s   ratio %5.1f   peak %5d MB\n", name, seconds, kaldi, kaldi / (seconds + 1e-9), peak }'
  total=$(awk -v a="$total" -v b="$2" 'BEGIN { print a + b }')
}
less() { awk -v a="$1" -v b="$2" 'BEGIN { print a - b }'; }

measured "$work/ubm.log" steps.ivector.train_ubm --num-threads "$num_threads" "$work/system.yaml" "$train" "$work"
read -r seconds peak < <(tail -n 1 "$work/ubm.log")
diagonal=$(awk '/^diagonal UBM after/ { print $4 }' "$work/ubm.log")
line "diagonal UBM" "$diagonal" "$peak" "${kaldi[0]}"
line "full UBM" "$(less "$seconds" "$diagonal")" "$peak" "${kaldi[1]}"
measured "$work/extractor.log" steps.ivector.train_extractor --num-threads "$num_threads" \
  "$work/system.yaml" "$train" "$work"
read -r seconds peak < <(tail -n 1 "$work/extractor.log")
posteriors=$(awk '/^extractor, posteriors:/ { print $3 }' "$work/extractor.log")
line "posteriors and statistics" "$posteriors" "$peak" "${kaldi[2]}"
line "5 extractor iterations" "$(less "$seconds" "$posteriors")" "$peak" "${kaldi[3]}"
seconds=0 peak=0 utterances=0
for set in "$train" "$data/test"; do
  "$VOX_ROOT/steps/extract_ivectors.sh" --nj "$num_threads" "$work" "$set" "$work/embeddings_${set##*/}" \
    > "$work/extract.log" 2>&1 &
  started=$(date +%s.%N)
  wait $!
  seconds=$(awk -v a="$seconds" -v b="$started" -v c="$(date +%s.%N)" 'BEGIN { print a + c - b }')
  utterances=$((utterances + $(wc -l < "$work/embeddings_${set##*/}/ivector.scp")))
  peak=$(sed -n 's/^# Accounting.*peak_mb=//p' "$work/embeddings_${set##*/}"/log/*.log | sort -n | tail -n 1)
done
seconds=$(awk -v a="$seconds" -v n="$utterances" 'BEGIN { print a * 4200 / n }')
line "extraction, 4,200 utterances" "$seconds" "$peak" "${kaldi[4]}"
printf 'total %.0f s\n' "$total"
