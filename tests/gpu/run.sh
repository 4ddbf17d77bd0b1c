#!/usr/bin/env bash
# On a machine with a GPU: check that it computes what the CPU does, then print the benchmarks of training and extraction.
# e.g.: tests/gpu/run.sh --systems "xvector vgg_mha"
systems="xvector vgg_mha resnet34_tstp" # names in egs/voxceleb/conf to time
device=cuda         # cuda, or cpu to check the tests themselves
# (no arguments)
. "$(dirname "$0")/../../utils/step.sh"

VOX_TEST_DEVICE=$device python3 -m pytest -rs "$VOX_ROOT/tests/gpu"
"$VOX_ROOT/tests/bench/train.sh" --device "$device" --scale full --systems "$systems"
"$VOX_ROOT/tests/bench/extract.sh" --device "$device" --systems "$systems"
