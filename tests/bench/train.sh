#!/usr/bin/env bash
# Training steps of 64 x 200 x 80: the fast way (bf16, channels last), and in fp32 with the channels first in the same run.
# e.g.: tests/bench/train.sh --systems "xvector vgg_mha"
systems="xvector vgg_mha" # names in egs/voxceleb/conf
scale=mini          # full or mini
device=cpu          # cpu or cuda
num_threads=2       # threads on a CPU
steps=10            # steps that are timed
# (no arguments)
. "$(dirname "$0")/../../utils/step.sh"

for system in $systems; do
  for way in "bf16 true" "fp32 false"; do
    python3 -m nnet.bench --scale "$scale" --device "$device" --num-threads "$num_threads" --steps "$steps" \
      --batch-size 64 --chunk-frames 200 --precision "${way% *}" --channels-last "${way#* }" \
      "$VOX_ROOT/egs/voxceleb/conf/$system.yaml"
  done
done
