#!/usr/bin/env bash
# Embed whole utterances with a trained network: writes xvector.scp into the output directory, unless
# one that was made elsewhere is there.
# e.g.: steps/extract_embeddings.sh --nj 4 exp/xvector data/mfcc30/test exp/xvector/embeddings_test
nj=2                # number of jobs
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda
max_frames=12000    # cut longer utterances into equal pieces and average their embeddings
# <exp> <data> <out>
. "$(dirname "$0")/../utils/step.sh"
exp=$1; data=$2; out=$3

made_elsewhere "$out/.done" "$out/xvector.scp" "$data/utt2spk" && exit 0
require_file "$exp/model.safetensors" "$exp/config.yaml" "$data/feats.scp"
inputs=("$exp"/{model.safetensors,config.yaml} "$data")
! leaves_unvoiced_out "$exp/config.yaml" || add_voicing "$data"
up_to_date "$out/.done" "${inputs[@]}" && exit 0
validate "$data"

gpu=()
[ "$device" = cpu ] || gpu=(--gpu 1)
mkdir -p "$out/log"
begin "$out/unfinished" "${inputs[@]}" || rm -f "$out"/{,.}xvector.* "$out"/log/extract.*
estimate nnet.memory extract_embeddings exp="$exp" data="$data" max_frames="$max_frames" device="$device"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} ${gpu[@]+"${gpu[@]}"} "JOB=1:$nj" "$out/log/extract.JOB.log" \
  once "$out/unfinished/xvector.JOB" "$out/xvector.JOB.ark" "$out/xvector.JOB.scp" -- \
  python3 -m steps.network.extract --job JOB --nj "$nj" --device "$device" --max-frames "$max_frames" "$exp" "$data" "$out"
requests_end
grep -h '^warning: ' "$out"/log/extract.*.log >&2 || true
python3 -m utils.kaldi.join_tables "$data/feats.scp" "$out/xvector.scp" "$out"/xvector.*.scp
mark_done "$out/.done" "${inputs[@]}"
rm -r "$out/unfinished"
