#!/usr/bin/env bash
# Train the chains of a system's configuration (`backend:`, see steps/backend/__init__.py) on its training embeddings. Writes
# a folder per chain: <backend>/<name>.
# e.g.: steps/train_backend.sh exp/xvector/system.yaml data/train exp/xvector/embeddings_train exp/xvector/backend
held_out=           # data directory whose speakers are left out, to calibrate on (empty: none)
copies_data=        # data directory of copies at other speeds, for chains with `copies`
copies_embeddings=  # embeddings of these copies
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
# <config> <data> <embeddings> <backend>
. "$(dirname "$0")/../utils/step.sh"
config=$1; data=$2; embeddings=$3; backend=$4

[ -n "$copies_data" ] && [ -n "$copies_embeddings" ] || [ -z "$copies_data$copies_embeddings" ] ||
  bad_call "--copies-data and --copies-embeddings belong together; give both or neither"
copies=()
[ -z "$copies_data" ] || copies=("$copies_data/utt2spk" "$copies_embeddings")
require_file "$config" "$data/utt2spk" ${held_out:+"$held_out/utt2spk"} ${copies_data:+"$copies_data/utt2spk"}
inputs=("$config" "$data/utt2spk" "$embeddings" ${held_out:+"$held_out/utt2spk"} ${copies[@]+"${copies[@]}"})
up_to_date "$backend/.done" "${inputs[@]}" && exit 0
estimate utils.jobs.memory train_backend embeddings="$embeddings" ${copies_embeddings:+"copies=$copies_embeddings"}
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} "$backend/log/train.log" \
  python3 -m steps.backend.train_backend ${held_out:+--held-out "$held_out"} ${copies[@]+--copies "${copies[@]}"} \
  "$config" "$data/utt2spk" "$embeddings" "$backend"
requests_end
shopt -s nullglob
mark_done "$backend/.done" "${inputs[@]}" -- "$backend"/*/{chain,speakers,*.vec,*.mat,plda,cohort.ark}
