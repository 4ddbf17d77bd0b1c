#!/usr/bin/env bash
# Train a network and validate it on held-out speakers. If training is killed, the same command resumes it.
# e.g.: steps/train_network.sh --device cuda exp/xvector/system.yaml data/mfcc30/train_net data/mfcc30/valid exp/xvector
cmd=run             # launcher: run, or Kaldi's run.pl, queue.pl, slurm.pl
device=cpu          # cpu or cuda
num_threads=0       # threads of each process (0: all cores of this machine; 4 on an engine)
num_processes=1     # processes per node that share every batch, one per GPU
num_nodes=1         # number of nodes
seed=1              # random seed of weights, batches and masks
musan_root=         # MUSAN, for online augmentation (empty: synthetic noise, no music)
rirs_root=          # RIRS_NOISES, for online augmentation (empty: simulated rooms)
init=               # bundle, or folder of a trained network, to fine-tune (empty: as the configuration says)
max_shared_speakers=0.0 # share of the validation speakers that may also be trained on
# <config> <train-data> <valid-data> <exp>
. "$(dirname "$0")/../utils/step.sh"
config=$1; train=$2; valid=$3; exp=$4

require_file "$config" "$train/feats.scp" "$train/utt2spk" "$valid/feats.scp" "$valid/trials/valid"
network=$exp/network.yaml   # without the back-end, so that changing it does not repeat the training
! in_status || network=$VOX_SCRATCH/network.yaml
if in_dry_run; then network=$(mktemp); trap 'rm -f "$network"' EXIT; fi
from=(${init:+--init "$init"})
python3 -m nnet.config ${from[@]+"${from[@]}"} "$config" "$network"
inputs=("$network" "$train" "$valid")
grep -qs '"trials/valid"' "$valid/.done" || inputs+=("$valid/trials/valid")   # select_sets.sh records it
! leaves_unvoiced_out "$network" || add_voicing "$train" "$valid"
init=$(python3 -m utils.config get "$network" init.model --default "")   # a model to start from
case $init in "" | /*) ;; *) init=$(dirname "$exp")/$init ;; esac
[ -z "$init" ] || inputs+=("$init/model.safetensors")
[ -z "$init" ] || [ -f "$init/bundle.json" ] || inputs+=("$init/speakers")   # bundles do not name theirs
for model in $(python3 -m utils.config get "$network" distil.models --default ""); do   # models to learn from
  case $model in /*) ;; *) model=$(dirname "$exp")/$model ;; esac
  inputs+=("$model/model.safetensors")
done
pretrained=$(python3 -m utils.config get "$network" frontend.model --default "")   # a self-supervised one
[ -z "$pretrained" ] || inputs+=("$pretrained")
up_to_date "$exp/.done" "${inputs[@]}" && exit 0
validate "$train"
validate "$valid"
in_dry_run || python3 -m utils.kaldi.shared_speakers --max-shared-speakers "$max_shared_speakers" "$train" "$valid"
begin "$exp/unfinished" "${inputs[@]}" || rm -f "$exp"/{checkpoint,model}.safetensors

resources=(--num-threads "$((num_threads * num_processes))")
[ "$device" = cpu ] || resources+=(--gpu "$num_processes")
[ "$num_nodes" = 1 ] || resources+=(--nodes "$num_nodes")
start=(python3 -m)
[ "$((num_processes * num_nodes))" = 1 ] || start=(torchrun_here "$num_processes")
estimate nnet.memory train_network config="$network" train="$train" valid="$valid" processes="$num_processes" device="$device" \
  threads="$num_threads"
# shellcheck disable=SC2086  # cmd holds words
$cmd ${memory[@]+"${memory[@]}"} "${resources[@]}" "$exp/log/train.log" \
  "${start[@]}" nnet.training.train --device "$device" --num-threads "$num_threads" --seed "$seed" \
    ${musan_root:+--musan-root "$musan_root"} ${rirs_root:+--rirs-root "$rirs_root"} ${from[@]+"${from[@]}"} \
    "$config" "$train" "$valid" "$exp"
requests_end
mark_done "$exp/.done" "${inputs[@]}" -- "$exp"/{model.safetensors,config.yaml,versions.yaml,speakers,train_seconds}
rm -r "$exp/unfinished"
IFS=$'\t' read -r epoch _ loss _ _ eer _ < <(tail -n 1 "$exp/log/train.tsv")
log "epoch $epoch, loss $loss, valid EER $eer %"
