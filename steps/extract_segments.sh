#!/usr/bin/env bash
# Embed segments taken at regular intervals from each utterance: writes segments.scp into the output directory. Each
# vector is the mean of the segments' unit-length embeddings. Systems that pool pairs get a matrix of the encoder's
# frames instead.
# e.g.: steps/extract_segments.sh --nj 4 exp/fast_resnet34_cap data/fbank40_hamming/test exp/fast_resnet34_cap/segments_test
nj=2                # number of jobs
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda
segments=10         # segments per utterance
segment_frames=350  # frames per segment; shorter utterances are repeated to this length
# <exp> <data> <out>
. "$(dirname "$0")/../utils/step.sh"
exp=$1; data=$2; out=$3

require_file "$exp/model.safetensors" "$exp/config.yaml" "$data/feats.scp"
inputs=("$exp"/{model.safetensors,config.yaml} "$data")
! leaves_unvoiced_out "$exp/config.yaml" || add_voicing "$data"
up_to_date "$out/.done" "${inputs[@]}" && exit 0
validate "$data"

gpu=()
[ "$device" = cpu ] || gpu=(--gpu 1)
mkdir -p "$out/log"
begin "$out/unfinished" "${inputs[@]}" || rm -f "$out"/{,.}segments.* "$out"/log/extract.*
estimate nnet.memory extract_segments exp="$exp" data="$data" segments="$segments" frames="$segment_frames" device="$device"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} ${gpu[@]+"${gpu[@]}"} "JOB=1:$nj" "$out/log/extract.JOB.log" \
  once "$out/unfinished/segments.JOB" "$out/segments.JOB.ark" "$out/segments.JOB.scp" -- \
  python3 -m steps.network.extract_segments --job JOB --nj "$nj" --device "$device" --segments "$segments" \
    --segment-frames "$segment_frames" "$exp" "$data" "$out"
requests_end
grep -h '^warning: ' "$out"/log/extract.*.log >&2 || true
python3 -m utils.kaldi.join_tables "$data/feats.scp" "$out/segments.scp" "$out"/segments.*.scp
echo "$segments" > "$out/num_segments"
mark_done "$out/.done" "${inputs[@]}"
rm -r "$out/unfinished"
