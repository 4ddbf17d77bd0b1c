#!/usr/bin/env bash
# The i-vector chain's steps, for example on minivox: seconds of each stage, the peak memory of a job, and the voiced
# frames that it sees; EERs; the total. The UBM sees frames as in Kaldi's recipe: 500,000 initially, then every fifth.
# e.g.: tests/bench/ivector.sh --gaussians 1024 --dim 400 work/data/mfcc24 work/data/test/trials
gaussians=256       # Gaussians
dim=200             # total factors
lda_dim=100         # dimensions after LDA, for the EERs
num_frames=500000   # frames of the UBM's initial iterations
subsample=5         # the later iterations see every so many-th frame (0: the same as the initial ones)
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
ubm: {num_gaussians: $gaussians, num_frames: $num_frames, subsample: $subsample}
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
line() {  # stage seconds peak-mb [frames]
  printf '%-34s %7.1f s   peak %5d MB%s\n' "$1" "$2" "$3" "${4:+   $4 frames}"
  total=$(awk -v a="$total" -v b="$2" 'BEGIN { print a + b }')
}
voiced() {  # data: prints the number of voiced frames
  python3 -c 'import sys; from utils.kaldi.ark import iterate; print(int(sum(x.sum() for _, x in iterate(sys.argv[1]))))' "$1/vad.scp"
}

measured "$work/ubm/log/train_ubm.log" train_ubm.sh "$work/system.yaml" "$train" "$work/ubm"
grep ' frames drawn from ' "$work/ubm/log/train_ubm.log"
while read -r spent frames stage; do
  line "$stage" "$spent" "$peak" "${frames#-}"
done < <(awk -v all="$seconds" '/ UBM, iteration / {
  stage = $1 == "full" ? 3 : $4 + 0 > 20 ? 2 : 1
  spent[stage] += $(NF - 1) - before; before = $(NF - 1); frames[stage] = $7
} END {
  print spent[1], frames[1], "draw frames, initial diagonal UBM"; print spent[2], frames[2], "diagonal UBM, 4 iterations"
  print spent[3], frames[3], "full UBM, 4 iterations"; print all - before, "-", "start, validation of that step"
}' "$work/ubm/log/train_ubm.log")
measured "$work/log/train_extractor.log" train_ivector_extractor.sh "$work/system.yaml" "$train" "$work/ubm" "$work"
line "posteriors, 5 extractor iterations" "$seconds" "$peak" "$(voiced "$train")"
both=0 utterances=0 frames=0
for set in "$train" "$data/test"; do
  out=$work/embeddings_${set##*/}
  measured "$out/log/*.log" extract_ivectors.sh --nj "$nj" "$work" "$set" "$out"
  both=$(awk -v a="$both" -v b="$seconds" 'BEGIN { print a + b }')
  utterances=$((utterances + $(wc -l < "$out/ivector.scp"))) frames=$((frames + $(voiced "$set")))
done
line "extraction of $utterances utterances" "$both" "$peak" "$frames"
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
