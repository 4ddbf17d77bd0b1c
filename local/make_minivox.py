"""Make minivox, 150 speakers of speechocean762 in VoxCeleb1's layout: the test bed for this repository's results.

    dev/wav/<speaker>/<session>/<utterance>.flac    110 speakers of the corpus's train part
    test/wav/...                                     40 speakers of its test part
    veri_test.txt, veri_test_hard.txt                15,200 trials each, half of them target
    meta.csv                                         speaker_id, gender, age, set

Ids are those of local/speechocean762.py; samples are unchanged. egs/speechocean762/minivox/speakers lists the speakers.
Targets are all pairs of a test speaker's utterances; the non-targets were once drawn at random and are kept in
egs/speechocean762/minivox/*.nontargets.xz. The lists hold the same trials as the original ones, sorted.
e.g.: python3 -m local.make_minivox /corpora/speechocean762 /corpora/minivox
"""

import argparse
import lzma
import os
import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import soundfile

from local.speechocean762 import SPEAKERS, UTTERANCES, Speaker, paths, read_corpus
from utils.errors import InputError, first_five, run_main
from utils.files import write_aside
from utils.kaldi.data_dir import read_text
from utils.progress import progress

KEPT = Path(__file__).resolve().parents[1] / "egs/speechocean762/minivox"
SETS = {"train": "dev", "test": "test"}


def choose(speakers: Sequence[Speaker]) -> list[Speaker]:
    """Return the 150 speakers; raises InputError if one is missing or in the wrong part."""
    wanted = dict(line.split() for line in read_text(KEPT / "speakers").splitlines())
    chosen = [one for one in speakers if wanted.get(one.id) == SETS[one.part]]
    missing = sorted(wanted.keys() - {one.id for one in chosen})
    if missing:
        raise InputError(f"{len(missing)} of {len(wanted)} speakers are missing or misplaced: {first_five(missing)}; "
                         "unpack the archive again")
    return chosen


def read_trials(name: str, speakers: Sequence[Speaker]) -> list[str]:
    """Return the sorted lines `1|0 <path> <path>` of a list."""
    targets = [f"1 {one.id}/{first}.flac {one.id}/{second}.flac\n" for one in speakers if one.part == "test"
               for (first, _), (second, _) in combinations(one.utterances, 2)]
    with lzma.open(KEPT / f"{name}.nontargets.xz", "rt", encoding="utf-8") as lines:
        return sorted(targets + [f"0 {first}.flac {second}.flac\n" for first, second in map(str.split, lines)])


def write_corpus(speakers: Sequence[Speaker], root: Path) -> None:
    """Write audio, lists and meta.csv of the chosen speakers to `root`, which appears complete or not at all."""
    if os.path.lexists(root):
        raise InputError(f"{root} exists; remove it or name another folder")
    aside = root.parent / f".{root.name}.unfinished"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for one in progress(speakers, len(speakers), "minivox", "speakers"):
            for place, file in paths([one]).items():
                target = aside / SETS[one.part] / "wav" / f"{place}.flac"
                target.parent.mkdir(parents=True, exist_ok=True)
                samples, rate = soundfile.read(file, dtype="int16")
                soundfile.write(target, samples, rate, subtype="PCM_16")
        for name in ("veri_test", "veri_test_hard"):
            with write_aside(aside / f"{name}.txt") as stream:
                stream.writelines(read_trials(name, speakers))
        with write_aside(aside / "meta.csv") as stream:
            stream.write("speaker_id\tgender\tage\tset\n")
            stream.writelines(f"{one.id}\t{one.gender}\t{one.age}\t{SETS[one.part]}\n" for one in speakers)
        os.rename(aside, root)
    except soundfile.LibsndfileError as error:
        raise InputError(f"{file}: {error}; unpack the archive again") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--speakers", type=int, default=SPEAKERS, help="in the whole corpus (default: %(default)s)")
    parser.add_argument("--utterances", type=int, default=UTTERANCES, help="in the whole corpus (default: %(default)s)")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("root", type=Path)
    arguments = parser.parse_args()
    write_corpus(choose(read_corpus(arguments.corpus, arguments.speakers, arguments.utterances)), arguments.root)


if __name__ == "__main__":
    run_main(main)
