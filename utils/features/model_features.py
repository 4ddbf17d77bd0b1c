"""Keep the options of features and voice activity with a model, and compare them with those of its input data.

A network keeps them in its config.yaml, an i-vector model in feats.conf and vad.conf of its folder, with defaults.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from utils.errors import InputError
from utils.features.options import read_feature_options, written_out
from utils.features.vad import read_vad_options, vad_written_out
from utils.kaldi.option_files import OPTION_FILES, write_options


class Options(NamedTuple):
    """Options by their names in the files; None: unknown, e.g. for data from Kaldi."""

    features: Mapping[str, Any] | None
    vad: Mapping[str, Any] | None  # empty: all frames are used


def kept_options(folder: Path, vad: bool) -> Options:
    """Return the options in feats.conf and, for systems that use it, vad.conf of a data directory or i-vector model."""
    features, voicing = folder / "feats.conf", folder / "vad.conf"
    found = written_out(read_feature_options(features)) if features.is_file() else None
    if not vad:
        return Options(found, {})
    return Options(found, vad_written_out(read_vad_options(voicing)) if voicing.is_file() else None)


def keep_options(folder: Path, options: Options) -> None:
    """Write feats.conf and vad.conf of a model; remove the file of options that are unknown."""
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    write_options(folder, {
        file: "".join(f"--{name}={text(value)}\n" for name, value in part.items()) if part else None
        for file, part in zip(OPTION_FILES, options, strict=True)})


def check_options(data: Path, wanted: Options, model: Path, remark: bool = True) -> Options:
    """Return the options of the features of `data`; raises InputError if they differ from those of `model`.

    wanted: the options of `model`, a model or other data.
    remark: warn if options cannot be compared; only one of several jobs should.
    """
    found = kept_options(data, wanted.vad != {})
    for what, ours, theirs in zip(OPTION_FILES.values(), found, wanted, strict=True):
        if ours is not None and theirs is not None:
            compare_options(data, what, ours, theirs, model)
        elif remark:
            silent, other = (data, model) if ours is None else (model, data)
            print(f"warning: {silent} does not name the options of its {what}; they were not compared with those of "
                  f"{other}", file=sys.stderr)
    return found


def compare_options(data: Path, what: str, found: Mapping[str, Any], wanted: Mapping[str, Any], model: Path) -> None:
    """Raise InputError on the first of the options in which `data`, or a file of options, and `model` differ."""
    for name in [*wanted, *found]:
        ours, theirs = (_shown(options.get(name)) for options in (found, wanted))
        if ours != theirs:
            verb = "has" if (model / "feats.scp").is_file() else "was trained on"
            raise InputError(f"{data}: {what} {'have' if what == 'features' else 'has'} {name} {ours}, {model} {verb} "
                             f"{theirs}; name data made with the same options, or train again")


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value).lower()
