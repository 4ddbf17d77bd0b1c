#!/usr/bin/env bash
# Make a data directory of augmented copies of another: noise, music, babble, reverb, telephone. It only writes tables;
# steps/make_feats.sh applies them to the audio. Combine it with the original by utils.kaldi.combine_data.
# e.g.: steps/augment_data.sh --kinds "noise babble reverb" data/train_net data/train_aug
kinds="noise babble reverb telephone" # kinds of augmentation: noise, music, babble, reverb, telephone
copies=0            # copies per utterance, of kinds drawn at random (0: one of each kind)
musan_root=         # MUSAN, for noise and music (empty: synthetic noise, no music)
rirs_root=          # RIRS_NOISES, for room responses (empty: simulated rooms)
seed=1              # random seed
# <data-in> <data-out>
. "$(dirname "$0")/../utils/step.sh"
in=$1; out=$2

require_file "$in/wav.scp" "$in/utt2spk"
up_to_date "$out/.done" "$in" && exit 0
validate "$in"
read -ra words <<< "$kinds"
python3 -m steps.feat.plan_augmentation --kinds ${words[@]+"${words[@]}"} --copies "$copies" --seed "$seed" \
  ${musan_root:+--musan-root "$musan_root"} ${rirs_root:+--rirs-root "$rirs_root"} -- "$in" "$out"
mark_done "$out/.done" "$in"
