#!/usr/bin/env bash
# Write a UBM's posteriors and selected Gaussians as Kaldi files, post.scp and gselect.scp, to continue in Kaldi. The
# chain here does not need them: it computes posteriors when it uses them.
# e.g.: steps/make_posteriors.sh --nj 4 exp/ivector/system.yaml exp/ivector/ubm data/mfcc24/train exp/ivector/post
nj=2                # number of jobs
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
gselect=            # script of selected Gaussians, from here or Kaldi (empty: select by the UBM's diagonal)
text=false          # write text archives instead of binary ones
# <config> <ubm-dir> <data> <out>
. "$(dirname "$0")/../utils/step.sh"
config=$1; ubm=$2; data=$3; out=$4

require_file "$config" "$ubm/final.ubm" "$data/feats.scp" ${gselect:+"$gselect"}
without_backend "$config" "$out"
inputs=("$part" "$ubm/final.ubm" "$data" ${gselect:+"$gselect"})
add_voicing "$data"
up_to_date "$out/.done" "${inputs[@]}" && exit 0
validate "$data"

mkdir -p "$out/log"
begin "$out/unfinished" "${inputs[@]}" || rm -f "$out"/{,.}{post,gselect}.* "$out"/log/posteriors.*
format=()
[ "$text" = false ] || format=(--text)
estimate utils.jobs.memory make_posteriors config="$config" data="$data"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} "JOB=1:$nj" "$out/log/posteriors.JOB.log" \
  once "$out/unfinished/post.JOB" "$out/post.JOB.ark" "$out/post.JOB.scp" "$out/gselect.JOB.ark" "$out/gselect.JOB.scp" -- \
  python3 -m steps.ivector.posteriors --job JOB --nj "$nj" ${format[@]+"${format[@]}"} \
    ${gselect:+--gselect "$gselect"} "$config" "$ubm/final.ubm" "$data" "$out"
requests_end
grep -h '^warning: ' "$out"/log/posteriors.*.log >&2 || true
for kind in post gselect; do
  python3 -m utils.kaldi.join_tables "$data/feats.scp" "$out/$kind.scp" "$out/$kind".*.scp
done
mark_done "$out/.done" "${inputs[@]}"
rm -r "$out/unfinished"
