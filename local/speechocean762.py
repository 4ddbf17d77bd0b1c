"""The corpus speechocean762 (OpenSLR 101; Zhang et al., Interspeech 2021): its tables, and ids in VoxCeleb's form.

    train/{wav.scp,utt2spk,spk2gender,spk2age}, test/{...}    Kaldi's tables, separated by blanks or tabs
    WAVE/SPEAKER0024/000240010.WAV                            utterance 000240010 of speaker 0024

Ids: speaker 0024 is id20024. The sorted utterances of a speaker form groups of five, s1, s2, ..., in place of
VoxCeleb's videos, although they are not separate recordings. Utterance 000240010 becomes id20024-s1-00010.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError, first_five
from utils.kaldi.data_dir import read_text

SPEAKERS, UTTERANCES = 250, 5000
PARTS = ("train", "test")
GROUP = 5    # utterances
ADULT = 16   # years; the corpus has children up to 15 and adults from 19


class Speaker(NamedTuple):
    """A speaker with its utterances."""

    id: str                                 # e.g. id20024
    part: str                               # train or test
    gender: str                             # f or m
    age: int                                # years
    utterances: tuple[tuple[str, str], ...]  # (path below the speaker, e.g. s1/00010; audio file)

    @property
    def group(self) -> tuple[str, bool]:
        """Gender and age group."""
        return self.gender, self.age >= ADULT


def read_corpus(root: Path, speakers: int = SPEAKERS, utterances: int = UTTERANCES) -> list[Speaker]:
    """Return all speakers, sorted; raises InputError if tables disagree, audio is missing or counts are wrong."""
    found = [speaker for part in PARTS for speaker in read_part(root, part)]
    counts = len(found), sum(len(one.utterances) for one in found)
    if counts != (speakers, utterances):
        raise InputError(f"{root}: {counts[0]} speakers with {counts[1]} utterances, wanted {speakers} with "
                         f"{utterances}; unpack the archive again")
    missing = [path for one in found for _, path in one.utterances if not Path(path).is_file()]
    if missing:
        raise InputError(f"{root}: {len(missing)} recordings are missing: {first_five(missing)}; unpack the archive "
                         "again")
    return sorted(found)


def read_part(root: Path, part: str) -> list[Speaker]:
    """Return the speakers of train or test."""
    wav, owner, gender, age = (table(root / part / name) for name in ("wav.scp", "utt2spk", "spk2gender", "spk2age"))
    if wav.keys() != owner.keys():
        raise InputError(f"{root / part}: wav.scp and utt2spk list different utterances: "
                         f"{first_five(sorted(wav.keys() ^ owner.keys()))}; unpack the archive again")
    of_speaker: dict[str, list[str]] = {}
    for utterance in sorted(owner):
        of_speaker.setdefault(owner[utterance], []).append(utterance)
    unknown = [name for name in of_speaker if gender.get(name) not in ("f", "m") or not age.get(name, "").isdigit()]
    if unknown:
        raise InputError(f"{root / part}: no gender or age for {first_five(unknown)} in spk2gender or spk2age; unpack "
                         "the archive again")
    return [Speaker(f"id2{name}", part, gender[name], int(age[name]),
                    tuple((f"s{place // GROUP + 1}/{one[-4:]:0>5}", str(root / wav[one]))
                          for place, one in enumerate(names)))
            for name, names in of_speaker.items()]


def table(path: Path) -> dict[str, str]:
    """Return the first word of each line -> the second."""
    rows = [line.split() for line in read_text(path).splitlines()]
    bad = [number for number, row in enumerate(rows, start=1) if len(row) < 2]
    if bad:
        raise InputError(f"{path}:{bad[0]}: fewer than two fields; unpack the archive again")
    return {row[0]: row[1] for row in rows}


def paths(speakers: Sequence[Speaker]) -> dict[str, str]:
    """Return `speaker/session/utterance` -> audio file."""
    return {f"{one.id}/{place}": path for one in speakers for place, path in one.utterances}
