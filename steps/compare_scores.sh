#!/usr/bin/env bash
# Compare score files of one trial list: the equal error rate of each with its interval over speakers, and the difference
# from the first with its interval and the probability that it is due to the choice of speakers. <scores> are separated by
# spaces.
# e.g.: steps/compare_scores.sh data/test/trials/veri_test "exp/vgg_mha/scores_test/veri_test.plda exp/xvector/scores_test/veri_test.plda"
seed=1              # random seed of the drawn speakers
utt2spk=            # speakers of the list's utterances (empty: utt2spk of the list's data directory)
# <trials> <scores>
. "$(dirname "$0")/../utils/step.sh"

read -ra scores <<< "$2"
speakers=${utt2spk:-$(dirname "$1")/../utt2spk}
require_file "$1" "$speakers" "${scores[@]}"
python3 -m utils.bootstrap --seed "$seed" "$1" "$speakers" "${scores[@]}"
