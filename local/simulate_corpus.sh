#!/usr/bin/env bash
# Make a corpus of simulated speakers in VoxCeleb1's layout, for trying a recipe without a real corpus. It is not
# speech; ids, lists and results say so. python3 -m local.simulate_corpus --help describes the simulation.
# e.g.: local/simulate_corpus.sh --speakers 60 --seed 1 exp/simulated
speakers=60         # speakers, half of each gender; a third of them are test speakers
utterances=20       # utterances per speaker
sessions=5          # sessions per speaker, which differ in room, microphone, noise and mood
telephone=0.0       # share of sessions over a telephone line
nj=2                # number of processes
seed=1              # random seed
# <corpus>
. "$(dirname "$0")/../utils/step.sh"
corpus=$1

up_to_date "$corpus/.done" && exit 0
python3 -m local.simulate_corpus --speakers "$speakers" --utterances "$utterances" --sessions "$sessions" \
  --telephone "$telephone" --nj "$nj" --seed "$seed" "$corpus"
mark_done "$corpus/.done"
log "$corpus: $speakers simulated speakers"
