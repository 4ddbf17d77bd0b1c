"""Numbers from and to text, a whole column at a time, eight characters in one 64-bit word.

Character i of eight is byte i of the word (little-endian), so that one operation acts on all eight.
"""

import numpy as np

from steps.backend.text_lines import by_length, records

WIDTH = 9      # characters of every number that `format_numbers` writes
LONGEST = 15   # characters up to which `parse_numbers` is fast; as many digits are exact in float64
LARGEST = 1e6  # `format_numbers` takes magnitudes below it

_BYTE = np.uint64(0x0101010101010101)  # times b: eight bytes b
_ZEROS, _POINTS = _BYTE * np.uint64(ord("0")), _BYTE * np.uint64(ord("."))
_LOW7, _HIGH4 = _BYTE * np.uint64(0x7F), _BYTE * np.uint64(0xF0)
_FOUR_DIGITS = np.frombuffer(b"".join(b"%04d" % number for number in range(10000)), np.uint32).astype(np.uint64)
_TEN_TO = 10.0 ** np.arange(16)
_BYTES_BELOW = np.array([(1 << 8 * i) - 1 for i in range(8)], np.uint64)  # mask of the first i bytes
_POINT_AT = np.array([ord(".") << 8 * i for i in range(8)], np.uint64)


def _scales() -> np.ndarray:
    """10^decimals for the place of the point in either half (8: none), at 9 * first + second; NaN for two."""
    scales = np.full((9, 9), np.nan)
    scales[8, 8] = np.inf
    scales[:8, 8] = 10.0 ** (15 - np.arange(8))
    scales[8, :8] = 10.0 ** (7 - np.arange(8))
    return scales.ravel()


_SCALES = _scales()


def parse_numbers(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the numbers text[start:end] as float64, NaN for words that are none.

    Digits with a sign and a point are read here, other forms (1e-05, inf) by Python, one by one.
    """
    values = np.empty(len(ends))
    for length, rows in by_length(ends - starts):
        values[rows] = _parse(text, ends[rows], length) if 2 < length <= LONGEST else np.nan
    for row in np.flatnonzero(np.isnan(values)).tolist():
        values[row] = _parse_one(text[starts[row]:ends[row]].tobytes())
    return values


def _parse_one(word: bytes) -> float:
    try:
        return np.nan if b"_" in word else float(word)
    except ValueError:
        return np.nan


def _parse(text: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """Parse numbers of `length` characters, at most LONGEST; NaN for unusual forms.

    The 16 bytes up to the end of a number, its point replaced by the digit 0, are the integer
    V = 10 s A + B with s = 10^decimals; A stands before the point, B < s after it. The number is A + B / s
    = (V - 9 s A) / s, of integers below 2^53: as exact as Python's own.
    """
    words = records(text, ends - 16, 16).view(np.uint64).reshape(-1, 2)
    negative = text[ends - length] == ord("-")
    half_of_sign, byte_of_sign = divmod(16 - length, 8)
    value, place, plain = np.zeros(len(ends)), 0, True
    for half in (0, 1):
        blank = min(max(16 - length - 8 * half, 0), 8)  # bytes before the number count as leading zeros
        before = np.uint64((1 << 8 * blank) - 1)
        word = words[:, half] & ~before | _ZEROS & before
        if half == half_of_sign:
            word += negative * np.uint64(ord("0") - ord("-") << 8 * byte_of_sign)
        other = word ^ _POINTS  # byte 0 where the point is; then bit 0 of that byte only
        point = ~((other & _LOW7) + _LOW7 | other | _LOW7) >> np.uint64(7)
        word += point * np.uint64(ord("0") - ord("."))
        plain &= (word & _HIGH4 == _ZEROS) & (word + _BYTE * np.uint64(6) & _HIGH4 == _ZEROS)  # digits only
        plain &= point & (point - np.uint64(1)) == 0  # one point
        place = 9 * place + _bytes_before(point)
        value = value * 1e8 + _eight_digits(word - _ZEROS)
    scale = np.where(plain, _SCALES[place.astype(np.intp)], np.nan)
    integer = np.isinf(scale)
    before_point = np.floor(value / (10 * scale))
    scale[integer] = 1
    value = (value - 9 * scale * before_point) / scale
    return np.where(negative, -value, value)


def _bytes_before(point: np.ndarray) -> np.ndarray:
    """Return the number of bytes before the one whose bit 0 is set; 8 where none is."""
    return ((point - np.uint64(1)) & _BYTE) * _BYTE >> np.uint64(56)


def _eight_digits(digits: np.ndarray) -> np.ndarray:
    """Return the integer whose decimal digits are the bytes, as uint64: pairs, then fours, then eight."""
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    mask = np.uint64(0x000000FF000000FF)
    high = (pairs & mask) * np.uint64(100 + (1000000 << 32))
    low = (pairs >> np.uint64(16) & mask) * np.uint64(1 + (10000 << 32))
    return high + low >> np.uint64(32)


def format_numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write each number in WIDTH characters: as many decimals as fit after sign, digits and point.

    For example 0.1234568, -46.72852, 123.45678: seven decimals or eight digits, one less after a minus.
    values: |value| < LARGEST. Returns the first eight characters as uint64 and the last as uint8.
    """
    negative = values < 0
    size = np.abs(values, dtype=np.float64)
    before = np.ones(len(values), np.int64)  # digits before the point
    power = 10.0
    while len(size) and power <= size.max():
        before += size >= power
        power *= 10
    digits = WIDTH - 1 - negative
    scaled = np.rint(size * _TEN_TO[digits - before])
    over = scaled >= _TEN_TO[digits]  # 9.99999996 becomes 10.000000
    before += over
    scaled[over] /= 10
    scaled = scaled.astype(np.uint32)
    high = scaled // np.uint32(10000)
    text = _FOUR_DIGITS[high] | _FOUR_DIGITS[scaled - high * np.uint32(10000)] << np.uint64(32)
    text -= negative * np.uint64(ord("0") - ord("-"))  # the first of eight digits is 0 there
    place = before + negative
    below = _BYTES_BELOW[place]
    head = text & below | _POINT_AT[place] | (text & ~below) << np.uint64(8)
    return head, (text >> np.uint64(56)).astype(np.uint8)
