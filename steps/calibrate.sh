#!/usr/bin/env bash
# Turn the scores of a list into log-likelihood ratios, by logistic regression on the labelled trials of other speakers,
# such as held-out training speakers. Beside the scores, calibration/<name>.json has the threshold for --prior.
# e.g.: steps/calibrate.sh data/valid/trials/valid valid.plda data/test/trials/veri_test exp/xvector/scores_test/veri_test.plda veri_test.llr
prior=0.05          # probability of a target, for the fit and the threshold
train_quality=      # quality measures of the training trials' utterances: tables `utterance value`; log:TABLE takes logarithms
quality=            # the same of the other list's utterances, in the same order
max_shared_speakers=0.0 # share of the list's speakers that may also be in the training trials
# <train-trials> <train-scores> <trials> <scores> <llr-scores>
. "$(dirname "$0")/../utils/step.sh"
# shellcheck source=../utils/calibrate.sh
. "$(dirname "$0")/../utils/calibrate.sh"
