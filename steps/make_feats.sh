#!/usr/bin/env bash
# Compute MFCC or log mel features of a data directory, in Kaldi's conventions. The output is a complete data
# directory: the input's tables and trial lists, feats.scp, utt2num_frames, feats.conf. Features that are there already and
# were made elsewhere are kept.
# e.g.: steps/make_feats.sh --nj 4 conf/features/mfcc24.conf data/train data/mfcc24/train
nj=2                # number of jobs
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
compression=3       # Kaldi's compression method: 0 none, 1 (1 byte per value), 3 (2 bytes) ...
allow_pipes=false   # run commands in wav.scp
max_failed=0.0      # share of utterances that may fail; they are left out
# <conf> <data-in> <data-out>
. "$(dirname "$0")/../utils/step.sh"
conf=$1; in=$2; out=$3

made_elsewhere "$out/.done" "$out/feats.scp" "$in/utt2spk" "$out/feats.conf" && exit 0
require_file "$conf" "$in/wav.scp" "$in/utt2spk"
if up_to_date "$out/.done" "$conf" "$in"; then
  # Trial lists come along, but other ones do not make features stale.
  if ! in_status && [ -d "$in/trials" ] && ! diff -qr "$in/trials" "$out/trials" > /dev/null 2>&1; then
    rm -rf "$out/trials"
    cp -R "$in/trials" "$out"
  fi
  exit 0
fi
command=$(grep -sm 1 '| *$' "$in/wav.scp" || true)
[ "$allow_pipes" = true ] || [ -z "$command" ] ||
  die "$in/wav.scp: ${command%% *}: a command instead of a path; commands run only with --allow-pipes true"
validate "$in"
require_apart "$out" "$in"

# Scripts of an earlier run would point into archives that are about to change.
mkdir -p "$out/log"
begin "$out/unfinished" "$conf" "$in" ||
  rm -f "$out"/{feats,vad}.scp "$out/vad.conf" "$out"/{,.}{feats,vad}.[0-9]* "$out"/log/{make_feats,compute_vad,report,utt2num_frames}.*
estimate utils.jobs.memory make_feats data="$in"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} "JOB=1:$nj" "$out/log/make_feats.JOB.log" \
  once "$out/unfinished/feats.JOB" "$out"/{feats.JOB.ark,feats.JOB.scp,log/utt2num_frames.JOB,log/report.JOB.json} -- \
  python3 -m steps.feat.compute_feats --job JOB --nj "$nj" --compression "$compression" \
    --allow-pipes "$allow_pipes" "$conf" "$in" "$out"
requests_end
cp "$conf" "$out/feats.conf"
# Failed utterances may be repaired in place, so the jobs must read them again.
python3 -m steps.feat.collect_feats --nj "$nj" --max-failed "$max_failed" "$in" "$out" || { rm -r "$out/unfinished"; exit 1; }
mark_done "$out/.done" "$conf" "$in"
rm -r "$out/unfinished"
log "$out: features of $(wc -l < "$out/feats.scp") utterances"
