"""Types of command-line options for argparse: a bad value ends the program with a one-line message."""

import math
import re
from collections.abc import Callable

from utils.errors import InputError

DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST_SEED = 999_999_999  # NumPy, PyTorch and the seeds derived from it all accept this


def seed(text: str) -> int:
    """Read the value of --seed; raises InputError unless it is a whole number that every generator takes."""
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InputError(f"--seed is {text!r}, wanted a whole number from 0 to {LARGEST_SEED}")
    return int(text)


def decimal(text: str) -> float:
    """Return a finite number; raises ValueError for other text, also for 1_0, which Python reads as ten."""
    number = float(text) if DECIMAL.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a finite number")
    return number


def share(option: str) -> Callable[[str], float]:
    """Return a parser for an option whose value is a share from 0 to 1; it raises InputError for other values."""
    def read(text: str) -> float:
        try:
            value = decimal(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise InputError(f"{option} is {text!r}, wanted a share from 0 to 1")
        return value

    return read


def licence_line(text: str) -> str:
    """Read the value of --licence; raises InputError unless it is one line."""
    if len(text.splitlines()) != 1:
        raise InputError(f"--licence is {text!r}, wanted one line")
    return text


def prior_of(text: str) -> float:
    """Read the value of --prior, a probability; raises InputError unless it is between 0 and 1, without both."""
    try:
        prior = decimal(text)
    except ValueError:
        prior = -1.0
    if not 0 < prior < 1:
        raise InputError(f"--prior is {text!r}, wanted more than 0 and less than 1")
    return prior
