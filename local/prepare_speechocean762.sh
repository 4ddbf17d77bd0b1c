#!/usr/bin/env bash
# Make data/train and data/test of speechocean762, with the trial lists all and hard (same gender and age group).
# e.g.: local/prepare_speechocean762.sh /corpora/speechocean762 data
speakers=250        # expected number of speakers
utterances=5000     # expected number of utterances
seed=1              # random seed of the non-targets
# <corpus> <data>
. "$(dirname "$0")/../utils/step.sh"
corpus=$1; data=$2

require_file "$corpus"/{train,test}/{wav.scp,utt2spk,spk2gender,spk2age}
inputs=("$corpus"/{train,test}/{wav.scp,utt2spk,spk2gender,spk2age})
up_to_date "$data/.done_prepare" "${inputs[@]}" && exit 0
detail python3 -m local.prepare_speechocean762 --speakers "$speakers" --utterances "$utterances" --seed "$seed" "$corpus" "$data"
for set in train test; do
  validate "$data/$set"
done
mark_done "$data/.done_prepare" "${inputs[@]}" -- \
  "$data"/{train,test}/{wav.scp,utt2spk,spk2utt,spk2gender,spk2age} "$data"/test/trials/{all,hard}
