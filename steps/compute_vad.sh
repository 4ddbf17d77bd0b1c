#!/usr/bin/env bash
# Mark voiced frames by their energy, as Kaldi's compute-vad does: adds vad.scp to a data directory with MFCC. One that is
# there already and was made elsewhere is kept.
# e.g.: steps/compute_vad.sh --nj 4 conf/features/vad.conf data/mfcc24/train
nj=2                # number of jobs
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
# <conf> <data>
. "$(dirname "$0")/../utils/step.sh"
conf=$1; data=$2

require_file "$conf" "$data/feats.scp" "$data/utt2spk"
made_elsewhere "$data/.done_vad" "$data/vad.scp" "$data/feats.scp" "$data/vad.conf" && exit 0
up_to_date "$data/.done_vad" "$conf" "$data/feats.scp" && exit 0
validate "$data"

mkdir -p "$data/log"
begin "$data/unfinished_vad" "$conf" "$data/feats.scp" ||
  rm -f "$data"/vad.{conf,scp} "$data"/{,.}vad.[0-9]* "$data"/log/compute_vad.*
estimate utils.jobs.memory compute_vad data="$data"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} "JOB=1:$nj" "$data/log/compute_vad.JOB.log" \
  once "$data/unfinished_vad/vad.JOB" "$data/vad.JOB.ark" "$data/vad.JOB.scp" -- \
  python3 -m steps.feat.compute_vad --job JOB --nj "$nj" "$conf" "$data"
requests_end
grep -h '^warning: ' "$data"/log/compute_vad.*.log >&2 || true
python3 -m utils.kaldi.join_tables "$data/feats.scp" "$data/vad.scp" "$data"/vad.*.scp
cp "$conf" "$data/vad.conf"
mark_done "$data/.done_vad" "$conf" "$data/feats.scp" -- "$data"/vad.{conf,scp} "$data"/vad.*.ark
rm -r "$data/unfinished_vad"
log "$data: voice activity of $(wc -l < "$data/vad.scp") utterances"
