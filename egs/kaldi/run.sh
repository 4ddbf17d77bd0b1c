#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154  # go_on_with passes options on; read_facts sets the systems' facts
# Speaker verification on Kaldi's data directories as they are: with segments, with commands in wav.scp, with features that
# Kaldi has computed. Stage 0, the data, is its own; the systems and further stages are those of egs/voxceleb.
# e.g.: egs/kaldi/run.sh --train kaldi/data/train --test kaldi/data/voxceleb1_test --allow-pipes true --device cuda
#       egs/kaldi/run.sh --train kaldi/data/train --test kaldi/data/test --ready-features mfcc30 --systems xvector
train=              # Kaldi's data directory to train on
test=               # Kaldi's data directory of the trials
trials=             # trial lists, separated by spaces (empty: the file trials of the test directory, or those in its trials/)
ready_features=     # name in conf/features for the features that the directories have (empty: compute all)
systems="ivector xvector vgg_temporal vgg_statistics vgg_attention vgg_mha resnet_vgg" # names in conf/, or all
conf=               # folder with the systems' YAML files (empty: conf/ of egs/voxceleb)
backend=            # chains in place of the systems' own, as YAML: "[center, lda100, length, plda]" (empty: their own)
fuse=all            # systems whose scores are fused, too, by names; fusions separated by commas; all: every one (empty: none)
scale=full          # full: the papers' settings; mini: those of each YAML's block mini:, for minutes on two CPU cores
set=                # keys of the systems' YAML files to change: "train.epochs=20 optimizer.lr=1e-3"; may be repeated
init=               # bundle, or folder of a trained network, to fine-tune; without --systems, its system (empty: train anew)
stage=0             # first stage to run
stop_stage=8        # last stage to run
work=               # folder of data/ and exp/ (empty: this folder)
nj=$(getconf _NPROCESSORS_ONLN)  # jobs per stage
ivector_nj=1        # jobs that share the training of an i-vector model (more than 1 pays on a cluster)
gpu_nj=0            # jobs that compute embeddings with --device cuda, a GPU each (0: the GPUs of this machine; 4 on an engine)
max_jobs_run=0      # systems that train at once on an engine (0: all); on this machine one after the other
cmd=                # launcher of the jobs (empty: the one that cmd.sh names)
device=cpu          # device for networks and i-vectors: cpu or cuda
num_threads=0       # threads of each process that trains or scores (0: all cores of this machine; 4 on an engine)
num_processes=1     # processes per node that share the training of a network, one per GPU
num_nodes=1         # nodes that share the training of a network
status=false        # report whether each stage is done, stale, partial or to do, and why; run nothing
seed=1              # random seed
speeds=0.9,1.1      # speeds of the training speakers' copies; 1x0.9: the same speed, formants at 0.9 times their frequency
augment=            # kinds of augmented copies to train networks on, too: noise, music, babble, reverb, telephone
musan_root=         # MUSAN, for augmentation (empty: synthetic noise, no music)
rirs_root=          # RIRS_NOISES, for augmentation (empty: simulated rooms)
allow_pipes=false   # run commands in wav.scp
max_failed=0.0      # share of utterances whose audio may be damaged; they are left out
max_shared_speakers=0.0 # share of a list's speakers that may also be trained on
valid_speakers=40   # training speakers held out to validate networks on
# (no arguments)
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
root=$(cd "$here/../.." && pwd); steps=$root/steps local=$root/local
# shellcheck source=../../utils/parse_options.sh
. "$root/utils/parse_options.sh"
# shellcheck source=../../utils/recipe.sh
. "$root/utils/recipe.sh"

# Without audio, only the features that are there can be used.
require_audio() {
  local system
  for system in $systems; do
    read_facts "$system"
    [ "$features" = "$ready_features" ] && [[ " $sets " != *" train_sp "* ]] ||
      bad_call "$train has no wav.scp, but $system needs audio: it takes $features of the sets $sets"
  done
}

# A network that trains on audio reads whole files, again and again.
require_files() {
  local system found=segments
  [ -s "$train/segments" ] || found='commands in wav.scp'
  [ -s "$train/segments" ] || grep -q '|[[:space:]]*$' "$train/wav.scp" || return 0
  for system in $systems; do
    read_facts "$system"
    [ "$online" = false ] ||
      bad_call "$train has $found, but $system (online:) trains on whole audio files; write them, or choose other systems"
  done
}

if stage 0 "data: train, test, and held-out speakers to validate on"; then
  [ -n "$train" ] && [ -n "$test" ] || bad_call "wanted Kaldi's data directories: --train DIR --test DIR"
  if [ -e "$train/wav.scp" ]; then require_files; else require_audio; fi
  "$local/prepare_kaldi.sh" --trials "$trials" --ready-features "$ready_features" \
    --max-shared-speakers "$max_shared_speakers" "$train" "$test" "$data"
  "$local/split_train.sh" --valid-speakers "$valid_speakers" --speeds "$speeds" --seed "$seed" "$data"
  [ -z "$augment" ] || "$steps/augment_data.sh" --kinds "$augment" --musan-root "$musan_root" --rirs-root "$rirs_root" \
    --seed "$seed" "$data/train_net" "$data/train_aug"
fi

go_on_with "$root/egs/voxceleb/run.sh" train test trials ready_features
