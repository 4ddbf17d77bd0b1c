#!/usr/bin/env bash
# The loader on one core, page cache warm: chunks of 200 x 80 from archives of 1, 2 and 4 bytes per value, and from a
# table of 1.1 million utterances (a sparse archive), with the memory of the table.
# e.g.: tests/bench/loader.sh --utterances 1100000
utterances=1100000  # utterances in the large table
steps=40            # batches of 64 to time
work=               # folder for the files (empty: a temporary one, removed at the end)
# (no arguments)
. "$(dirname "$0")/../../utils/step.sh"

if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
cat > "$work/loader.py" << 'END'
import resource
import sys
import time
from pathlib import Path

import numpy as np

from nnet.config import network_config
from nnet.training.data import TrainingSet
from utils.kaldi.ark import ArkWriter
from utils.kaldi.compressed import Header

FRAMES, REAL = 800, 2000  # frames of an utterance, utterances of the small table
CONFIG = {"kind": "network", "features": "fbank80", "frontend": {"cmn": "chunk"}, "encoder": {"type": "tdnn"},
          "pooling": {"type": "statistics"}, "head": {"layers": [{"dim": 8, "embedding": "output"}]},
          "train": {"epochs": 1, "chunk_frames": 200, "batch_size": 64}}


def write_tables(folder, ids, places):
    for name, values in (("feats.scp", places), ("utt2spk", (i[:7] for i in ids)), ("utt2num_frames", [FRAMES] * len(ids))):
        with open(folder / name, "w") as stream:
            stream.writelines(f"{name} {value}\n" for name, value in zip(ids, values, strict=True))


def small(folder, compression):
    folder.mkdir()
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(FRAMES, 80))
    ids = [f"id{row // 10:05}-{row:05}" for row in range(REAL)]
    with ArkWriter(folder / "feats", compression) as writer:
        for name in ids:
            writer.write(name, np.roll(frames, 1, axis=0))
    places = [line.split(" ", 1)[1].strip() for line in open(folder / "feats.scp")]
    write_tables(folder, ids, places)


def large(folder, count):
    """A sparse archive with 20,000 headers, to which the lines of the table point."""
    folder.mkdir()
    header = b"\0B" + Header("CM2", np.float32(-5), np.float32(10), FRAMES, 80).to_bytes()
    size = 1 << 18
    with open(folder / "feats.ark", "wb") as stream:
        for row in range(20000):
            stream.seek(row * size)
            stream.write(header)
        stream.truncate(20000 * size)
    ids = [f"id{row // 183:05}-{'x' * 11}-{row:07}" for row in range(count)]
    write_tables(folder, ids, (f"{folder}/feats.ark:{row % 20000 * size}" for row in range(count)))


def memory_mb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1024


what, folder, steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if what.startswith("make"):
    large(folder, int(sys.argv[4])) if what == "make-large" else small(folder, int(sys.argv[4]))
    sys.exit()
before, started = memory_mb(), time.perf_counter()
data = TrainingSet(folder, network_config(CONFIG, "bench"), 1)
opened = time.perf_counter() - started
for step in range(steps):
    data.batch(step)  # into the page cache
used, best = resource.getrusage(resource.RUSAGE_SELF).ru_utime, []
for step in range(steps):
    started = time.perf_counter()
    data.batch(step)
    best.append(time.perf_counter() - started)
print(f"{what:34} {64 / np.median(best):7.0f} chunks/s (best batch {64 / min(best):.0f}), opened in {opened:.1f} s, "
      f"{memory_mb() - before:.0f} MB more than Python and torch's {before:.0f} MB")
END
for method in 2 3 0; do
  name=$(case $method in 2) echo "1 byte per value (CM)" ;; 3) echo "2 bytes per value (CM2)" ;; 0) echo "4 bytes per value" ;; esac)
  python3 "$work/loader.py" make-small "$work/$method" 0 "$method"
  python3 "$work/loader.py" "$name" "$work/$method" "$steps"
done
python3 "$work/loader.py" make-small "$work/5" 0 5
python3 "$work/loader.py" "1 byte per value (CM3)" "$work/5" "$steps"
python3 "$work/loader.py" make-large "$work/large" 0 "$utterances"
python3 "$work/loader.py" "$utterances utterances, 2 bytes" "$work/large" "$steps"
