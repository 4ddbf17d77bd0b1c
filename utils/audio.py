"""Audio files as 16 kHz mono samples, decoded in this process.

soundfile decodes wav, flac, ogg and mp3, PyAV decodes m4a and aac. The format is recognised by a file's
content, never by its name. Samples are float32 on the scale of 16-bit integers, as Kaldi's features
expect: a 16-bit file gives exactly its integers. PyAV and SciPy are imported where they are needed: SciPy alone takes
longer than reading a file.
"""

import contextlib
import io
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from math import gcd, inf
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile

from utils.errors import InputError

SAMPLE_RATE = 16000
RATES = 4000, 400000  # Hz: lowest and highest that a file may have
SOUNDLESS = SILENT, CONSTANT, CANCELLED = (
    "digital silence", "one constant value", "channels that cancel each other")  # notes for files without sound
CANCEL = 1e-4  # channels cancel if their mean keeps less than this share of their power: 40 dB
LOUDEST = 16.0  # for floats, where 1 is full scale
_FULL_SCALE = 32768
_BLOCK = 1 << 20  # frames decoded at a time: no allocation trusts the length in a header
_OGG_TAIL = 1 << 20  # bytes in which an Ogg file's last page begins
_STREAMED = 0x7FFF0000  # a length in a WAV header from this value on means "unknown", as pipes write it
_WAY_OUT = "copy it again or remove it from wav.scp"
_CUT_WAV = re.compile(r"^data : (\d+) \(should be \d+\)", re.MULTILINE)


@dataclass(frozen=True)
class Audio:
    """Samples, and notes on how the file differs from what recipes expect."""

    samples: np.ndarray      # float32, mono, -32768..32767 for 16-bit input
    notes: tuple[str, ...]   # e.g. "44100 Hz", "2 channels", "8 bits", SILENT; empty for the expected format
    rate: int = SAMPLE_RATE  # of the file, Hz
    kept: float = 1.0        # share of the channels' power that their mean keeps: 1 for copies, 1/2 for two speakers

    def part(self, samples: np.ndarray) -> "Audio":
        """Return a part of these samples as audio: the file's notes, and that on silence for the part alone."""
        notes = tuple(note for note in self.notes if note not in (SILENT, CONSTANT))
        return replace(self, samples=samples, notes=(*notes, *_soundless(float(samples.min()), float(samples.max()))))


class _Block(NamedTuple):
    """Decoded samples of a part of a file: channels x frames, full scale 1."""

    samples: np.ndarray
    rate: int
    notes: tuple[str, ...] = ()


def read_audio(path: str | os.PathLike, rate: int = SAMPLE_RATE, allow_pipes: bool = False) -> Audio:
    """Read a file, or the output of a command that ends in `|`, as mono samples at `rate` Hz.

    Memory: the returned samples, 230 MB per hour at 16 kHz, and a few MB. Raises InputError, one line with the name
    and the cause, if the file is missing, empty, truncated, not a regular file, not audio, or holds NaN, and for a
    command unless allow_pipes.
    """
    path = os.fspath(path)
    with io.BytesIO(_run(path, allow_pipes)) if path.endswith("|") else _open(path) as stream:
        return _audio(_decode(stream, path), path, rate)


def read_content(stream: BinaryIO, name: str, rate: int, longest: float) -> Audio:
    """Read the content of a file that is not on disk, like `read_audio`; raises InputError if it exceeds `longest` s.

    A small file may hold days of silence: decoding stops at the limit.
    """
    try:
        return _audio(_up_to(longest, _decode(stream, name), name), name, rate)
    except InputError as error:
        raise InputError(str(error).removesuffix(f"; {_WAY_OUT}")) from error


def _up_to(longest: float, blocks: Iterator[_Block], name: str) -> Iterator[_Block]:
    seconds = 0.0
    for block in blocks:
        seconds += block.samples.shape[1] / max(block.rate, RATES[0])
        if seconds > longest:
            raise InputError(f"{name}: longer than {longest:g} s; cut it")
        yield block


def read_samples(samples: np.ndarray, own_rate: float, rate: int = SAMPLE_RATE, name: str = "samples") -> Audio:
    """Return an array [N] at `own_rate` Hz as mono samples at `rate` Hz on the 16-bit scale.

    Floats are on the scale of soundfile.read, where 1 is full scale; 16-bit integers are taken as they are. Raises
    InputError with `name` for other arrays and rates, an empty array, NaN, and floats on the scale of integers.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not (samples.dtype.kind == "f" or samples.dtype == np.int16):
        raise InputError(f"{name}: an array {list(samples.shape)} of {samples.dtype}; wanted one channel: [N] "
                         "of floats or int16")
    if own_rate != round(own_rate):
        raise InputError(f"{name}: a sampling rate of {own_rate} Hz; wanted a whole number")
    scaled = samples.astype(np.float32)
    if samples.dtype.kind != "f":
        scaled /= _FULL_SCALE
    elif len(scaled) and np.abs(scaled).max() > LOUDEST:
        raise InputError(f"{name}: a float of {np.abs(scaled).max():g}, where 1 is full scale; divide samples on the "
                         f"16-bit scale by {_FULL_SCALE}")
    return _audio(iter([_Block(scaled[None], round(own_rate))] if len(scaled) else []), name, rate)


def _audio(blocks: Iterator[_Block], path: str, rate: int) -> Audio:
    """Return the samples of a file's blocks at `rate` Hz; raises InputError for no samples, NaN and odd rates."""
    first = next(blocks, None)
    if first is None:
        raise InputError(f"{path}: holds no samples; {_WAY_OUT}")
    if not RATES[0] <= first.rate <= RATES[1]:
        raise InputError(f"{path}: a sampling rate of {first.rate} Hz; wanted {RATES[0]} to {RATES[1]}; {_WAY_OUT}")
    level = _Level()
    mono = (level.mono(block, path) for block in chain([first], blocks))
    samples = _grown(_resampled(mono, first.rate, rate))
    notes = (f"{first.rate} Hz",) * (first.rate != rate)
    if len(first.samples) > 1:
        notes += (f"{len(first.samples)} channels",)
    return Audio(samples, (*notes, *first.notes, *level.notes()), first.rate, level.kept)


class _Level:
    """Makes blocks mono, on the 16-bit scale, and reports afterwards whether they held sound."""

    def __init__(self) -> None:
        self.low, self.high = inf, -inf
        self.before, self.after = 0.0, 0.0  # power of the channels, and of their mean

    def mono(self, block: _Block, path: str) -> np.ndarray:
        """Return the mean of the channels; raises InputError for NaN or infinite samples."""
        if not np.isfinite(block.samples).all():
            raise InputError(f"{path}: NaN or infinite samples; {_WAY_OUT}")
        samples = _mono(block.samples)
        self.low, self.high = min(self.low, float(samples.min())), max(self.high, float(samples.max()))
        if len(block.samples) > 1:
            self.before += float(np.square(block.samples).sum(dtype=np.float64)) / len(block.samples) * _FULL_SCALE**2
            self.after += float(np.square(samples).sum(dtype=np.float64))
        return samples

    @property
    def kept(self) -> float:
        """The share of the channels' power that their mean keeps; 1 for one channel, and for channels without power."""
        return self.after / self.before if self.before > 0 else 1.0

    def notes(self) -> tuple[str, ...]:
        """Return one of SOUNDLESS, or nothing. Less than half a 16-bit step counts as silence."""
        if self.before > 1 and self.after < CANCEL * self.before:
            return (CANCELLED,)
        return _soundless(self.low, self.high)


def _soundless(low: float, high: float) -> tuple[str, ...]:
    """Return SILENT or CONSTANT if samples from `low` to `high` hold no sound."""
    if high - low < 1:
        return (SILENT,) if max(high, -low) < 0.5 else (CONSTANT,)
    return ()


def _mono(samples: np.ndarray) -> np.ndarray:
    """Return the mean of channels x frames with full scale 1, on the 16-bit scale."""
    scaled = samples * np.float32(_FULL_SCALE)
    return scaled[0] if len(scaled) == 1 else scaled.mean(axis=0, dtype=np.float32)


def _grown(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Join parts without keeping a second copy: the array grows in place."""
    samples = np.empty(0, np.float32)
    for part in parts:
        if not len(samples):
            samples = part
            continue
        size = len(samples)
        if not samples.flags.owndata:
            samples = samples.copy()
        samples.resize(size + len(part), refcheck=False)
        samples[size:] = part
    return samples


def _resampled(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    """Yield, in parts, exactly the samples that `resample` returns for the joined blocks."""
    if rate == new_rate:
        yield from blocks
        return
    up, down = new_rate // gcd(rate, new_rate), rate // gcd(rate, new_rate)
    reach = 10 * max(up, down) // up + 2  # samples on each side within reach of resample_poly's filter
    held, start, done = np.empty(0, np.float32), 0, 0  # `held` begins at `start`, `done` are out; multiples of down
    for block in blocks:
        ready = (start + len(held) - reach) // down * down
        if ready > done:
            yield resample(held, rate, new_rate)[(done - start) * up // down:(ready - start) * up // down]
            done, before = ready, start
            start = max(0, (done - reach) // down * down)
            held = held[start - before:]
        held = np.concatenate([held, block]) if len(held) else block
    yield resample(held, rate, new_rate)[(done - start) * up // down:]


class Recording:
    """The samples of a file at `rate` Hz, on the scale of `read_audio`; `[start:stop]` gives a part of them.

    From WAV and FLAC files at that rate only this part is read and decoded; other files are decoded whole, once. Raises
    InputError, one line with the name and the cause, like `read_audio`.
    """

    def __init__(self, path: str | os.PathLike, rate: int = SAMPLE_RATE) -> None:
        self.path, self._file = os.fspath(path), None
        if not self.path.endswith("|"):
            _open(self.path).close()  # raises InputError if it cannot be opened
        with contextlib.suppress(soundfile.SoundFileError):  # PyAV may read it, or it is not audio
            file = soundfile.SoundFile(self.path)
            if file.format in ("WAV", "WAVEX", "FLAC") and file.samplerate == rate and file.frames:
                self._file, self._samples = file, np.empty(0)
        if self._file is None:
            self._samples = read_audio(path, rate).samples

    def __len__(self) -> int:
        return self._file.frames if self._file else len(self._samples)

    def __getitem__(self, part: slice) -> np.ndarray:
        if self._file is None:
            return self._samples[part]
        start, stop, _ = part.indices(len(self))
        try:
            self._file.seek(start)
            found = self._file.read(stop - start, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise InputError(f"{self.path}: damaged ({getattr(error, 'error_string', error)}); {_WAY_OUT}") from error
        if len(found) < stop - start:
            raise _truncated(self.path, start + len(found), self._file.samplerate)
        if not np.isfinite(found).all():
            raise InputError(f"{self.path}: NaN or infinite samples; {_WAY_OUT}")
        return _mono(found.T)


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Return the same sound at `new_rate` Hz (polyphase filter), float32."""
    if rate == new_rate:
        return samples
    common = gcd(rate, new_rate)
    return _polyphase(samples, new_rate // common, rate // common)


def exact_speed(factor: float) -> Fraction:
    """Return the speed that a recording is played at for a factor: the nearest fraction with a small denominator."""
    return Fraction(factor).limit_denominator(100)


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Return the sound played `factor` times as fast, pitch included, as sox's speed does."""
    exact = exact_speed(factor)
    return _polyphase(samples, exact.denominator, exact.numerator)


def _polyphase(samples: np.ndarray, up: int, down: int) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(samples, up, down, window=_low_pass(max(up, down))).astype(np.float32, copy=False)


@lru_cache(16)
def _low_pass(ratio: int) -> np.ndarray:
    """Return the filter that resample_poly would design in each call, which takes as long as filtering a second."""
    from scipy.signal import firwin

    return firwin(20 * ratio + 1, 1 / ratio, window=("kaiser", 5.0)).astype(np.float32)


def _run(entry: str, allowed: bool) -> bytes:
    command = entry[:-1].strip()
    if not allowed:
        raise InputError(f"{entry!r} is a command; commands are run only with --allow-pipes true")
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], stdin=subprocess.DEVNULL, capture_output=True,
                          check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise InputError(f"{entry!r} ended with status {done.returncode}: {lines[-1]}")
    return done.stdout


class _Nameless(io.FileIO):
    """A file without a name, so that decoders cannot guess the format from it."""

    name = property(fset=lambda _, __: None)  # FileIO sets it; reading it fails


def _open(path: str) -> BinaryIO:
    """Open a regular file; raises InputError for anything else, before opening, since a FIFO would block."""
    try:
        kind = os.stat(path).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise InputError(f"{path}: not a regular file, but a device, FIFO or socket; {_WAY_OUT}")
        return io.BufferedReader(_Nameless(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {_WAY_OUT}") from error
    except ValueError as error:  # NUL
        raise InputError(f"{path!r}: {error}; {_WAY_OUT}") from error


def _decode(stream: BinaryIO, path: str) -> Iterator[_Block]:
    """Yield a file's samples in blocks; raises InputError if it is damaged, and at its end if it is truncated."""
    head = stream.read(12)
    stream.seek(0)
    if not head:
        raise InputError(f"{path}: empty, 0 bytes; {_WAY_OUT}")
    # PyAV gets the format explicitly: if it had to guess, FFmpeg would also follow playlists to other files.
    if head[4:8] == b"ftyp":
        yield from _decode_av(stream, path, "mov")
    elif head[0] == 0xFF and head[1:2] and head[1] & 0xF6 == 0xF0:
        yield from _decode_av(stream, path, "aac")
    else:
        yield from _decode_soundfile(stream, path, head)


def _decode_soundfile(stream: BinaryIO, path: str, head: bytes) -> Iterator[_Block]:
    count = 0
    try:
        with soundfile.SoundFile(stream) as file:
            notes = ("8 bits",) if file.subtype in ("PCM_U8", "PCM_S8") else ()
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                count += len(block)
                yield _Block(block.T, file.samplerate, notes)
            claimed, told, rate = file.frames, file.extra_info, file.samplerate
    except (soundfile.SoundFileError, RuntimeError) as error:
        cause = str(getattr(error, "error_string", error)).rstrip(".")
        raise InputError(f"{path}: damaged, or not audio that can be read ({cause}; begins with "
                         f"{head[:8]!r}); {_WAY_OUT}") from error
    cut = _CUT_WAV.search(told)
    if (cut and 0 < int(cut[1]) < _STREAMED or head.startswith(b"OggS") and _ogg_ends_early(stream)
            or count < 0.95 * claimed < _STREAMED):  # MP3 headers give estimates
        raise _truncated(path, count, rate)


def _ogg_ends_early(stream: BinaryIO) -> bool:
    """Whether an Ogg file's last page is cut (its segment table gives the size) or not flagged as the last."""
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _OGG_TAIL))
    content = stream.read()
    page = content[content.rfind(b"OggS"):].ljust(27, b"\0")
    size = 27 + page[26] + sum(page[27:27 + page[26]])
    return len(page) < size or not page[5] & 4


def _decode_av(stream: BinaryIO, path: str, kind: str) -> Iterator[_Block]:
    import av

    count, some, size = 0, [], 0
    try:
        with av.open(stream, format=kind) as container:
            if not container.streams.audio:
                raise InputError(f"{path}: holds no audio; {_WAY_OUT}")
            audio = container.streams.audio[0]
            if audio.codec_context is None:
                raise InputError(f"{path}: damaged, or audio with an unknown codec; {_WAY_OUT}")
            rate, seconds = audio.rate, float((audio.duration or 0) * audio.time_base)
            planar = av.AudioResampler(format="fltp")
            for frame in chain.from_iterable(map(planar.resample, container.decode(audio))):
                some.append(frame.to_ndarray())
                size += some[-1].shape[1]
                if size >= _BLOCK:
                    yield _Block(np.concatenate(some, axis=1), rate)
                    count, some, size = count + size, [], 0
            if size:
                yield _Block(np.concatenate(some, axis=1), rate)
    except (av.FFmpegError, ValueError) as error:
        cause = getattr(error, "strerror", error)
        raise InputError(f"{path}: damaged or truncated ({cause}); {_WAY_OUT}") from error
    if kind == "mov" and count + size < 0.95 * seconds * rate:
        raise _truncated(path, count + size, rate)


def _truncated(path: str, samples: int, rate: int) -> InputError:
    return InputError(f"{path}: truncated after {samples / rate:.2f} s; {_WAY_OUT}")
