"""feats.conf and vad.conf of a data directory: the options that its features and voice activity were made with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.errors import InputError
from utils.files import write_aside

OPTION_FILES = {"feats.conf": "features", "vad.conf": "voice activity"}  # file with the options -> what they made


def common_options(folders: Sequence[Path]) -> dict[str, str | None]:
    """Return the texts of feats.conf and vad.conf of data directories, None if some directory lacks the file.

    Raises InputError if they differ.
    """
    common: dict[str, str | None] = {}
    for name, made in OPTION_FILES.items():
        found = [path.read_text(encoding="utf-8", errors="replace") for folder in folders
                 if (path := folder / name).is_file()]
        if len(set(found)) > 1:
            raise InputError(f"{' and '.join(map(str, folders))}: their {name} differ; make the {made} of all alike")
        common[name] = found[0] if len(found) == len(folders) else None
    return common


def write_options(folder: Path, texts: Mapping[str, str | None]) -> None:
    """Write feats.conf and vad.conf; remove a file whose text is None."""
    for name, text in texts.items():
        if text is None:
            (folder / name).unlink(missing_ok=True)
            continue
        with write_aside(folder / name) as stream:
            stream.write(text)
