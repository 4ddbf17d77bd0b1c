"""VoxCeleb's files: find the audio in a corpus folder, in every layout in circulation, and assign ids.

    dev/wav/<speaker>/<video>/<utterance>.wav, test/wav/...      VoxCeleb1 since 2018
    dev/aac/<speaker>/<video>/<utterance>.m4a, test/aac/...      VoxCeleb2
    wav/<speaker>/<video>/<utterance>.wav                        dev and test merged into one folder
    voxceleb1_wav/<name>/<video>_<7 digits>.wav                  the first release of VoxCeleb1

and mixtures: the folder of speakers may lie deeper (vox1_dev_wav/wav, VoxCeleb1/wav), or be the given
folder itself, and the audio may have any supported format. Utterance ids are <speaker>-<video>-<utterance>;
vox1_meta.csv maps the names of the first release to ids.
"""

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError
from utils.kaldi.table_values import BAD_ID
from utils.progress import progress

FORMATS = (".wav", ".flac", ".m4a", ".aac", ".ogg", ".opus", ".mp3")  # in order of preference
# The names of folders above the speakers' folders consist of these words.
CONTAINER_WORDS = {"vox", "voxceleb", "dev", "train", "test", "merged", "audio", "data"} | {
    suffix[1:] for suffix in FORMATS}
FIRST_RELEASE = re.compile(r"(.{11})_(\d{5,7})")  # video, utterance
DEPTH = 4  # limit on folders above, and on folders below a speaker; stops loops of symbolic links


class Utterance(NamedTuple):
    """An audio file of a corpus."""

    id: str
    speaker: str
    path: str
    part: str  # dev, test, or merged if the layout does not distinguish them


def find_utterances(root: Path, number: int, names: Mapping[str, str]) -> list[Utterance]:
    """Find the audio of VoxCeleb<number> under `root`, sorted by id.

    names: folder name -> speaker id, see `read_names`.
    Raises InputError if the folder has no audio or two files have the same id.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a directory; name the folder of VoxCeleb{number}")
    top = os.path.abspath(root)
    if not os.path.samefile(top, root):  # `..` after a symbolic link
        top = os.path.realpath(root)
    folders = [(part, folder.path) for part, parent in speaker_parents(top, number)
               for folder in sub_folders(parent)]
    found: dict[str, Utterance] = {}
    with ThreadPoolExecutor(8) as pool:  # hides the latency of network file systems
        scans = pool.map(lambda folder: sorted(audio_files(folder[1], DEPTH)), folders)
        scans = progress(scans, len(folders), f"scan {root}", "speakers")
        for (part, folder), files in zip(folders, scans, strict=True):
            for file in files:
                add_file(found, part, folder, file, names)
    if not found:
        raise InputError(f"{root}: contains no audio ({' '.join(FORMATS)}) in <speaker>/<video>/<utterance>; "
                         f"name the folder of VoxCeleb{number}")
    return sorted(found.values())


def add_file(found: dict[str, Utterance], part: str, folder: str, file: str,
             names: Mapping[str, str]) -> None:
    """Add a file in the speaker's `folder` to `found`, id -> utterance."""
    path = f"{folder}/{file}"
    one, speaker = utterance_id(f"{os.path.basename(folder)}/{file}", names)
    try:
        path.encode("utf-8")
        fine = "\n" not in path and not BAD_ID.search(one)
    except UnicodeEncodeError:
        fine = False
    if not fine:
        raise InputError(f"{path!r}: its name has control characters, `..` or bytes that are not UTF-8; "
                         "rename it")
    entry = Utterance(one, speaker, path, part)
    other = found.setdefault(one, entry)
    if other is entry:
        return
    if rank(path) == rank(other.path):
        raise InputError(f"{path} and {other.path} are both utterance {one}; name a folder that holds only one "
                         "of them")
    found[one] = min(entry, other, key=lambda utterance: rank(utterance.path))


def rank(path: str) -> int:
    """Return the position of a file's format in FORMATS; of two files of an utterance, the lower one is used."""
    return FORMATS.index(os.path.splitext(path)[1].lower())


def utterance_id(relative: str, names: Mapping[str, str]) -> tuple[str, str]:
    """Return utterance and speaker of `<speaker>/<video>/<utterance>.wav`; both are empty for other paths.

    Folders above the speaker are skipped. Blanks, which are not allowed in ids, become `_`.
    """
    stem, suffix = os.path.splitext(relative)
    parts = (stem if suffix.lower() in FORMATS else relative).split("/")
    while parts and is_container(parts[0]):
        parts = parts[1:]
    if len(parts) < 2 or not all(parts):
        return "", ""
    first_release = FIRST_RELEASE.fullmatch(parts[1]) if len(parts) == 2 else None
    if first_release:
        parts[1:] = first_release[1], f"{int(first_release[2]):05}"
    speaker = re.sub(r"\s", "_", names.get(parts[0], parts[0]))
    return "-".join([speaker, *(re.sub(r"\s", "_", part) for part in parts[1:])]), speaker


def is_container(name: str, number: int | None = None) -> bool:
    """Whether a folder's name denotes a part or format, not a speaker. number: 1 or 2 for VoxCeleb1 or 2, None: any."""
    numbers = "12" if number is None else str(number)
    return all(word in CONTAINER_WORDS or (word[:-1] in ("vox", "voxceleb") and word[-1] in numbers)
               for word in folder_words(name))


def folder_words(name: str) -> list[str]:
    """Return the words of a folder's name: `vox1`, `dev`, `wav` for `vox1_dev_wav`."""
    return re.split(r"[ _.-]+", name.lower())


def speaker_parents(folder: str, number: int, part: str = "merged",
                    depth: int = DEPTH) -> Iterator[tuple[str, str]]:
    """Yield (part, folder) for `folder` or each folder below it that holds folders of speakers."""
    inside = [entry for entry in sub_folders(folder) if is_container(entry.name, number)] if depth else []
    if not inside:
        yield part, folder
    for entry in inside:
        words = folder_words(entry.name)
        inner = "test" if "test" in words else "dev" if "dev" in words or "train" in words else part
        yield from speaker_parents(entry.path, number, inner, depth - 1)


def sub_folders(folder: str) -> list[os.DirEntry]:
    """Return the visible folders in a folder, sorted."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")),
                      key=lambda entry: entry.name)


def audio_files(folder: str, depth: int) -> Iterator[str]:
    """Yield the paths, relative to `folder`, of the audio files at most `depth` folders below."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if os.path.splitext(entry.name)[1].lower() in FORMATS:
                yield entry.name
            elif depth > 1 and entry.is_dir():
                yield from (f"{entry.name}/{file}" for file in audio_files(entry.path, depth - 1))


def read_names(path: Path) -> dict[str, str]:
    """Read vox1_meta.csv: name in the first release -> speaker id.

    Its lines are `id10001 A.J._Buckley m Ireland dev`, separated by tabs or commas.
    """
    names = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            speaker, name, *_ = [*re.split(r"\s*[\t,]\s*", line.strip()), "", ""]
            if re.fullmatch(r"id\d+", speaker) and name:
                names[name] = speaker
    if not names:
        raise InputError(f"{path}: no line `id10001 <tab> A.J._Buckley ...`; name VoxCeleb1's vox1_meta.csv")
    return names
