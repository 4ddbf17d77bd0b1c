#!/usr/bin/env bash
# Make a recipe's data directories from VoxCeleb corpora: train, test (with trial lists in test/trials), and valid,
# train_net and train_sp, which local/split_train.sh derives from train. With --join, test consists of test_single, those
# utterances, and test_joined, recordings that join several of a speaker (local/join_utterances.sh), with their own list.
# e.g.: local/prepare_data.sh --voxceleb1-root /corpora/VoxCeleb1 data
voxceleb1_root=     # VoxCeleb1, in any layout in circulation
voxceleb2_root=     # VoxCeleb2; its dev part joins the training data
train=              # what to train on: of voxceleb1, voxceleb2, voxceleb2-test (empty: the dev parts of the corpora given)
lists=              # trial lists to use, separated by spaces (empty: those found in the corpus folder)
valid_speakers=40   # training speakers held out to validate networks on
speeds=0.9,1.1      # speeds of the training speakers' copies; 1x0.9: the same speed, formants at 0.9 times their frequency
join=0              # utterances of a speaker that are joined for a further list, trials/joined<N> (0: no such list)
max_missing=0.0     # share of audio files that may be missing, empty or unreadable; they are left out
max_missing_trials=0.0 # share of trials that may lack audio; they are left out
max_shared_speakers=0.0 # share of a list's speakers that may also be trained on
seed=1              # random seed of the held-out speakers and their trials
# <data>
. "$(dirname "$0")/../utils/step.sh"
data=$1

roots=()
[ -z "$voxceleb1_root" ] || roots+=("$voxceleb1_root")
[ -z "$voxceleb2_root" ] || roots+=("$voxceleb2_root")
[ ${#roots[@]} -gt 0 ] || die "no corpus: name one with --voxceleb1-root DIR"
[ "$join" != 1 ] || bad_call "--join is 1, wanted 2 utterances or more, or 0 for no joined recordings"
read -ra lists <<< "$lists"
read -ra parts <<< "$train"
! in_status || require_file "${roots[@]}"
# List the corpus as it is now, so that adding, removing or replacing a file remakes the data.
corpus=$data/corpus
! in_status || corpus=$VOX_SCRATCH/corpus
python3 -m local.list_corpus "$corpus" "${roots[@]}" ${lists[@]+"${lists[@]}"}
single=$data/test_single joined=$data/test_joined inputs=("$corpus")
# As an input, wav.scp tells the size and time of each joined recording: those that are gone are made again.
[ "$join" = 0 ] || [ ! -s "$joined/wav.scp" ] || inputs+=("$joined/wav.scp")
up_to_date "$data/.done" "${inputs[@]}" && exit 0

detail python3 -m local.prepare_voxceleb ${voxceleb1_root:+--voxceleb1-root "$voxceleb1_root"} \
  ${voxceleb2_root:+--voxceleb2-root "$voxceleb2_root"} --max-missing "$max_missing" --max-missing-trials "$max_missing_trials" \
  --max-shared-speakers "$max_shared_speakers" ${parts[@]+--train "$(IFS=,; echo "${parts[*]}")"} \
  ${lists[@]+--lists "${lists[@]}" --} "$data"
inputs=("$corpus") outputs=()
if [ "$join" != 0 ]; then
  detail python3 -m utils.kaldi.copy_data_dir "$data/test" "$single"
  # Whatever the seed, these recordings and their list are the same, so that runs are comparable.
  "$(dirname "$0")/join_utterances.sh" --utterances "$join" "$single" "$joined"
  detail python3 -m local.add_utterances "$data/test" "$joined"
  inputs+=("$joined/wav.scp")
  outputs=("$joined/wav.scp" "$single"/{wav.scp,utt2spk,spk2utt})
fi
"$(dirname "$0")/split_train.sh" --valid-speakers "$valid_speakers" --speeds "$speeds" --seed "$seed" "$data"
for set in train test; do
  validate "$data/$set"
done
outputs+=("$data"/{train,test,valid,train_net,train_sp}/{wav.scp,utt2spk,spk2utt} "$data"/{test,valid}/trials/*)
for table in "$data"/{train,test}/spk2{gender,age}; do [ ! -e "$table" ] || outputs+=("$table"); done
mark_done "$data/.done" "${inputs[@]}" -- "${outputs[@]}"
