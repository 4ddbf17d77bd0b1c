#!/usr/bin/env bash
# Make a corpus of simulated speakers in VoxCeleb1's layout, to try a recipe where no corpus is at hand. It is no
# speech: ids, lists and results on it say so. (What is in it: python3 -m local.simulate_corpus --help)
# e.g.: local/simulate_corpus.sh --speakers 60 --seed 1 exp/simulated
speakers=60         # speakers, of both genders alike, a third of them to test on
utterances=20       # utterances of a speaker
sessions=5          # sessions of a speaker, which differ in room, microphone, noise and mood
telephone=0.0       # share of sessions over a telephone line
nj=2                # number of processes
seed=1              # of everything drawn at random
# <corpus>
. "$(dirname "$0")/../utils/step.sh"
corpus=$1

up_to_date "$corpus/.done" && exit 0
python3 -m local.simulate_corpus --speakers "$speakers" --utterances "$utterances" --sessions "$sessions" \
  --telephone "$telephone" --nj "$nj" --seed "$seed" "$corpus"
mark_done "$corpus/.done"
log "$corpus: $speakers simulated speakers"
