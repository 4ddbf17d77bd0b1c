"""Second readers for the fuzzed files: kaldiio, the standard library, float(), plain loops.

Each takes a path and returns the content that our reader should have found, in the form that `same` compares, or None
if it cannot tell. They are called after our reader has accepted the file, so its sizes are known to be sound.
"""

import json
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import safetensors.numpy
import yaml

from utils.audio import Recording


def same(ours: Any, theirs: Any) -> bool:
    """Whether two readings agree: containers item by item, numbers to single precision, NaN as NaN."""
    if isinstance(theirs, dict):
        return isinstance(ours, dict) and ours.keys() == theirs.keys() and all(
            same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(theirs, np.ndarray):
        ours = np.asarray(ours)
        if ours.shape != theirs.shape:
            return False
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        largest = np.abs(theirs, where=np.isfinite(theirs), out=np.zeros_like(theirs)).max(initial=0.0)
        return np.allclose(ours, theirs, rtol=1e-5, atol=1e-6 * largest, equal_nan=True)
    if isinstance(theirs, float):
        return ours == theirs or math.isclose(ours, theirs, rel_tol=1e-5) or math.isnan(ours) and math.isnan(theirs)
    return type(ours) is type(theirs) and ours == theirs


def either(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Return a reader that returns None if another library refuses a file."""
    def reader(path: Path) -> Any:
        if path.suffix == ".scp" and b"|" in path.read_bytes():  # kaldiio would run it
            return None
        try:
            with np.errstate(all="ignore"):
                return read(path)
        except Exception:  # any exception of the library
            return None
    return reader


def floats(value: np.ndarray) -> np.ndarray:
    """Return values as our readers do: single precision."""
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(np.float32)


def table_of(path: Path) -> list[tuple[str, np.ndarray]] | None:
    with path.open("rb") as stream:
        found = [(name.strip(), floats(value)) for name, value in kaldiio.load_ark(stream)]
        whole = not stream.read(1)  # kaldiio stops at a space before a key, Kaldi skips it
    return found if whole and all(name.split() == [name] for name, _ in found) else None  # kaldiio splits at blanks


def unpacked(path: Path) -> list[tuple[str, np.ndarray]]:
    """Read binary matrices and vectors that are not compressed, by struct: our reader uses kaldiio."""
    content, place, found = path.read_bytes(), 0, []
    while content[place:].strip():
        start = content.index(b" ", place) + 1
        name, mark = content[place:start].decode().strip(), content[start:start + 5]
        assert name.split() == [name] and mark in (b"\0BFM ", b"\0BDM ", b"\0BFV ", b"\0BDV ")
        axes = 2 if mark.endswith(b"M ") else 1
        shape = [struct.unpack_from("<i", content, start + 6 + 5 * axis)[0] for axis in range(axes)]
        place = start + 5 + 5 * axes
        layout = f"<{math.prod(shape)}{'f' if mark[2:3] == b'F' else 'd'}"
        values = struct.unpack_from(layout, content, place)
        place += struct.calcsize(layout)
        found.append((name, floats(np.array(values, np.float64).reshape(shape))))
    return found


def unpacked_bytes(path: Path) -> list[tuple[str, np.ndarray]]:
    """Read compressed matrices value by value. kaldiio's products overflow where Kaldi's, and ours, do not.

    Raises AssertionError where single precision leaves its normal range: there, the last steps decide.
    """
    content, place, found = path.read_bytes(), 0, []
    while content[place:].strip():
        start = content.index(b" ", place) + 1
        name, mark = content[place:start].decode().strip(), re.match(rb"\0B(CM[23]?) ", content[start:start + 6])
        assert name.split() == [name] and mark
        least, span, rows, cols = struct.unpack_from("<ffii", content, start + mark.end())
        place, size = start + mark.end() + 16, rows * cols
        assert not abs(least) + abs(span) > 1e37 and not 0 < abs(span) < 1e-30
        step = np.float32(span / (255 if mark[1] == b"CM3" else 65535))
        if mark[1] == b"CM":
            points = struct.unpack_from(f"<{4 * cols}H", content, place)
            codes = np.frombuffer(content, np.uint8, size, place + 8 * cols).reshape(cols, rows)
            values = np.array([[between(column, code) for code in row] for column, row in zip(
                np.reshape(np.float32(least) + step * np.float32(points), (cols, 4)).tolist(), codes.tolist(),
                strict=True)]).reshape(cols, rows).T
            place += 8 * cols + size
        else:
            kind = "u1" if mark[1] == b"CM3" else "<u2"
            values = np.float32(least) + step * np.frombuffer(content, kind, size, place).astype(np.float32)
            values, place = values.reshape(rows, cols), place + size * np.dtype(kind).itemsize
        found.append((name, floats(values)))
    return found


def between(points: list[float], code: int) -> float:
    """Return the value of a code of a column, from the column's 0, 25, 75 and 100 % points."""
    low, first, codes = (0, 0, 64) if code <= 64 else (1, 64, 128) if code <= 192 else (2, 192, 63)
    return points[low] + (points[low + 1] - points[low]) * (code - first) / codes


table = either(table_of)
compressed = either(unpacked_bytes)
plain_table = either(unpacked)
plain_vectors = either(lambda path: tuple(map(list, zip(*unpacked(path), strict=True))))
script = either(lambda path: [(name, floats(value)) for name, value in kaldiio.load_scp_sequential(str(path))])
vectors = either(lambda path: tuple(map(list, zip(*table(path), strict=True))))
one_value = either(lambda path: np.asarray(kaldiio.load_mat(str(path))))
tensors = either(lambda path: safetensors.numpy.load(path.read_bytes()))
record = either(lambda path: json.loads(path.read_text(encoding="utf-8")))


def words(path: Path) -> list[list[str]]:
    """Return the words of each non-empty line."""
    lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
    found = [re.findall(r"[^ \t\v\f\r]+", line) for line in lines]  # str.split() splits at more: 0x1c, U+2003
    return [line for line in found if line]


def trials(path: Path) -> list[str]:
    """Return the words of a trial list, whose lines are `utterance utterance target|nontarget`."""
    lines = words(path)
    assert all(len(line) == 3 and line[2] in ("target", "nontarget") for line in lines)
    return sum(lines, [])


def labels(path: Path) -> list[str]:
    """Return the labels of one of VoxCeleb's trial lists."""
    lines = path.read_bytes().decode(errors="replace").split("\n")
    return [{"1": "target", "0": "nontarget"}[line.split()[0]] for line in lines if line.split()]


def scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores of the trial list next to a score file: targets, non-targets."""
    found = {(first, second): float(value) for first, second, value in words(path)}
    sides: dict[str, list[float]] = {"target": [], "nontarget": []}
    for first, second, label in words(path.with_name("trials")):
        sides[label].append(found.pop((first, second)))
    assert not found
    return np.array(sides["target"]), np.array(sides["nontarget"])


def labelled_numbers(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and non-targets of lines `score target|nontarget`."""
    lines = words(path)
    assert all(label in ("target", "nontarget") for _, label in lines)
    return tuple(np.array([float(value) for value, label in lines if label == side])
                 for side in ("target", "nontarget"))


def posteriors(path: Path) -> list[tuple[str, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Return (name, (entries of each frame, Gaussians, weights)) of text posteriors."""
    found = []
    for line in filter(bytes.strip, path.read_bytes().split(b"\n")):
        name, *rest = line.split(maxsplit=1)
        frames = [frame.split() for frame in re.findall(rb"\[([^]]*)\]", b"".join(rest))]
        entries = sum(frames, [])
        found.append((name.decode(), (np.array([len(frame) // 2 for frame in frames]),
                                      np.array([int(word) for word in entries[::2]]),
                                      np.array([float(word) for word in entries[1::2]], np.float32))))
    return found


def diagonal(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights, means and variances of a diagonal mixture in text."""
    content, numbers = path.read_bytes(), {}  # as text, \r would end a row
    for token in (b"WEIGHTS", b"MEANS_INVVARS", b"INV_VARS"):
        rows = re.search(rb"<%b>\s*\[([^]]*)\]" % token, content)[1].replace(b";", b"\n").split(b"\n")
        numbers[token] = np.array([[float(word) for word in row.split()] for row in rows if row.strip()], np.float32)
    return numbers[b"WEIGHTS"][0], numbers[b"MEANS_INVVARS"] / numbers[b"INV_VARS"], 1 / numbers[b"INV_VARS"]


def columns(path: Path) -> dict[str, dict[str, str]]:
    """Return the tables of a data directory: name -> utterance -> value."""
    lines = {name: (path.parent / name).read_text().split("\n")[:-1] for name in ("utt2spk", "wav.scp")}
    return {name: {line.split(" ", 1)[0]: line.split(" ", 1)[1].strip(" ") for line in found}
            for name, found in lines.items()}


def configuration(path: Path) -> dict[str, Any]:
    """Return a configuration at scale mini: its base's keys, overridden by its own, overridden by `mini:`."""
    def over(old: Any, new: Any) -> Any:
        both = isinstance(old, dict) and isinstance(new, dict)
        if not both or new.get("type", old.get("type")) != old.get("type"):
            return new
        return {**old, **{key: over(old.get(key), value) for key, value in new.items()}}

    def load(one: Path) -> dict[str, Any]:
        found = yaml.safe_load(one.read_bytes())
        base, mini = found.pop("base", None), found.pop("mini", {})
        return over(over({} if base is None else load(one.with_name(f"{base}.yaml")), found), mini)

    return load(path)


def options(path: Path) -> dict[str, float]:
    """Return the numbers in lines `--name=number`; the last word of a line may be a comment."""
    found = {}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        word = re.sub(r"(^|\s)#.*", "", line).strip()
        name, _, value = word.removeprefix("--").partition("=")
        if word and name != "feature-type":
            found[name] = float(value)
    return found


def samples(path: Path) -> np.ndarray | None:
    """Return a file's samples, read in two parts."""
    recording = Recording(path)
    half = len(recording) // 2
    return np.concatenate([recording[:half], recording[half:]])
