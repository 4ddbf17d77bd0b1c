#!/usr/bin/env bash
# One corpus in three layouts, as three kinds of users have it: speaker/session/file; one flat folder with a table; Kaldi's
# data directories, with segments of each session's recordings in one file. Prints a markdown table of the i-vectors' EERs
# in %, which are the same for all.
# e.g.: tests/bench/layouts.sh --work work/layouts ../shared/corpora/minivox
list=veri_test      # trial list of the corpus: its speakers are tested, all others trained on
set=                # keys of ivector.yaml to change, as in the recipe: "ubm.num_gaussians=32"
nj=2                # jobs
work=               # folder for the layouts and models (empty: a temporary one, removed at the end)
# <minivox>
. "$(dirname "$0")/../../utils/step.sh"
corpus=$(cd "$1" && pwd)
require_file "$corpus/$list.txt"
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
work=$(cd "$work" && pwd)

rm -rf "$work/layouts"
python3 - "$corpus" "$list" "$work/layouts" << 'END'
import os
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile

corpus, trials, out = Path(sys.argv[1]), (Path(sys.argv[1]) / f"{sys.argv[2]}.txt").read_text(), Path(sys.argv[3])
files = {path.relative_to(root).as_posix(): path for root in (corpus / "dev/wav", corpus / "test/wav")
         for path in sorted(root.rglob("*.flac"))}
tested = {word.split("/")[0] for line in trials.splitlines() for word in line.split()[1:]}


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


table = ["path,speaker,session"]
for name, path in files.items():
    for place in (out / "tree" / name, out / "flat" / name.replace("/", "_")):
        place.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path, place)
    table.append(",".join([name.replace("/", "_"), *name.split("/")[:2]]))
written(out / "tree.txt", trials)
written(out / "flat.txt", trials.replace("/", "_"))
written(out / "flat.csv", "\n".join([*table, ""]))

tables = {part: {name: [] for name in ("wav.scp", "segments", "utt2spk")} for part in ("train", "test")}
for session, names in groupby(sorted(files), key=lambda name: name.rpartition("/")[0]):
    speaker, recording = session.split("/")[0], session.replace("/", "-")
    found, start, samples = tables["test" if speaker in tested else "train"], 0, []
    for name in names:
        samples.append(soundfile.read(files[name], dtype="int16")[0])
        utterance, end = name.replace("/", "-").removesuffix(".flac"), start + len(samples[-1])
        # Half a sample later: Kaldi, and so this repository, takes the sample below a time, in floating point.
        seconds = [f"{(place + 0.5) / 16000:.8f}" for place in (start, end)]
        found["segments"].append(f"{utterance} {recording} {' '.join(seconds)}\n")
        found["utt2spk"].append(f"{utterance} {speaker}\n")
        start = end
    wav = out / "kaldi/audio" / f"{recording}.flac"
    wav.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(wav, np.concatenate(samples), 16000)
    found["wav.scp"].append(f"{recording} {wav}\n")
for part, found in tables.items():
    for name, lines in found.items():
        written(out / "kaldi" / part / name, "".join(lines))
    speakers = groupby((line.split() for line in found["utt2spk"]), key=lambda words: words[1])
    written(out / "kaldi" / part / "spk2utt", "".join(f"{speaker} {' '.join(name for name, _ in some)}\n"
                                                     for speaker, some in speakers))
kinds = {"1": "target", "0": "nontarget"}
written(out / "kaldi/test/trials", "".join(
    f"{' '.join(word.replace('/', '-').removesuffix('.flac') for word in pair)} {kinds[label]}\n"
    for label, *pair in map(str.split, trials.splitlines())))
END

recipe() {  # layout recipe option ...
  "$VOX_ROOT/egs/$2/run.sh" --work "$work/$1" --systems ivector --scale mini --valid-speakers 10 --nj "$nj" --fuse "" \
    --stop-stage 7 ${set:+--set "$set"} "${@:3}" > /dev/null
  awk -F '\t' -v layout="$1" 'NR > 1 { eer[$2] = $6 }
    END { printf "| %s | %s | %s |\n", layout, eer["cosine"], eer["plda"] }' "$work/$1/exp/results.tsv" >> "$work/table.md"
}
{ echo "| Layout | cosine | LDA-PLDA |"; echo "| --- | ---: | ---: |"; } > "$work/table.md"
layouts=$work/layouts
recipe tree mycorpus --corpus "$layouts/tree" --trials "$layouts/tree.txt"
recipe flat mycorpus --corpus "$layouts/flat" --meta "$layouts/flat.csv" --trials "$layouts/flat.txt"
recipe segments kaldi --train "$layouts/kaldi/train" --test "$layouts/kaldi/test"
cat "$work/table.md"
