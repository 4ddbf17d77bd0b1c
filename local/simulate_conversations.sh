#!/usr/bin/env bash
# Make conversations of a corpus's test speakers, in VoxCeleb1's layout (local/simulate_corpus.sh makes one, too): wav/ and
# reference.rttm, for trying steps/diarize.sh.
# e.g.: local/simulate_conversations.sh --conversations 20 work/simulated work/conversations
conversations=20    # number of conversations
speakers=3          # most speakers in one; each has 2 or more
turns=16            # turns in each
overlap=0.1         # share of the turns that begin before the last one ends
seed=1              # random seed
# <corpus> <out>
. "$(dirname "$0")/../utils/step.sh"
corpus=$1; out=$2

require_file "$corpus/test/wav"
up_to_date "$out/.done" "$corpus/test/wav" && exit 0
step_begins
python3 -m local.simulate_conversations --conversations "$conversations" --speakers "$speakers" --turns "$turns" \
  --overlap "$overlap" --seed "$seed" "$corpus/test/wav" "$out"
mark_done "$out/.done" "$corpus/test/wav" -- "$out/reference.rttm" "$out"/wav/*.wav
