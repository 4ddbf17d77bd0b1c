"""Kaldi's compressed matrices: CM (1 byte per value, column by column), CM2 (2 bytes), CM3 (1 byte).

A stored matrix is a 16-byte header (minimum, range, rows, columns) and the values in
`size_of_values` bytes. CM puts four 16-bit percentiles of each column before them. The arithmetic
is that of Kaldi's compressed-matrix.cc (Povey), operation by operation, so that the bytes agree.
"""

import struct
from typing import NamedTuple

import numpy as np

from utils.errors import InputError

HEADER_SIZE = 16
LARGEST = {"CM": 65535, "CM2": 65535, "CM3": 255}
# Methods whose range does not depend on the data: minimum, range.
FIXED_RANGE = {4: (-32768.0, 65535.0), 6: (0.0, 255.0), 7: (0.0, 1.0)}


class Header(NamedTuple):
    """The data before the values: kind CM, CM2 or CM3; a value is minimum + span * integer / LARGEST[kind]."""

    kind: str
    minimum: np.float32
    span: np.float32
    rows: int
    cols: int

    @classmethod
    def from_bytes(cls, kind: str, content: bytes) -> "Header":
        """Unpack the 16 bytes after the token `kind`."""
        minimum, span, rows, cols = struct.unpack("<ffii", content)
        return cls(kind, np.float32(minimum), np.float32(span), rows, cols)

    def to_bytes(self) -> bytes:
        """Return the token and the 16 bytes after it."""
        return f"{self.kind} ".encode() + struct.pack("<ffii", self.minimum, self.span, self.rows, self.cols)

    @property
    def size_of_values(self) -> int:
        """Number of bytes after the header."""
        per_column = {"CM": 8 + self.rows, "CM2": 2 * self.rows, "CM3": self.rows}
        return self.cols * per_column[self.kind]


def decode(header: Header, values: bytes) -> np.ndarray:
    """Return the float32 matrix, rows x cols, in `values`.

    For CM2 and CM3, `values` may be a slice of whole rows: the number of rows follows from its length.
    """
    if header.kind == "CM":
        percentiles = np.frombuffer(values, "<u2", 4 * header.cols).reshape(header.cols, 4)
        codes = np.frombuffer(values, np.uint8, offset=8 * header.cols).reshape(header.cols, header.rows)
        return _decode_columns(codes, _to_float(header, percentiles))
    if not header.cols:
        return np.zeros((header.rows, 0), np.float32)
    integers = np.frombuffer(values, "<u2" if header.kind == "CM2" else np.uint8).reshape(-1, header.cols)
    return _to_float(header, integers)


def encode(matrix: np.ndarray, method: int) -> bytes:
    """Return `matrix` (rows x cols, finite) as Kaldi stores it with a compression method of 1 to 7."""
    matrix = np.ascontiguousarray(matrix, np.float32)
    rows, cols = matrix.shape
    if matrix.size == 0:
        return Header("CM", np.float32(0), np.float32(0), 0, 0).to_bytes()
    if not np.isfinite(matrix).all():
        raise InputError(f"matrix of {rows} x {cols} has NaN or infinite values, which cannot be compressed")
    if method == 1:
        method = 2 if rows > 8 else 3
    kind = {2: "CM", 3: "CM2", 4: "CM2", 5: "CM3", 6: "CM3", 7: "CM3"}[method]
    minimum, span = FIXED_RANGE.get(method) or _range(matrix)
    header = Header(kind, np.float32(minimum), np.float32(span), rows, cols)
    if kind == "CM":
        percentiles = _percentiles(header, matrix)
        codes = _encode_columns(matrix, _to_float(header, percentiles))
        return header.to_bytes() + percentiles.astype("<u2").tobytes() + codes.T.tobytes()
    return header.to_bytes() + _to_integers(header, matrix).astype("<u2" if kind == "CM2" else "u1").tobytes()


def _range(matrix: np.ndarray) -> tuple[np.float32, np.float32]:
    lowest, highest = matrix.min(), matrix.max()
    if lowest == highest:
        highest = lowest + (1 + abs(lowest))
    return lowest, highest - lowest


def _to_integers(header: Header, values: np.ndarray) -> np.ndarray:
    share = np.clip((values - header.minimum) / header.span, 0, 1)
    # Kaldi adds the double 0.499 to a float product: in float32 one value in 1,000 would differ.
    return ((share * np.float32(LARGEST[header.kind])).astype(np.float64) + 0.499).astype(np.int32)


def _to_float(header: Header, integers: np.ndarray) -> np.ndarray:
    step = np.float32(np.float64(header.span) / LARGEST[header.kind])
    return header.minimum + step * integers.astype(np.float32)


def _percentiles(header: Header, matrix: np.ndarray) -> np.ndarray:
    """Return the 0, 25, 75 and 100 % points of each column, cols x 4, strictly rising."""
    rows = len(matrix)
    quarter = rows // 4
    places = [0, quarter, 3 * quarter, rows - 1] if rows >= 5 else list(range(rows))
    sorted_rows = np.partition(matrix, places, axis=0)
    points = _to_integers(header, sorted_rows[places]).T
    missing = np.zeros((points.shape[0], 4 - points.shape[1]), points.dtype)  # fewer than four rows
    points = np.concatenate([points, missing], axis=1)
    points[:, 0] = np.minimum(points[:, 0], 65532)
    points[:, 1] = np.clip(points[:, 1], points[:, 0] + 1, 65533)
    points[:, 2] = np.clip(points[:, 2], points[:, 1] + 1, 65534)
    points[:, 3] = np.maximum(points[:, 3], points[:, 2] + 1)
    return points


# Of a column's codes, 0..64 lie between the points 0 and 25 %, 64..192 between 25 and 75 %, 192..255 above.
_FIRST_CODE, _CODES = (0, 64, 192), (64, 128, 63)


def _encode_columns(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    pieces = []
    for piece in range(3):
        low, high = points[:, piece], points[:, piece + 1]
        share = (matrix - low) / (high - low) * np.float32(_CODES[piece])
        codes = (np.clip(share, 0, _CODES[piece]).astype(np.float64) + 0.5).astype(np.uint8)
        pieces.append(codes + np.uint8(_FIRST_CODE[piece]))
    return np.where(matrix < points[:, 1], pieces[0], np.where(matrix < points[:, 2], pieces[1], pieces[2]))


def _decode_columns(codes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return rows x cols from codes, cols x rows, and points, cols x 4."""
    piece = (codes > 64).astype(np.intp) + (codes > 192)
    low = np.take_along_axis(points, piece, axis=1)
    width = np.take_along_axis(np.diff(points, axis=1) / np.float32(_CODES), piece, axis=1)
    first = np.array(_FIRST_CODE, np.float32)[piece]
    return np.ascontiguousarray((low + width * (codes - first)).T)
