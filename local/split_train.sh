#!/usr/bin/env bash
# Split data/train into the sets for networks: valid (held-out training speakers with their own trials),
# train_net (the other training speakers) and train_sp (slower and faster copies of train_net, as new speakers; without
# audio, there are none).
# e.g.: local/split_train.sh --valid-speakers 10 data
valid_speakers=40   # training speakers held out to validate networks on
valid_trials=20000  # maximum number of trials among them
speeds=0.9,1.1      # speeds of the copies; 1x0.9: the same speed, formants at 0.9 times their frequency
seed=1              # random seed of the held-out speakers and their trials
# <data>
. "$(dirname "$0")/../utils/step.sh"
data=$1

sets=(valid train_net train_sp) table=wav.scp
[ -e "$data/train/wav.scp" ] || { sets=(valid train_net); table=feats.scp; }
require_file "$data/train"/{"$table",utt2spk}
inputs=("$data/train"/{"$table",utt2spk})
[ ! -e "$data/train/segments" ] || inputs+=("$data/train/segments")
up_to_date "$data/.done_split" "${inputs[@]}" && exit 0
detail python3 -m utils.kaldi.hold_out_speakers --speakers "$valid_speakers" --trials "$valid_trials" --seed "$seed" \
  "$data/train" "$data/valid" "$data/train_net"
[ "$table" = feats.scp ] || detail python3 -m utils.kaldi.perturb_speed --speeds "$speeds" "$data/train_net" "$data/train_sp"
outputs=("$data/valid/trials/valid")
for set in "${sets[@]}"; do
  validate "$data/$set"
  outputs+=("$data/$set"/{"$table",utt2spk,spk2utt})
done
mark_done "$data/.done_split" "${inputs[@]}" -- "${outputs[@]}"
