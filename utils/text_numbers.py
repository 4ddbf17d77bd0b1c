"""Convert text to numbers and back, a whole column at a time, eight characters in one 64-bit word.

Character i of eight is byte i of the word (little-endian), so that one operation acts on all eight.
"""

import re

import numpy as np

from utils.text_lines import by_length, records

WIDTH = 9      # characters of each number from `format_numbers`
LONGEST = 15   # `parse_numbers` is fast up to this many characters; float64 holds this many digits exactly
LARGEST = 1e6  # `format_numbers` takes magnitudes below this

_BYTE = np.uint64(0x0101010101010101)  # times b: eight bytes b
_ZEROS, _POINTS = _BYTE * np.uint64(ord("0")), _BYTE * np.uint64(ord("."))
_LOW7, _HIGH1 = _BYTE * np.uint64(0x7F), _BYTE * np.uint64(0x80)
_FOUR_DIGITS = np.frombuffer(b"".join(b"%04d" % number for number in range(10000)), np.uint32).astype(np.uint64)
_TEN_TO = 10.0 ** np.arange(16)
_BYTES_BELOW = np.array([(1 << 8 * i) - 1 for i in range(8)], np.uint64)  # mask of the first i bytes
_POINT_AT = np.array([ord(".") << 8 * i for i in range(8)], np.uint64)


# Index 9 i + j: the point follows i bytes of the first half or j of the second (8: none); s = 10^decimals and 10 s.
_DECIMALS = np.array([[15 - i if i < 8 else 7 - j if j < 8 else 0 for j in range(9)] for i in range(9)]).ravel()
_SCALES = 10.0 ** _DECIMALS
_LIMITS = 10 * _SCALES
_LIMITS[80] = np.inf  # without a point, A = 0
_SCALES[[9 * i + j for i in range(8) for j in range(8)]] = np.nan  # a point in each half: not a number
_DECIMAL = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def parse_numbers(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the numbers text[start:end] as float64, NaN for words that are not finite decimal numbers.

    Digits with a minus and a point are parsed here, other forms (1e-05, +1, more digits) by Python, one by one.
    """
    values = np.empty(len(ends))
    for length, rows in by_length(ends - starts):
        values[rows] = _parse(text, ends[rows], length) if 2 < length <= LONGEST else np.nan
    for row in np.flatnonzero(np.isnan(values)).tolist():
        values[row] = _parse_one(text[starts[row]:ends[row]].tobytes())
    return values


def _parse_one(word: bytes) -> float:
    value = float(word) if _DECIMAL.fullmatch(word) else np.nan
    return value if np.isfinite(value) else np.nan


def _parse(text: np.ndarray, ends: np.ndarray, length: int) -> np.ndarray:
    """Parse numbers of `length` characters, at most LONGEST; NaN for unusual forms.

    The 16 bytes up to the end of a number, with its point replaced by the digit 0, form the integer
    V = 10 s A + B with s = 10^decimals; A stands before the point, B < s after it. The number is A + B / s
    = (V - 9 s A) / s. All integers are below 2^53, so the result is as exact as Python's.
    """
    words = records(text, ends - 16, 16).view(np.uint64).reshape(-1, 2)
    half_of_sign, byte_of_sign = divmod(16 - length, 8)
    negative = words.view(np.uint8)[:, 16 - length] == ord("-")
    value, place, odd = 0.0, 8 * half_of_sign, np.uint64(0)
    for half in range(half_of_sign, 2):
        word = words[:, half]
        if half == half_of_sign:  # text before the number counts as zeros, and so does its minus
            before = np.uint64((1 << 8 * byte_of_sign) - 1)
            word = word & ~before | _ZEROS & before
            word += negative * np.uint64(ord("0") - ord("-") << 8 * byte_of_sign)
        other = word ^ _POINTS  # byte 0 where the point is; then bit 0 of that byte only
        point = ~((other & _LOW7) + _LOW7 | other | _LOW7) >> np.uint64(7)
        under = point - np.uint64(1)
        place = 9 * place + ((under & _BYTE) * _BYTE >> np.uint64(56))  # bytes before the point; 8 without
        digits = word + point * np.uint64(ord("0") - ord(".")) - _ZEROS
        odd |= (digits | digits + _BYTE * np.uint64(0x76)) & _HIGH1 | point & under  # not a digit; a second point
        value = value * 1e8 + _eight_digits(digits)
    place = place.astype(np.intp)
    scale = _SCALES[place]
    value -= np.floor(value / _LIMITS[place]) * (9 * scale)
    value /= scale
    value[odd != 0] = np.nan
    return np.where(negative, -value, value)


def _eight_digits(digits: np.ndarray) -> np.ndarray:
    """Return the integer (uint64) whose decimal digits are the bytes: combined in pairs, then fours, then eight."""
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    mask = np.uint64(0x000000FF000000FF)
    high = (pairs & mask) * np.uint64(100 + (1000000 << 32))
    low = (pairs >> np.uint64(16) & mask) * np.uint64(1 + (10000 << 32))
    return high + low >> np.uint64(32)


def format_numbers(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write each number in WIDTH characters, with as many decimals as fit after sign, digits and point.

    For example 0.1234568, -46.72852, 123.45678: eight digits in all, one less after a minus.
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
