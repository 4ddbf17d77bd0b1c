"""Tables of matrices and vectors: Kaldi's archives (`<stem>.ark`) and their scripts (`<stem>.scp`).

A line of a script is `id path`, `id path:offset` or `id path:offset[first:last]`; rows are counted from 0, and
`last` is included. Paths may hold spaces. Nothing named in a table is ever executed.

kaldiio reads and writes uncompressed binary matrices and vectors. It is only given an open archive, positioned at an
entry of checked kind and size: it would run a path that ends with `|`, unpickle an entry that begins with `PKL`, and
allocate memory according to a damaged size. It does not handle:

- compressed matrices with Kaldi's arithmetic: of the reference mfcc24 stored with method 3, 117 of 83,320 bytes differ
  from Kaldi's; values outside the range of methods 4, 6 and 7 wrap around; and of the values that it reads, 31 % differ
  in the last bit (utils/kaldi/compressed.py, which RowReader needs for rows in any case);
- text: it takes `[ 1e-05 0.5 ]` for integers and fails, and writes 12 digits where Kaldi writes 7;
- row ranges beyond the end, which it silently truncates; random rows without reading the whole matrix (RowReader);
- Kaldi's other objects: posteriors, selected Gaussians (utils/kaldi/objects.py).
"""

import os
import re
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from kaldiio.matio import read_matrix_or_vector, write_array

from utils.errors import InputError
from utils.files import count_lines, write_aside
from utils.kaldi.compressed import HEADER_SIZE, Header, decode, encode
from utils.kaldi.objects import MATRICES, VECTORS, KaldiReader, KaldiWriter

BYTES_A_VALUE = {"FM": 4, "DM": 8, "CM2": 2, "CM3": 1, "FV": 4, "DV": 8}  # kinds stored row by row
_SURROGATE = re.compile("[\udc80-\udcff]")  # stands for a byte that is not UTF-8
_LOCATION = re.compile(r"(?P<path>.*?)(?::(?P<offset>\d+))?(?:\[(?P<first>\d+):(?P<last>\d+)\])?", re.DOTALL)


class Location(NamedTuple):
    """The location of an object: file, byte, first row and the row after the last one (None: all)."""

    path: str
    offset: int
    first: int
    end: int | None


def parse_location(where: str) -> Location:
    """Split the right part of a script's line; raises InputError for pipes, column ranges, impossible numbers."""
    if where.startswith("|") or where.endswith("|"):
        raise InputError(f"{where!r} is a command and is not run; write its output to a file first")
    path, offset, first, last = _LOCATION.fullmatch(where).groups()
    if path.endswith("]") or not path:
        raise InputError(f"{where!r}: expected path:offset or path:offset[first row:last row]")
    if any(number and int(number) >= 1 << 62 for number in (offset, first, last)):
        raise InputError(f"{where!r}: no file is so long; correct the line, or make the table again")
    return Location(path, int(offset or 0), int(first or 0), None if last is None else int(last) + 1)


def read_table(path: str | os.PathLike) -> tuple[list[str], list[str]]:
    """Read a text table: the first word and the rest of each line. It may be unsorted or empty.

    The tables of a data directory follow stricter rules: utils.kaldi.data_dir.read_column.
    Raises InputError for a line without a second field, a CRLF line end, or a duplicate id.
    """
    ids, rest = [], []
    for name, value in table_lines(path):
        ids.append(name)
        rest.append(value)
    if len(set(ids)) < len(ids):
        raise InputError(f"{path}: id {repeated(ids)} occurs twice; repair with utils.kaldi.fix_data_dir")
    return ids, rest


def repeated(ids: Sequence[str]) -> str:
    """Return the first id that occurs again."""
    seen: set[str] = set()
    return next(name for name in ids if name in seen or seen.add(name))


def table_lines(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """Yield (id, rest of the line) from a text table; raises InputError like read_table, except for duplicates."""
    with open(path, encoding="utf-8", newline="\n", errors="surrogateescape") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.isprintable() and _SURROGATE.search(line):
                raise InputError(f"{path}: line {number}: not UTF-8: {ascii(line[:80])}")
            name, _, value = line.rstrip("\n").partition(" ")
            value = value.strip(" \t")
            if not name or not value or value.endswith("\r"):
                problem = "ends in CRLF" if line.endswith("\r\n") else f"expected `id value`, found {line!r}"
                raise InputError(f"{path}: line {number}: {problem}")
            yield name, value


def read_array(kaldi: KaldiReader) -> np.ndarray:
    """Read the matrix or vector of an entry, float32; its binary mark, if any, has already been read."""
    if not kaldi.binary:
        return kaldi.text_array()
    start = kaldi.stream.tell() - len(b"\0B")
    kind = kaldi.expect(*MATRICES, *VECTORS)
    if kind.startswith("C"):
        return kaldi.compressed(kind)
    kaldi.shape(kind)  # refuses an entry that is not completely in the file
    kaldi.stream.seek(start)
    return read_matrix_or_vector(kaldi.stream).astype(np.float32)


def iterate(path: str | os.PathLike, read: Callable[[KaldiReader], Any] = read_array,
            part: slice = slice(None)) -> Iterator[tuple[str, Any]]:
    """Yield (id, object) from a script (a path ending in .scp) or an archive, binary or text.

    read: reads one object; the default reads a float32 matrix or vector.
    part: start and stop of the lines to yield; a script's other objects are not read.
    """
    entries = _iterate_script if str(path).endswith(".scp") else _iterate_archive
    return entries(path, read, part)


def _iterate_archive(path: str | os.PathLike, read: Callable[[KaldiReader], Any],
                     part: slice) -> Iterator[tuple[str, Any]]:
    def entries() -> Iterator[tuple[str, Any]]:
        while not kaldi.at_end():
            kaldi.entry = ""
            kaldi.entry = name = kaldi.token()
            kaldi.begin()
            yield name, read(kaldi)

    with open(path, "rb") as stream:
        kaldi = KaldiReader(stream)
        yield from islice(entries(), part.start, part.stop)


def _iterate_script(path: str | os.PathLike, read: Callable[[KaldiReader], Any],
                    part: slice) -> Iterator[tuple[str, Any]]:
    with ExitStack() as stack:
        kaldi = None
        for name, where in islice(table_lines(path), part.start, part.stop):
            location = parse_location(where)
            if kaldi is None or kaldi.name != location.path:
                stack.close()
                kaldi = KaldiReader(stack.enter_context(_open(location.path, f"{path}: {name}")))
            kaldi.entry = name
            yield name, _read_at(kaldi, location, read)


def _open_file(path: str) -> int:
    """Open a regular file for reading by position; refuse anything else."""
    handle = os.open(path, os.O_RDONLY)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is not a regular file")
    return handle


def _open(path: str, what: str) -> Any:
    try:
        return open(path, "rb")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise InputError(f"{what}: cannot open {path!r} ({error}); run the stage that makes it again") from error


def _read_at(kaldi: KaldiReader, location: Location, read: Callable[[KaldiReader], Any]) -> Any:
    kaldi.stream.seek(location.offset)
    kaldi.begin()
    item = read(kaldi)
    if location.end is None:
        return item
    if not location.first < location.end <= len(item):
        kaldi.fail(f"rows {location.first} to {location.end - 1} requested, but it has {len(item)}")
    return item[location.first:location.end]


def read_matrix(where: str) -> np.ndarray:
    """Read the matrix or vector, float32, at the location in a script's line."""
    location = parse_location(where)
    with _open(location.path, where) as stream:
        return _read_at(KaldiReader(stream), location, read_array)


def read_vectors(path: str | os.PathLike) -> tuple[list[str], np.ndarray]:
    """Read all vectors of a script or archive: ids and a float32 matrix N x D.

    Raises InputError if there are no vectors, if one differs in size from the first, or if an id occurs twice.
    """
    count = count_lines(path) if str(path).endswith(".scp") else 1024
    ids: list[str] = []
    vectors = np.zeros((0, 0), np.float32)
    for name, vector in iterate(path):
        if not ids:
            vectors = np.empty((count, len(vector)), np.float32)
        if vector.shape != vectors.shape[1:]:
            raise InputError(f"{path}: {name} has shape {vector.shape}, those before it {vectors.shape[1:]}")
        if len(ids) == len(vectors):
            vectors = np.concatenate([vectors, np.empty_like(vectors)])
        vectors[len(ids)] = vector
        ids.append(name)
    if not ids:
        raise InputError(f"{path}: holds no vectors")
    if len(set(ids)) < len(ids):
        raise InputError(f"{path}: {repeated(ids)} occurs twice; keep one of its vectors")
    return ids, vectors[:len(ids)]


class ArkWriter:
    """Context manager that writes `<stem>.ark` and `<stem>.scp`; both appear at the end, or neither.

    compression: Kaldi's method for matrices, 1 to 7, 0 for none. binary: False writes text.
    Floating-point arrays are stored as float.
    """

    def __init__(self, stem: str | os.PathLike, compression: int = 0, binary: bool = True) -> None:
        self.ark = Path(f"{stem}.ark")
        self.scp = Path(f"{stem}.scp")
        self.compression = compression
        self.binary = binary
        self.count = 0

    def __enter__(self) -> "ArkWriter":
        with ExitStack() as stack:
            self._script = stack.enter_context(write_aside(self.scp))  # published last
            self._archive = stack.enter_context(write_aside(self.ark, "wb"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def write(self, name: str, values: np.ndarray) -> None:
        """Append a matrix or vector; raises InputError for an id with spaces, or NaN or infinite values."""
        values = np.asarray(values, np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"{self.ark}: {name} has NaN or infinite values; not written")
        if not self.binary:
            self.write_object(name, lambda kaldi: kaldi.vector(values) if values.ndim == 1 else kaldi.matrix(values))
            return
        self._begin(name)
        if self.compression and values.ndim == 2:
            self._archive.write(b"\0B" + encode(values, self.compression))
        else:
            write_array(self._archive, values)

    def write_object(self, name: str, write: Callable[[KaldiWriter], None]) -> None:
        """Append the object that `write` writes, for example posteriors."""
        self._begin(name)
        write(KaldiWriter(self._archive, self.binary))

    def _begin(self, name: str) -> None:
        """Write an entry's id to the archive, and its line to the script."""
        if not name or name.split() != [name]:
            raise InputError(f"{self.ark}: id {name!r} is empty or has white space")
        self._archive.write(f"{name} ".encode())
        self._script.write(f"{name} {self.ark}:{self._archive.tell()}\n")
        self.count += 1


class Ids(Sequence):
    """Read-only list of ids in one block of memory: 1.1 million take 40 MB, not 120."""

    def __init__(self, ids: Iterator[str]) -> None:
        block, ends = bytearray(), array("q", [0])
        for name in ids:
            block += name.encode()
            ends.append(len(block))
        self._block, self._ends = bytes(block), np.array(ends)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._block[self._ends[index]:self._ends[index + 1]].decode()


class RowReader:
    """Random access to rows of the matrices of a script, for training on chunks.

    ids: the utterances in the script's order; num_rows: int32 array of their lengths, from `utt2num_frames`
    beside the script if it lists the same ids, otherwise from the archives; files, file_numbers and offsets: the
    location of each matrix. A reader can be pickled or forked, because it holds arrays and reads by position (pread).
    Text archives are refused. kinds: MATRICES or VECTORS; a vector is read as a matrix of one column.
    """

    def __init__(self, scp: str | os.PathLike, kinds: tuple[str, ...] = MATRICES) -> None:
        self.scp, self.kinds = str(scp), kinds
        files: dict[str, int] = {}
        places = array("q")

        def entries() -> Iterator[str]:
            for name, where in table_lines(scp):
                path, offset, first, end = parse_location(where)
                places.extend((files.setdefault(path, len(files)), offset, first, -1 if end is None else end))
                yield name

        self.ids = Ids(entries())
        self.files = list(files)
        self.file_numbers, self.offsets, self._first, self._end = np.array(places).reshape(-1, 4).T.copy()
        self._handles: dict[int, int] = {}
        self.num_rows = self._listed_lengths()
        if self.num_rows is None:
            self.num_rows = np.array([self._span(index)[1] for index in range(len(self))], np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}

    def __del__(self) -> None:
        for handle in getattr(self, "_handles", {}).values():
            os.close(handle)

    def read(self, index: int, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Return rows start..stop-1 of matrix `index` (all by default), float32."""
        kind, rows, cols, header, place = self._header(index)
        first, length = self._span(index, rows)
        stop = length if stop is None else stop
        if not 0 <= start <= stop <= length:
            raise InputError(f"{self.scp}: {self.ids[index]} has {length} rows; {start} to {stop} requested")
        start, stop = first + start, first + stop
        handle = self._handles[int(self.file_numbers[index])]
        if kind == "CM":
            values = self._pread(handle, header.size_of_values, place, index)
            codes = np.frombuffer(values, np.uint8, offset=8 * cols).reshape(cols, rows)[:, start:stop]
            return decode(header._replace(rows=stop - start), values[:8 * cols] + codes.tobytes())
        size = cols * BYTES_A_VALUE[kind]
        values = self._pread(handle, (stop - start) * size, place + start * size, index)
        if header is not None:
            return decode(header, values)
        matrix = np.frombuffer(values, "<f4" if kind[0] == "F" else "<f8").astype(np.float32)
        return matrix.reshape(stop - start, cols)

    def _span(self, index: int, rows: int | None = None) -> tuple[int, int]:
        """Return the first row of an entry in its stored matrix, and the number of rows."""
        rows = self._header(index)[1] if rows is None else rows
        first, end = int(self._first[index]), int(self._end[index])
        end = rows if end < 0 else end
        if not first <= end <= rows:
            raise InputError(f"{self.scp}: {self.ids[index]}: rows up to {end - 1} requested, {rows} stored")
        return first, end - first

    def _header(self, index: int) -> tuple[str, int, int, Header | None, int]:
        """Return kind, rows, columns, compression header, and the byte where the values begin."""
        offset = int(self.offsets[index])
        start = os.pread(self._handle(index), 32, offset)
        kind = start[2:6].partition(b" ")[0].decode("latin-1")
        place = 3 + len(kind)
        needed = place + (HEADER_SIZE if kind.startswith("C") else 5 if kind.endswith("V") else 10)
        if start[:2] != b"\0B" or kind not in self.kinds or len(start) < needed:
            raise InputError(f"{self.files[self.file_numbers[index]]}: at byte {offset}: no binary "
                             f"{'vector' if self.kinds == VECTORS else 'matrix'} for {self.ids[index]}; make it again")
        if kind.startswith("C"):
            header = Header.from_bytes(kind, start[place:needed])
            return kind, header.rows, header.cols, header, offset + needed
        rows, *cols = np.frombuffer(start[place:needed], [("", "i1"), ("n", "<i4")])["n"].tolist()
        cols = cols[0] if cols else 1
        return kind, rows, cols, None, offset + needed

    def _handle(self, index: int) -> int:
        file = int(self.file_numbers[index])
        if file not in self._handles:
            try:
                self._handles[file] = _open_file(self.files[file])
            except (OSError, ValueError) as error:  # ValueError: a null byte in the path
                raise InputError(f"{self.scp}: {self.ids[index]}: {error}") from error
        return self._handles[file]

    def _pread(self, handle: int, size: int, place: int, index: int) -> bytes:
        values = os.pread(handle, size, place)
        if len(values) < size:
            raise InputError(f"{self.files[self.file_numbers[index]]}: {self.ids[index]} is cut off; "
                             "the file is truncated: make the features again")
        return values

    def _listed_lengths(self) -> np.ndarray | None:
        path = Path(self.scp).parent / "utt2num_frames"
        if not path.is_file():
            return None
        lengths = np.empty(len(self), np.int32)
        count = 0
        for name, value in table_lines(path):
            if count == len(self) or name != self.ids[count] or not re.fullmatch("[0-9]{1,9}", value):
                return None
            lengths[count] = int(value)
            count += 1
        return lengths if count == len(self) else None
