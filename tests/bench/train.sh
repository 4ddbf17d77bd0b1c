#!/usr/bin/env bash
# Training steps of 64 x 200 x 80, the fast way (bf16, channels last, freed memory kept) and in fp32 with channels first,
# in one run. thin_resnet34 is wespeaker's r-vector with half its channels: 16 to 128.
# e.g.: tests/bench/train.sh --systems "xvector vgg_mha"
systems="xvector thin_resnet34" # names in egs/voxceleb/conf, or thin_resnet34
scale=mini          # full or mini
device=cpu          # cpu or cuda
num_threads=2       # threads on a CPU
steps=10            # steps to time
# (no arguments)
. "$(dirname "$0")/../../utils/step.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -R "$VOX_ROOT/egs/voxceleb/conf" "$work"
cat > "$work/conf/thin_resnet34.yaml" << END
base: xvector
features: fbank80
frontend: {deltas: 0, norm_vars: false}
encoder: {type: resnet, channels: [16, 32, 64, 128]}
END
for system in $systems; do
  for way in "bf16 true" "fp32 false"; do
    python3 -m tests.bench.train_steps --scale "$scale" --device "$device" --num-threads "$num_threads" --steps "$steps" \
      --batch-size 64 --chunk-frames 200 --precision "${way% *}" --channels-last "${way#* }" "$work/conf/$system.yaml"
  done
done
