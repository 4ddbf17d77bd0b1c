#!/usr/bin/env bash
# Join utterances of the same speaker into long recordings, with pauses between them, and noise in the pauses and under the
# speech: a data directory with audio (flac/), a trial list and joined_from, the utterances of each recording.
# e.g.: local/join_utterances.sh --utterances 3 data/test data/test_joined
utterances=3        # utterances in a recording, of as many sessions as possible
recordings=18       # recordings per speaker: of few utterances, each is in several, every time with others
pauses=0.5,2        # shortest and longest pause, seconds
snr=20              # dB from the noise up to the speech
seed=1              # random seed of the choice, the pauses, the noise and the non-targets
# <data-in> <data-out>
. "$(dirname "$0")/../utils/step.sh"
in=$1; out=$2

require_file "$in/wav.scp" "$in/utt2spk"
inputs=("$in"/{wav.scp,utt2spk})
# As an input, wav.scp tells the size and time of each recording: those that are gone or replaced are made again.
made=()
[ ! -s "$out/wav.scp" ] || made=("$out/wav.scp")
up_to_date "$out/.done" "${inputs[@]}" ${made[@]+"${made[@]}"} && exit 0
step_begins
detail python3 -m local.join_utterances --utterances "$utterances" --recordings "$recordings" --pauses "$pauses" --snr "$snr" \
  --seed "$seed" "$in" "$out"
[ -z "${VOX_SCRATCH:-}" ] || rm -f "$VOX_SCRATCH"/audio.*  # sizes and times of what was there before
outputs=("$out"/{wav.scp,utt2spk,spk2utt,joined_from} "$out"/trials/*)
mark_done "$out/.done" "${inputs[@]}" "$out/wav.scp" -- "${outputs[@]}"
