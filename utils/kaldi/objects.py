"""Read and write the objects in Kaldi's files, binary and text.

    with open("final.dubm", "rb") as stream:
        kaldi = KaldiReader(stream)
        kaldi.expect("<DiagGMM>")
        ...

A binary file starts with the bytes \\0B. KaldiWriter's binary output equals Kaldi's byte by byte: tokens are
followed by a space, numbers are preceded by their size, and FM/DM, FV/DV and FP/DP name float and double matrices,
vectors and packed lower triangles. Sizes are checked against the rest of the file before memory is allocated.
"""

import math
import os
import re
import struct
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from utils.errors import InputError
from utils.files import write_aside
from utils.kaldi import compressed

MATRICES, VECTORS = ("FM", "DM", "CM", "CM2", "CM3"), ("FV", "DV")
_TYPES = {"F": np.dtype("<f4"), "D": np.dtype("<f8")}
_SPACE = b" \t\n\v\f\r"  # as C's isspace, which Kaldi uses
_BLOCK = 1 << 16


class KaldiReader:
    """Reads one object after the other from a seekable binary stream.

    name: of the stream in messages (default: its file name). A reader starts at the stream's position,
    where it looks for the binary mark; `begin` does so again, for archives. entry: the id of the object being read
    from an archive; messages name it.
    Every method raises InputError, with file and byte, if the data are missing or damaged.
    """

    def __init__(self, stream: BinaryIO, name: str | os.PathLike | None = None) -> None:
        self.stream = stream
        self.name = str(name if name is not None else getattr(stream, "name", "stream"))
        self.entry = ""
        position = stream.tell()
        self.size = stream.seek(0, os.SEEK_END)
        stream.seek(position)
        self.begin()

    def begin(self) -> None:
        """Skip the mark of a binary object, if present, and set `binary` accordingly."""
        position = self.stream.tell()
        self.binary = self.stream.read(2) == b"\0B"
        if not self.binary:
            self.stream.seek(position)

    def fail(self, message: str) -> NoReturn:
        """Raise InputError with the name of the file, the id of the entry and the position."""
        where = f"{self.name}: {self.entry}" if self.entry else self.name
        raise InputError(f"{where}: at byte {self.stream.tell()}: {message}")

    def at_end(self) -> bool:
        """Whether only white space follows."""
        self._skip_space()
        return self.stream.tell() >= self.size

    def token(self) -> str:
        """Read a word, e.g. `<GCONSTS>` or `FM`."""
        if not self.binary:
            self._skip_space()
        word = bytearray()
        while (byte := self.stream.read(1)) and byte not in _SPACE:
            word += byte
            if len(word) > 1000:
                self.fail("not a token: a word of more than 1,000 bytes")
        if not self.binary and byte == b"\n":  # the next object may need to see it
            self.stream.seek(-1, os.SEEK_CUR)
        if not word:
            self.fail(f"expected a token, found {'white space' if byte else 'the end'}")
        try:
            return word.decode()
        except UnicodeDecodeError:
            self.fail(f"expected a token, found {bytes(word[:20])!r}")

    def expect(self, *tokens: str) -> str:
        """Read a token that must be one of `tokens`; return it."""
        found = self.token()
        if found not in tokens:
            self.fail(f"expected {' or '.join(tokens)}, found {found!r}")
        if self.binary:
            self.stream.seek(-1, os.SEEK_CUR)
            if (after := self.stream.read(1)) != b" ":  # kaldiio would read on
                self.fail(f"expected a space after {found}, found {after!r}")
        return found

    def boolean(self) -> bool:
        """Read T or F."""
        found = self.read(1).decode("latin-1") if self.binary else self.token()
        if found not in ("T", "F"):
            self.fail(f"expected T or F, found {found!r}")
        return found == "T"

    def int32(self) -> int:
        """Read a signed 32-bit integer."""
        if self.binary:
            self._expect_size(4)
            return struct.unpack("<i", self.read(4))[0]
        word = self.token()
        if not re.fullmatch(r"[+-]?[0-9]+", word):
            self.fail(f"expected an integer, found {word!r}")
        value = int(word)
        if not -2**31 <= value < 2**31:
            self.fail(f"{value} does not fit into 32 bits")
        return value

    def real(self) -> float:
        """Read a float or a double."""
        if self.binary:
            size = self._expect_size(4, 8)
            return struct.unpack("<f" if size == 4 else "<d", self.read(size))[0]
        return float(self.numbers(self.token().encode())[0])

    def int32_vector(self) -> np.ndarray:
        """Read integers: size and values, in text `[ 1 2 3 ]`."""
        if self.binary:
            size = self.read(1)[0]
            if size != 4:
                self.fail(f"expected integers of 4 bytes, found size {size}")
            return np.frombuffer(self.read(4 * self._count()), "<i4").astype(np.int32)
        return self.numbers(self._brackets(), np.int32)

    def vector(self, dtype: type | None = None) -> np.ndarray:
        """Read a vector. dtype: type of the result; None keeps the stored type of binary and makes text float64."""
        if not self.binary:
            text = self._brackets()
            if b"\n" in text or b"\r" in text:
                self.fail("a line end inside a vector; is it a matrix?")
            return self.numbers(text).astype(dtype or np.float64, copy=False)
        kind = self.expect(*VECTORS)
        return self._values(kind, self.shape(kind), dtype)

    def matrix(self, dtype: type | None = None) -> np.ndarray:
        """Read a matrix, rows x cols, compressed or not. dtype: as for `vector`."""
        if not self.binary:
            return self._text_rows(self._brackets(), dtype)
        kind = self.expect(*MATRICES)
        if kind.startswith("C"):
            return self.compressed(kind).astype(dtype or np.float32, copy=False)
        return self._values(kind, self.shape(kind), dtype)

    def compressed(self, kind: str) -> np.ndarray:
        """Read a compressed matrix after its token: rows x cols, float32."""
        header = compressed.Header.from_bytes(kind, self.read(compressed.HEADER_SIZE))
        if header.rows < 0 or header.cols < 0:
            self.fail(f"matrix of {header.rows} x {header.cols}")
        return compressed.decode(header, self.read(header.size_of_values))

    def shape(self, kind: str) -> tuple[int, ...]:
        """Read the shape of a vector or matrix after its token; all its values must be in the file."""
        shape = tuple(self._dimension() for _ in range(2 if kind in MATRICES else 1))
        self.require(math.prod(shape) * _TYPES[kind[0]].itemsize)
        return shape

    def packed(self, dtype: type | None = None) -> np.ndarray:
        """Read the lower triangle of a symmetric matrix, row by row; return the full matrix, n x n."""
        if self.binary:
            kind = self.expect("FP", "DP")
            size = self._dimension()
            values = self._values(kind, (size * (size + 1) // 2,), dtype)
        else:
            values = self.numbers(self._brackets()).astype(dtype or np.float64, copy=False)
            size = (int((8 * len(values) + 1) ** 0.5) - 1) // 2
            if size * (size + 1) // 2 != len(values):
                self.fail(f"{len(values)} values are not a triangle")
        whole = np.zeros((size, size), values.dtype)
        whole[np.tril_indices(size)] = values
        return whole + np.tril(whole, -1).T

    def text_array(self, dtype: type | None = np.float32) -> np.ndarray:
        """Read a matrix or a vector in text."""
        text = self._brackets()
        if b"\n" in text or b";" in text:  # the first row may begin on the line of the bracket
            return self._text_rows(text, dtype)
        return self.numbers(text).astype(dtype or np.float64, copy=False)

    def line(self) -> str:
        """Read the rest of a text line."""
        try:
            return self.stream.readline().decode().strip()
        except UnicodeDecodeError:
            self.fail("not UTF-8")

    def _expect_size(self, *sizes: int) -> int:
        size = self.read(1)[0]
        if size not in sizes:
            self.fail(f"expected a number of {' or '.join(map(str, sizes))} bytes, found size {size}")
        return size

    def _dimension(self) -> int:
        self._expect_size(4)
        return self._count()

    def _count(self) -> int:
        count = struct.unpack("<i", self.read(4))[0]
        if count < 0:
            self.fail(f"negative size {count}")
        return count

    def require(self, size: int) -> None:
        """Check that at least `size` bytes are left in the file."""
        left = self.size - self.stream.tell()
        if size > left:
            self.fail(f"{size} bytes expected, {left} left: the file is truncated or damaged")

    def read(self, size: int) -> bytes:
        """Read `size` bytes; the file must have that many left."""
        self.require(size)
        return self.stream.read(size)

    def _values(self, kind: str, shape: tuple[int, ...], dtype: type | None) -> np.ndarray:
        stored = _TYPES[kind[0]]
        values = np.frombuffer(self.read(math.prod(shape) * stored.itemsize), stored).reshape(shape)
        return values.astype(dtype or stored.newbyteorder("="))  # a copy: frombuffer is read-only

    def _skip_space(self) -> None:
        while (byte := self.stream.read(1)) and byte in _SPACE:
            pass
        if byte:
            self.stream.seek(-1, os.SEEK_CUR)

    def _brackets(self) -> bytes:
        """Read `[ ... ]`; return the text between the brackets."""
        self._skip_space()
        start = self.stream.tell()
        if self.stream.read(1) != b"[":
            self.stream.seek(start)
            self.fail(f"expected [, found {self.stream.read(20)!r}")
        blocks = []
        while b"]" not in (block := self.stream.read(_BLOCK)):
            if not block:
                self.fail(f"no ] for the [ at byte {start}")
            blocks.append(block)
        inside, _, after = block.partition(b"]")
        self.stream.seek(-len(after), os.SEEK_CUR)
        return b"".join([*blocks, inside])

    def _text_rows(self, text: bytes, dtype: type | None) -> np.ndarray:
        rows = [row for row in text.replace(b";", b"\n").split(b"\n") if row.strip()]
        cols = {len(row.split()) for row in rows}
        if len(cols) > 1:
            self.fail(f"matrix with rows of {min(cols)} and {max(cols)} values")
        values = self.numbers(b" ".join(rows)).astype(dtype or np.float64, copy=False)
        return values.reshape(len(rows), cols.pop() if cols else 0)

    def numbers(self, text: bytes, dtype: type = np.float64) -> np.ndarray:
        """Return the numbers in a piece of text."""
        try:
            if b"_" in text:
                raise ValueError("Python would read 1_0 as ten")
            return np.array(text.split(), dtype)
        except (ValueError, OverflowError):
            self.fail(f"expected numbers, found {text.strip()[:40]!r}")


class KaldiWriter:
    """Writes one object after the other to a binary stream, like Kaldi in its binary or text mode.

    float64 arrays are written as Kaldi's double, all others as float.
    """

    def __init__(self, stream: BinaryIO, binary: bool = True) -> None:
        self.stream = stream
        self.binary = binary
        self.begin()

    def begin(self) -> None:
        """Write the mark of a binary object (nothing in text)."""
        if self.binary:
            self.stream.write(b"\0B")

    def token(self, word: str) -> None:
        """Write a word and a space."""
        self.stream.write(f"{word} ".encode())

    def newline(self) -> None:
        """End a line of text; nothing in binary."""
        if not self.binary:
            self.stream.write(b"\n")

    def boolean(self, value: bool) -> None:
        """Write T or F."""
        self.stream.write((b"T" if value else b"F") + (b"" if self.binary else b" "))

    def int32(self, value: int) -> None:
        """Write a signed 32-bit integer."""
        self.stream.write(struct.pack("<bi", 4, value) if self.binary else f"{value} ".encode())

    def float32(self, value: float) -> None:
        """Write a float."""
        self.stream.write(struct.pack("<bf", 4, value) if self.binary else b"%.7g " % value)

    def float64(self, value: float) -> None:
        """Write a double."""
        self.stream.write(struct.pack("<bd", 8, value) if self.binary else b"%.7g " % value)

    def int32_vector(self, values: np.ndarray) -> None:
        """Write integers: size and values, in text `[ 1 2 3 ]`."""
        values = np.asarray(values, "<i4")
        if self.binary:
            self.stream.write(struct.pack("<bi", 4, len(values)) + values.tobytes())
        else:
            self.stream.write(b"[ " + b"".join(b"%d " % value for value in values.tolist()) + b"]\n")

    def vector(self, vector: np.ndarray) -> None:
        """Write a vector."""
        kind, values = _stored(vector, 1)
        if self.binary:
            self.stream.write(b"%bV " % kind + struct.pack("<bi", 4, len(values)))
            self._raw(values)
        else:
            self.stream.write(b" [ " + _text(values) + b"]\n")

    def matrix(self, matrix: np.ndarray) -> None:
        """Write a matrix."""
        kind, values = _stored(matrix, 2)
        rows, cols = values.shape
        if not self.binary:
            text = b"".join(b"\n  " + _text(row) for row in values) if values.size else b" "
            self.stream.write(b" [" + text + b"]\n")
        else:
            self.stream.write(b"%bM " % kind + struct.pack("<bibi", 4, rows, 4, cols))
            self._raw(values)

    def packed(self, matrix: np.ndarray) -> None:
        """Write the lower triangle of a symmetric matrix, n x n."""
        kind, values = _stored(matrix, 2)
        size = len(values)
        if self.binary:
            self.stream.write(b"%bP " % kind + struct.pack("<bi", 4, size))
            self._raw(values[np.tril_indices(size)])
        else:
            rows = b"\n".join(_text(values[row, : row + 1]) for row in range(size))
            self.stream.write(b"[\n" + rows + b"]\n" if size else b"[ ]\n")

    def _raw(self, values: np.ndarray) -> None:
        self.stream.write(memoryview(np.ascontiguousarray(values)).cast("B") if values.size else b"")


def _stored(array: np.ndarray, dimensions: int) -> tuple[bytes, np.ndarray]:
    kind = b"D" if np.asarray(array).dtype == np.float64 else b"F"
    values = np.asarray(array, _TYPES[kind.decode()])
    if values.ndim != dimensions:
        raise ValueError(f"{dimensions} dimensions expected, found an array of shape {values.shape}")
    return kind, values


def _text(values: np.ndarray) -> bytes:
    return b"%.7g " * len(values) % tuple(values.tolist())


def read_matrix(path: str | os.PathLike, dtype: type | None = None) -> np.ndarray:
    """Read a file that holds one matrix. dtype: see `KaldiReader.vector`."""
    with open(path, "rb") as stream:
        return KaldiReader(stream).matrix(dtype)


def read_vector(path: str | os.PathLike, dtype: type | None = None) -> np.ndarray:
    """Read a file that holds one vector. dtype: see `KaldiReader.vector`."""
    with open(path, "rb") as stream:
        return KaldiReader(stream).vector(dtype)


def write_matrix(path: str | Path, matrix: np.ndarray, binary: bool = True) -> None:
    """Write a file that holds one matrix."""
    with write_aside(path, "wb") as stream:
        KaldiWriter(stream, binary).matrix(matrix)


def write_vector(path: str | Path, vector: np.ndarray, binary: bool = True) -> None:
    """Write a file that holds one vector."""
    with write_aside(path, "wb") as stream:
        KaldiWriter(stream, binary).vector(vector)
