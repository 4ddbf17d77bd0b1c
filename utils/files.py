"""Write files so that readers find a complete file or none."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO


@contextmanager
def write_aside(path: str | os.PathLike, mode: str = "w") -> Iterator[IO]:
    """Open a temporary file beside `path`; on success sync it and rename it to `path`.

    On any error the temporary file is removed and `path` is left as it was.
    mode: "w" (UTF-8 text, LF line ends) or "wb".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        os.fchmod(handle, 0o666 & ~_umask())
        with os.fdopen(handle, mode, **text) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_if_changed(path: str | os.PathLike, text: str) -> None:
    """Write `text` unless the file already holds it, so that files depending on it stay up to date."""
    path = Path(path)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with write_aside(path) as stream:
            stream.write(text)


def shown(path: str | os.PathLike) -> str:
    """Return a path as messages show it: relative if it lies below the working folder."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def count_lines(path: str | os.PathLike, most: int | None = None) -> int:
    """Return the number of lines in a file, or `most` if it has more; the last may lack a line end."""
    with open(path, "rb") as stream:
        return sum(1 for _ in islice(stream, most))


def encodable(text: str) -> bool:
    """Whether text can be written as UTF-8: a file name that is not UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
