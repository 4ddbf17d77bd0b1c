"""Embed recordings with a trained system: files, folders of files, and lists in the form of wav.scp.

Any format and sampling rate is read. Each line of a .scp file holds an id and a path. Other files are named without
their extension, and files below a folder by their path there, with dashes: `id1/talk/3.flac` becomes id1-talk-3.
--out x.scp writes Kaldi's x.ark and x.scp; --out x.npz writes NumPy's arrays `ids` and `embeddings`, N x E.
e.g.: utils/embed xvector_bundle a.wav recordings/ data/test/wav.scp --out embeddings.npz
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from nnet.device import keep_freed_memory
from nnet.embed import Model, load
from utils.arguments import share
from utils.errors import InputError, first_five, run_main
from utils.files import encodable, write_aside
from utils.kaldi.ark import ArkWriter, read_table
from utils.progress import progress
from utils.recordings import ENDINGS, walk
from utils.space import require_space

KINDS = (".scp", ".npz")


def recordings(places: Iterable[Path]) -> dict[str, str]:
    """Return the path of each recording by its id; raises InputError if two have the same id, or there is none."""
    found: dict[str, str] = {}
    for name, path in (pair for place in places for pair in _recordings_at(place)):
        if found.setdefault(name, path) != path:
            raise InputError(f"{found[name]} and {path} would both be called {name}; name them in a wav.scp")
    return found


def _recordings_at(place: Path) -> Iterator[tuple[str, str]]:
    if place.suffix == ".scp":
        yield from zip(*read_table(place), strict=True)
        return
    if not place.is_dir():
        yield place.stem, str(place)
        return
    files = [Path(name) for name in walk(str(place))]
    inside = sorted(path for path in files if path.suffix.lower() in ENDINGS)
    if not inside:
        raise InputError(f"{place}: no audio in this folder; files of other extensions than "
                         f"{' '.join(sorted(ENDINGS))} can be named one by one")
    if len(inside) < len(files):
        print(f"{place}: {len(files) - len(inside)} of {len(files)} files are not audio by their ending and are left "
              "out", file=sys.stderr)
    for path in inside:
        yield "-".join(path.with_suffix("").parts), str(place / path)


class Remarks:
    """Collects what is said about files, and prints it once for all files of which it is true."""

    def __init__(self, count: int, max_failed: float) -> None:
        self.allowed = max_failed * count
        self.failures: dict[str, str] = {}
        self.warnings: dict[str, list[str]] = {}

    def failed(self, name: str, error: InputError) -> None:
        """Note a failure; raises InputError if there are too many."""
        self.failures[name] = str(error)
        if len(self.failures) > self.allowed:
            raise InputError(f"{error}; allow a share of such files with --max-failed" if len(self.failures) == 1 else
                             f"{len(self.failures)} files cannot be embedded, the last: {error}")

    def warn(self, name: str, remark: str) -> None:
        self.warnings.setdefault(remark, []).append(name)

    def show(self) -> None:
        """Print what was noted."""
        for remark, names in self.warnings.items():
            print(f"warning: {first_five(names)}: {remark}", file=sys.stderr)
        for message in self.failures.values():
            print(f"warning: {message}; left out", file=sys.stderr)


def embed(model: Model, paths: dict[str, str], remarks: Remarks) -> Iterator[tuple[str, np.ndarray]]:
    """Yield id and embedding (E, float32) of each recording that can be read, in order."""
    found = model.embed_each(paths.values(), failed=remarks.failed, warn=remarks.warn)
    for name, vector in zip(paths, progress(found, len(paths), "embed", "files"), strict=True):
        if vector is not None:
            yield name, vector


def write(found: Iterable[tuple[str, np.ndarray]], dim: int, out: Path) -> int:
    """Write embeddings to x.ark and x.scp, or to x.npz; return their number. On an error, nothing is left."""
    if out.suffix == ".scp":
        with ArkWriter(out.with_suffix("")) as writer:
            for name, vector in found:
                writer.write(name, vector)
            return writer.count
    with write_aside(out, "wb") as stream:
        pairs = list(found)
        vectors = [vector for _, vector in pairs]
        np.savez(stream, ids=np.array([name for name, _ in pairs], str),
                 embeddings=np.array(vectors, np.float32).reshape(len(vectors), dim))
    return len(pairs)


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/embed", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="x.scp or x.npz")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--max-failed", type=share("--max-failed"), default=0.0, metavar="SHARE",
                        help="share of the recordings that may be unreadable; they are left out (default: 0)")
    parser.add_argument("bundle", type=Path, help="bundle, or folder of a trained system")
    parser.add_argument("recordings", type=Path, nargs="+", help="files, folders, lists (wav.scp)")
    arguments = parser.parse_args()
    if arguments.out.suffix not in KINDS:
        raise InputError(f"--out is {arguments.out}, wanted a name that ends in {' or '.join(KINDS)}")
    paths = recordings(arguments.recordings)
    bad = [name for name in paths if name.split() != [name] or not encodable(name)]
    if bad and arguments.out.suffix == ".scp":
        raise InputError(f"{len(bad)} names cannot be ids in {arguments.out.name}, such as {ascii(bad[0])}: no spaces, "
                         "UTF-8; write x.npz, or give the recordings ids in a wav.scp")
    keep_freed_memory()
    model = load(arguments.bundle, arguments.device)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    require_space(arguments.out, 4.0 * model.dim * len(paths), "the embeddings")
    remarks = Remarks(len(paths), arguments.max_failed)
    count = write(embed(model, paths, remarks), model.dim, arguments.out)
    remarks.show()
    print(f"{arguments.out}: {count} embeddings of {model.dim} values", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
