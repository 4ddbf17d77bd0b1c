#!/usr/bin/env bash
# shellcheck disable=SC2034  # go_on_with passes options on
# Speaker verification on speechocean762 (OpenSLR 101), free and real speech: downloads it, trains on its training speakers
# and tests on its test speakers. Stage 0, the data, is its own; the systems and further stages are those of egs/voxceleb.
# e.g.: egs/speechocean762/run.sh --scale mini
#       egs/speechocean762/run.sh --corpus /corpora/speechocean762 --systems "ivector vgg_mha" --scale mini
corpus=             # folder of the corpus (empty: download it into corpus/ of the work folder)
url=                # address of the archive to try before the known ones
speakers=250        # expected number of speakers in the corpus
utterances=5000     # expected number of utterances in the corpus
systems="ivector xvector vgg_temporal vgg_statistics vgg_attention vgg_mha resnet_vgg" # names in conf/, or all
conf=               # folder with the systems' YAML files (empty: conf/ of egs/voxceleb)
backend=            # chains in place of the systems' own, as YAML: "[center, lda100, length, plda]" (empty: their own)
fuse=all            # systems whose scores are fused, too, by names; fusions separated by commas; all: every one (empty: none)
scale=full          # full: the papers' settings; mini: those of each YAML's block mini:, for minutes on two CPU cores
set=                # keys of the systems' YAML files to change: "train.epochs=20 optimizer.lr=1e-3"; may be repeated
init=               # bundle, or folder of a trained network, to fine-tune; without --systems, its system (empty: train anew)
stage=0             # first stage to run
stop_stage=8        # last stage to run
work=               # folder of corpus/, data/ and exp/ (empty: this folder)
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
max_failed=0.0      # share of utterances whose audio may be damaged; they are left out
max_shared_speakers=0.0 # share of a list's speakers that may also be trained on
valid_speakers=10   # training speakers held out to validate networks on
# (no arguments)
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
root=$(cd "$here/../.." && pwd); steps=$root/steps local=$root/local
# shellcheck source=../../utils/parse_options.sh
. "$root/utils/parse_options.sh"
# shellcheck source=../../utils/recipe.sh
. "$root/utils/recipe.sh"

if stage 0 "corpus; data: train, test, and held-out speakers to validate on"; then
  [ -n "$corpus" ] || { "$local/get_speechocean762.sh" --url "$url" "$work/corpus"; corpus=$work/corpus/speechocean762; }
  "$local/prepare_speechocean762.sh" --speakers "$speakers" --utterances "$utterances" --seed "$seed" "$corpus" "$data"
  "$local/split_train.sh" --valid-speakers "$valid_speakers" --speeds "$speeds" --seed "$seed" "$data"
  [ -z "$augment" ] || "$steps/augment_data.sh" --kinds "$augment" --musan-root "$musan_root" --rirs-root "$rirs_root" \
    --seed "$seed" "$data/train_net" "$data/train_aug"
fi

go_on_with "$root/egs/voxceleb/run.sh" corpus url speakers utterances
