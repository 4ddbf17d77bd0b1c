#!/usr/bin/env bash
# Split data/train into the sets for networks: valid (held-out training speakers with their own trials),
# train_net (the other training speakers) and train_sp (slower and faster copies of train_net, as new speakers).
# e.g.: local/split_train.sh --valid-speakers 10 data
valid_speakers=40   # training speakers held out to validate networks on
valid_trials=20000  # maximum number of trials among them
speeds=0.9,1.1      # speeds of the copies
seed=1              # random seed of the held-out speakers and their trials
# <data>
. "$(dirname "$0")/../utils/step.sh"
data=$1

require_file "$data"/train/{wav.scp,utt2spk}
inputs=("$data"/train/{wav.scp,utt2spk})
up_to_date "$data/.done_split" "${inputs[@]}" && exit 0
detail python3 -m utils.kaldi.hold_out_speakers --speakers "$valid_speakers" --trials "$valid_trials" --seed "$seed" \
  "$data/train" "$data/valid" "$data/train_net"
detail python3 -m utils.kaldi.perturb_speed --speeds "$speeds" "$data/train_net" "$data/train_sp"
for set in valid train_net train_sp; do
  validate "$data/$set"
done
mark_done "$data/.done_split" "${inputs[@]}" -- "$data"/{valid,train_net,train_sp}/{wav.scp,utt2spk,spk2utt} "$data/valid/trials/valid"
