#!/usr/bin/env bash
# shellcheck disable=SC2154  # facts and paths come from read_facts and of_members
# Speaker verification on VoxCeleb: attention-pooled embeddings, x-vectors and i-vectors, stage by
# stage from wav files to one table and figures. Finished stages are skipped. Without a corpus, it simulates speakers
# and runs the whole system on them within minutes, in first_look/ here.
# e.g.: egs/voxceleb/run.sh
#       egs/voxceleb/run.sh --voxceleb1-root /corpora/VoxCeleb1 --systems "ivector xvector vgg_mha" --device cuda
voxceleb1_root=     # VoxCeleb1, in any layout in circulation; or the word simulated, for simulated speakers
voxceleb2_root=     # VoxCeleb2; its dev part joins the training data
train=              # what to train on: of voxceleb1, voxceleb2, voxceleb2-test (empty: the dev parts of the corpora given)
lists=              # trial lists to use, separated by spaces (empty: those found in the corpus folder)
join=0              # utterances of a test speaker that are joined for a further list, joined<N> (0: no such list)
systems="ivector xvector vgg_temporal vgg_statistics vgg_attention vgg_mha resnet_vgg" # names in conf/, or all
conf=               # folder with the systems' YAML files (empty: conf/ here)
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
max_missing=0.0     # share of audio files that may be missing, empty or unreadable
allow_pipes=false   # run commands in wav.scp, for data directories that hold some
max_failed=0.0      # share of utterances whose audio may be damaged; they are left out
max_missing_trials=0.0 # share of trials that may lack audio
max_shared_speakers=0.0 # share of a list's speakers that may also be trained on
valid_speakers=     # training speakers held out to validate networks on (empty: 40, mini 10)
simulated_speakers=60 # speakers of the simulated corpus; a third of them are test speakers
# (no arguments)
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
root=$(cd "$here/../.." && pwd); steps=$root/steps local=$root/local
# shellcheck source=../../utils/parse_options.sh
. "$root/utils/parse_options.sh"
# Without a corpus or a stage: a first look, in its own folder. Options that are given take precedence.
if ! given voxceleb1_root && ! given voxceleb2_root && ! given stage; then
  default_to valid_speakers 5
  default_to systems "ivector vgg_attention vgg_mha"
  default_to scale mini
  default_to work "$here/first_look"
  default_to voxceleb1_root simulated
fi
# shellcheck source=../../utils/recipe.sh
. "$root/utils/recipe.sh"

[ -n "$valid_speakers" ] || valid_speakers=$([ "$scale" = mini ] && echo 10 || echo 40)

if stage 0 "data directories: train, test, and held-out speakers to validate on"; then
  corpus=$voxceleb1_root
  if [ "$corpus" = simulated ]; then
    corpus=$work/simulated
    "$local/simulate_corpus.sh" --speakers "$simulated_speakers" --nj "$nj" --seed "$seed" "$corpus"
  fi
  "$local/prepare_data.sh" --voxceleb1-root "$corpus" --voxceleb2-root "$voxceleb2_root" \
    --max-missing "$max_missing" --max-missing-trials "$max_missing_trials" \
    --max-shared-speakers "$max_shared_speakers" --train "$train" --lists "$lists" --join "$join" \
    --valid-speakers "$valid_speakers" --speeds "$speeds" --seed "$seed" "$data"
  [ -z "$augment" ] || "$steps/augment_data.sh" --kinds "$augment" --musan-root "$musan_root" --rirs-root "$rirs_root" \
    --seed "$seed" "$data/train_net" "$data/train_aug"
fi

if stage 1 "features and voice activity"; then
  for features in $(each features); do
    for name in $(each sets features "$features"); do
      "$steps/make_feats.sh" "${jobs[@]}" --allow-pipes "$allow_pipes" --max-failed "$max_failed" \
        "$conf/features/$features.conf" "$data/$name" "$data/$features/$name"
    done
  done
  for features in $(each features vad true); do
    for name in $(each sets features "$features"); do
      "$steps/compute_vad.sh" "${jobs[@]}" "$conf/features/vad.conf" "$data/$features/$name"
    done
  done
  for features in $(each features kind network); do
    "$local/select_sets.sh" "$data" "$data/$features"
  done
fi

if stage 2 "i-vectors: background model, then total-variability matrix"; then
  train_ivector() {
    "$steps/train_ubm.sh" --nj "$ivector_nj" "${threads[@]}" --device "$device" --seed "$seed" \
      "$config" "$feats/train" "$exp/$system/ubm" &&
      "$steps/train_ivector_extractor.sh" --nj "$ivector_nj" "${threads[@]}" --device "$device" --seed "$seed" \
        "$config" "$feats/train" "$exp/$system/ubm" "$exp/$system"
  }
  for_each ivector train_ivector
fi

if stage 3 "networks: training, validated on the held-out speakers"; then
  train_one() {
    "$steps/train_network.sh" ${noises[@]+"${noises[@]}"} "${threads[@]}" --device "$device" \
      --num-processes "$num_processes" --num-nodes "$num_nodes" --max-shared-speakers "$max_shared_speakers" --seed "$seed" \
      "$config" "$feats/$train_set" "$feats/valid" "$exp/$system"
  }
  for_each network train_one
fi

if stage 4 "embeddings of utterances, and of segments for systems that score them"; then
  for system in $systems; do
    read_facts "$system"
    if [ "$kind" = ivector ]; then extract=extract_ivectors.sh; else extract=extract_embeddings.sh; fi
    for name in train test $([ "$copies" = false ] || echo train_sp); do
      "$steps/$extract" "${device_jobs[@]}" --device "$device" "$exp/$system" "$feats/$name" "$exp/$system/embeddings_$name"
    done
    [ -z "$segments" ] || "$steps/extract_segments.sh" "${device_jobs[@]}" --device "$device" \
      "$exp/$system" "$feats/test" "$exp/$system/segments_test"
  done
fi

if stage 5 "back-ends: on all training speakers, and without the held-out ones for calibration"; then
  for system in $systems; do
    read_facts "$system"
    [ -n "$chains" ] || continue
    with_copies=()
    [ "$copies" = false ] ||
      with_copies=(--copies-data "$data/train_sp" --copies-embeddings "$exp/$system/embeddings_train_sp")
    "$steps/train_backend.sh" --cmd "$cmd" ${with_copies[@]+"${with_copies[@]}"} \
      "$config" "$data/train" "$exp/$system/embeddings_train" "$exp/$system/backend"
    "$steps/train_backend.sh" --cmd "$cmd" ${with_copies[@]+"${with_copies[@]}"} --held-out "$data/valid" \
      "$config" "$data/train" "$exp/$system/embeddings_train" "$exp/$system/held_out/backend"
  done
fi

if stage 6 "scores of every trial list and of the held-out speakers; thresholds and fusions from the latter"; then
  for system in $systems; do
    read_facts "$system"
    for chain in $chains; do
      for trials in "$data"/test/trials/*; do
        "$steps/score.sh" "${threads[@]}" --max-shared-speakers "$max_shared_speakers" "$exp/$system/backend/$chain" \
          "$exp/$system/embeddings_test" "$trials" "$exp/$system/scores_test/${trials##*/}.$chain"
      done
      "$steps/score.sh" "${threads[@]}" --max-shared-speakers "$max_shared_speakers" "$exp/$system/held_out/backend/$chain" \
        "$exp/$system/embeddings_train" "$data/valid/trials/valid" "$exp/$system/held_out/scores/valid.$chain"
    done
    [ -z "$chains" ] || "$steps/train_calibration.sh" "$data/valid/trials/valid" "$exp/$system/held_out/scores/valid" \
      "$chains" "$exp/$system/calibration.json"
    [ -n "$segments" ] || continue
    for trials in "$data"/test/trials/*; do
      "$steps/score_segments.sh" "${threads[@]}" --device "$device" --max-shared-speakers "$max_shared_speakers" \
        "$exp/$system" "$exp/$system/segments_test" "$trials" "$exp/$system/scores_test/${trials##*/}.$segments"
    done
  done
  for fusion in ${fusions[@]+"${fusions[@]}"}; do
    for chain in $(each chains); do
      of_members "$fusion" "$chain" "held_out/scores/valid.$chain"
      [ "$number" -gt 1 ] || continue
      held_out=$paths
      for trials in "$data"/test/trials/*; do
        of_members "$fusion" "$chain" "scores_test/${trials##*/}.$chain"
        code=0
        "$steps/fuse.sh" --max-shared-speakers "$max_shared_speakers" "$data/valid/trials/valid" "$held_out" \
          "$trials" "$paths" "$exp/${fusion%% *}/scores_test/${trials##*/}.$chain" || code=$?
        [ "$code" = 0 ] || [ "$code" = 4 ] || exit 1  # 4: too weak on the held-out speakers to be fused
      done
    done
  done
fi

if stage 7 "table exp/RESULTS.md"; then
  "$steps/table.sh" --command "$VOX_CALL" "$work"
fi

if stage 8 "figures exp/figures/, one page with table and figures, exp/report.html, and bundles exp/<system>/bundle"; then
  "$steps/report.sh" --command "$VOX_CALL" "$work"
  for system in $systems; do
    "$steps/bundle.sh" "$exp/$system" "$exp/$system/bundle"
  done
fi
recipe_ended
