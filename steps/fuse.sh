#!/usr/bin/env bash
# Fuse the scores of several systems to log-likelihood ratios: their weighted sum, by logistic regression on the labelled
# trials of other speakers. <train-scores> and <scores> name the systems' files in the same order, separated by spaces.
# e.g.: steps/fuse.sh data/valid/trials/valid "valid.xvector valid.vgg" data/test/trials/veri_test "test.xvector test.vgg" test.fused
prior=0.05          # probability of a target, for the fit and the threshold
train_quality=      # quality measures of the training trials' utterances: tables `utterance value`; log:TABLE takes logarithms
quality=            # the same of the other list's utterances, in the same order
max_shared_speakers=0.0 # share of the list's speakers that may also be in the training trials
# <train-trials> <train-scores> <trials> <scores> <llr-scores>
. "$(dirname "$0")/../utils/step.sh"
# shellcheck source=../utils/calibrate.sh
. "$(dirname "$0")/../utils/calibrate.sh"
