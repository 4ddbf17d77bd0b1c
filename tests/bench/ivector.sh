#!/usr/bin/env bash
# The i-vector chain's steps, for example on minivox: seconds of each stage, including all work of the step, and the peak
# memory of a job; frames; EERs; the total. RESULTS.md has seconds of Kaldi's programs, which extracted 4,200 utterances;
# here train and test are extracted, and the time is scaled to 4,200.
# e.g.: tests/bench/ivector.sh --gaussians 1024 --dim 400 work/data/mfcc24 work/data/test/trials
gaussians=256       # Gaussians
dim=200             # total factors
lda_dim=100         # dimensions after LDA, for the EERs
num_frames=300000   # frames to train the UBM on
speakers=           # train on that many speakers only (empty: all)
nj=2                # jobs that extract
work=               # folder for the models (empty: a temporary one, removed at the end)
# <feature-data> <trial-lists>
. "$(dirname "$0")/../../utils/step.sh"
data=$1; lists=$2
require_file "$data/train/feats.scp" "$data/train/vad.scp" "$data/test/feats.scp"

if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
train=$data/train
if [ -n "$speakers" ]; then
  head -n "$speakers" "$data/train/spk2utt" > "$work/speakers"
  python3 -m utils.kaldi.subset_data_dir --spk-list "$work/speakers" "$data/train" "$work/train" >&2
  train=$work/train
fi
cat > "$work/system.yaml" << END
kind: ivector
features: mfcc24
frontend: {deltas: 2, delta_window: 3, cmn: sliding, cmn_window: 300, vad: true}
ubm: {num_gaussians: $gaussians, num_frames: $num_frames}
extractor: {dim: $dim, iterations: 5}
backend: {cosine: [center, length, cosine], plda: [center, lda$lda_dim, length, plda]}
END
total=0
measured() {  # log-pattern step word ...: runs the step; sets seconds and peak
  local pattern=$1 started; shift
  started=$(date +%s.%N)
  "$VOX_ROOT/steps/$1" "${@:2}" > "$work/step.log" 2>&1 || { cat "$work/step.log" >&2; exit 1; }
  seconds=$(awk -v a="$started" -v b="$(date +%s.%N)" 'BEGIN { print b - a }')
  # shellcheck disable=SC2086  # a pattern
  peak=$(cat $pattern | sed -n 's/^# Accounting.*peak_mb=\([0-9]*\).*/\1/p' | sort -n | tail -n 1)
}
line() {  # stage seconds peak-mb
  printf '%-34s %7.1f s   peak %5d MB\n' "$1" "$2" "$3"
  total=$(awk -v a="$total" -v b="$2" 'BEGIN { print a + b }')
}

measured "$work/ubm/log/train_ubm.log" train_ubm.sh "$work/system.yaml" "$train" "$work/ubm"
diagonal=$(awk '/^diagonal UBM after/ { print $4 }' "$work/ubm/log/train_ubm.log")
sed -n 's/ drawn from.*//; s/ of [0-9]*\( voiced\)* frames/\1 frames for the UBM/p' "$work/ubm/log/train_ubm.log"
line "diagonal UBM" "$diagonal" "$peak"
line "full UBM" "$(awk -v a="$seconds" -v b="$diagonal" 'BEGIN { print a - b }')" "$peak"
measured "$work/log/train_extractor.log" train_ivector_extractor.sh "$work/system.yaml" "$train" "$work/ubm" "$work"
line "posteriors, 5 extractor iterations" "$seconds" "$peak"
both=0 utterances=0
for set in "$train" "$data/test"; do
  out=$work/embeddings_${set##*/}
  measured "$out/log/*.log" extract_ivectors.sh --nj "$nj" "$work" "$set" "$out"
  both=$(awk -v a="$both" -v b="$seconds" 'BEGIN { print a + b }')
  utterances=$((utterances + $(wc -l < "$out/ivector.scp")))
done
line "extraction of 4,200 utterances" "$(awk -v a="$both" -v n="$utterances" 'BEGIN { print a * 4200 / n }')" "$peak"
"$VOX_ROOT/steps/train_backend.sh" "$work/system.yaml" "$train" "$work/embeddings_${train##*/}" "$work/backend" \
  2> "$work/step.log" || { cat "$work/step.log" >&2; exit 1; }
for list in "$lists"/*; do
  for backend in cosine plda; do
    "$VOX_ROOT/steps/score.sh" "$work/backend/$backend" "$work/embeddings_test" "$list" \
      "$work/scores/${list##*/}.$backend" 2> "$work/step.log" || { cat "$work/step.log" >&2; exit 1; }
    eer=$(python3 -m utils.metrics "$list" "$work/scores/${list##*/}.$backend" | sed -n 's/^eer *//p')
    echo "EER of ${list##*/}, $backend: $eer %"
  done
done
printf 'total %.0f s\n' "$total"
