#!/usr/bin/env bash
# Make a recipe's data directories data/train and data/test, with the trial lists in data/test/trials, from Kaldi's data
# directories, which stay as they are. Only tables are copied.
# e.g.: local/prepare_kaldi.sh kaldi/data/train kaldi/data/voxceleb1_test data
trials=             # trial lists, separated by spaces (empty: the file trials of the test directory, or those in its trials/)
ready_features=     # name for the features that the directories have, as in conf/features (empty: compute them)
max_shared_speakers=0.0 # share of the test speakers that may also be trained on
# <train> <test> <data>
. "$(dirname "$0")/../utils/step.sh"
train=$1; test=$2; data=$3

read -ra lists <<< "$trials"
require_file "$train/utt2spk" "$test/utt2spk" ${lists[@]+"${lists[@]}"}
inputs=(${lists[@]+"${lists[@]}"}) sets=("$data"/{train,test})
for table in wav.scp segments reco2dur utt2spk spk2utt utt2speed utt2formants utt2augment utt2num_frames feats.scp vad.scp trials; do
  for folder in "$train" "$test"; do [ ! -e "$folder/$table" ] || inputs+=("$folder/$table"); done
done
up_to_date "$data/.done_prepare" "${inputs[@]}" && exit 0
python3 -m utils.kaldi.shared_speakers --max-shared-speakers "$max_shared_speakers" "$train" "$test"
detail python3 -m local.prepare_kaldi ${ready_features:+--ready "$ready_features"} \
  --trials ${lists[@]+"${lists[@]}"} -- "$train" "$test" "$data"
[ -z "$ready_features" ] || sets+=("$data/$ready_features"/{train,test})
outputs=("$data"/test/trials/*)
for set in "${sets[@]}"; do
  validate "$set"
  outputs+=("$set"/{utt2spk,spk2utt})
  for table in wav.scp segments feats.scp; do [ ! -e "$set/$table" ] || outputs+=("$set/$table"); done
done
mark_done "$data/.done_prepare" "${inputs[@]}" -- "${outputs[@]}"
log "train: $(wc -l < "$data/train/utt2spk") utterances, test: $(wc -l < "$data/test/utt2spk")"
