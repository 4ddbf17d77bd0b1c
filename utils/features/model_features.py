"""The feature options that a model was trained on: kept with it, and compared with those of the data that it is given.

A network keeps them in its config.yaml, an i-vector model in feats.conf of its folder, both written out in full.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.features.options import read_feature_options, written_out
from utils.kaldi.data_dir import write_feature_options

Options = Mapping[str, Any]


def kept_options(folder: Path) -> Options | None:
    """Return the options in feats.conf of a data directory or an i-vector model; None where it has none (Kaldi's)."""
    path = folder / "feats.conf"
    return written_out(read_feature_options(path)) if path.is_file() else None


def keep_options(folder: Path, options: Options | None) -> None:
    """Write feats.conf of a model, or remove it where the training data had none."""
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    write_feature_options(folder, options and "".join(f"--{name}={text(value)}\n" for name, value in options.items()))


def check_options(data: Path, wanted: Options | None, model: Path, remark: bool = True) -> Options | None:
    """Return the options of the features of `data`; raises InputError unless they are those of `model`.

    wanted: the options that belong to `model`, a model or other data; None: unknown.
    remark: say so where nothing can be compared, which one of several jobs does.
    """
    found = kept_options(data)
    if found is None or wanted is None:
        if remark:
            silent, other = (data, model) if found is None else (model, data)
            print(f"warning: {silent} does not say the options of its features; they were not compared with those of "
                  f"{other}", file=sys.stderr)
        return found
    for name in [*wanted, *found]:
        ours, theirs = (_shown(options.get(name)) for options in (found, wanted))
        if ours != theirs:
            verb = "has" if (model / "feats.scp").is_file() else "was trained on"
            raise InputError(f"{data}: features have {name} {ours}, {model} {verb} {theirs}; name features that were "
                             "made with the same options, or train again")
    return found


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value).lower()
