#!/usr/bin/env bash
# shellcheck disable=SC2034,SC2154  # go_on_with passes options on; picked_* come from picked.sh
# Speaker verification on your own recordings, in any folders and formats (docs/own_corpus.md): makes the data and a summary
# of them, holds out test speakers, and picks sizes. The systems and further stages are those of egs/voxceleb.
# e.g.: egs/mycorpus/run.sh --corpus /corpora/mine --stop-stage 0
#       egs/mycorpus/run.sh --corpus /corpora/mine --meta recordings.csv --systems "ivector xvector" --set train.epochs=20
corpus=             # folder of the recordings
test=               # folder of the test speakers, laid out like the corpus (empty: hold speakers out of the corpus)
trials=             # trial list, with paths relative to --test or to the corpus (empty: make lists)
speaker_level=0     # level of the folders that are speakers, 1 for those in the corpus folder (0: found out)
speaker_regex=      # regular expression on the path below the corpus: group 1 or (?P<speaker>...); (?P<session>...)
meta=               # CSV or TSV with a header: path, speaker, session, gender and more; or speaker, gender and more
hard_by=            # columns of --meta in which the non-targets of the hard list agree (empty: gender, or else the first of few values)
test_share=0.2      # share of the speakers held out for tests, without --test and --trials
max_missing=0.0     # share of recordings that cannot be read, are silent or have no speaker; they are left out
max_duplicates=0.0  # share of recordings that belong to two speakers; they are left out
max_missing_trials=0.0 # share of the recordings of --trials that may not be there
systems="ivector xvector vgg_temporal vgg_statistics vgg_attention vgg_mha resnet_vgg" # names in conf/, or all
conf=               # folder with the systems' YAML files (empty: conf/ of egs/voxceleb)
backend=            # chains in place of the systems' own, as YAML: "[center, lda100, length, plda]" (empty: their own)
fuse=all            # systems whose scores are fused, too, by names; fusions separated by commas; all: every one (empty: none)
scale=auto          # full: the papers' settings; mini: for minutes on two CPU cores; auto: by the speakers and hours
set=                # keys of the systems' YAML files to change: "train.epochs=20 optimizer.lr=1e-3"; may be repeated
init=               # bundle, or folder of a trained network, to fine-tune; without --systems, its system (empty: train anew)
stage=0             # first stage to run
stop_stage=8        # last stage to run
work=               # folder of data/ and exp/ (empty: this folder)
nj=$(getconf _NPROCESSORS_ONLN)  # jobs per stage
ivector_nj=1        # jobs that share the training of an i-vector model (more than 1 pays on a cluster)
cmd=                # launcher of the jobs (empty: the one that cmd.sh names)
device=cpu          # device for networks and i-vectors: cpu or cuda
gpu_nj=0            # jobs that compute embeddings with --device cuda, a GPU each (0: the GPUs of this machine; 4 on an engine)
max_jobs_run=0      # systems that train at once on an engine (0: all); on this machine one after the other
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
valid_speakers=     # training speakers held out to validate networks on (empty: a tenth of them, 2 to 40)
# (no arguments)
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
root=$(cd "$here/../.." && pwd); steps=$root/steps local=$root/local
# shellcheck source=../../utils/parse_options.sh
. "$root/utils/parse_options.sh"
picks_sizes=true  # for recipe.sh
# shellcheck source=../../utils/recipe.sh
. "$root/utils/recipe.sh"
[ -n "$corpus" ] || [ "$stage" -gt 0 ] || bad_call "no corpus: name the folder of your recordings with --corpus DIR"

if stage 0 "data: summary; train, test, and held-out speakers to validate on"; then
  "$local/prepare_mycorpus.sh" --test "$test" --trials "$trials" --speaker-level "$speaker_level" \
    --speaker-regex "$speaker_regex" --meta "$meta" --hard-by "$hard_by" --test-share "$test_share" \
    --max-missing "$max_missing" --max-duplicates "$max_duplicates" --max-missing-trials "$max_missing_trials" \
    --max-shared-speakers "$max_shared_speakers" --nj "$nj" --seed "$seed" "$corpus" "$data"
  read_picked
  "$local/split_train.sh" --valid-speakers "${valid_speakers:-$picked_valid}" --speeds "$speeds" --seed "$seed" "$data"
  [ -z "$augment" ] || "$steps/augment_data.sh" --kinds "$augment" --musan-root "$musan_root" --rirs-root "$rirs_root" \
    --seed "$seed" "$data/train_net" "$data/train_aug"
fi

if [ "$scale" = auto ]; then
  read_picked
  scale=$picked_scale VOX_PICKED=$picked_set
fi
go_on_with "$root/egs/voxceleb/run.sh" corpus test trials speaker_level speaker_regex meta hard_by test_share max_duplicates
