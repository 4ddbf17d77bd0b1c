"""Audio files as 16 kHz mono samples, decoded in this process.

wav, flac, ogg and mp3 go through soundfile, m4a and aac through PyAV. What a file holds is told from its
content, never from its name. Samples are float32 on the scale of 16-bit integers, as Kaldi's features
expect: a 16-bit file gives exactly its integers.
"""

import contextlib
import io
import os
import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

import av
import numpy as np
import soundfile
from scipy.signal import resample_poly

from utils.errors import InputError

SAMPLE_RATE = 16000
RATES = 4000, 400000  # Hz, that a file may say
_FULL_SCALE = 32768
_BLOCK = 1 << 20  # frames decoded at a time: no allocation follows a header's word
_STREAMED = 0x7FFF0000  # from here on a length in a WAV header means "unknown", as pipes write it
_WAY_OUT = "copy it again or remove it from wav.scp"
_CUT_WAV = re.compile(r"^data : (\d+) \(should be \d+\)", re.MULTILINE)


@dataclass(frozen=True)
class Audio:
    """Samples, and what had to be changed to get them."""

    samples: np.ndarray      # float32, mono, -32768..32767 for 16-bit input
    notes: tuple[str, ...]   # such as "44100 Hz", "2 channels", "8 bits"; empty for what recipes expect


def read_audio(path: str | os.PathLike, rate: int = SAMPLE_RATE, allow_pipes: bool = False) -> Audio:
    """Read a file, or the output of a command that ends in `|`, as mono samples at `rate` Hz.

    Raises InputError, one line with the name and the cause, for what is missing, empty, truncated, not
    audio, or holds NaN, and for a command unless allow_pipes.
    """
    path = os.fspath(path)
    if path.endswith("|"):
        content = _run(path, allow_pipes)
    else:
        try:
            with open(path, "rb") as stream:
                content = stream.read()
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; {_WAY_OUT}") from error
    if not content:
        raise InputError(f"{path}: empty, 0 bytes; {_WAY_OUT}")
    samples, file_rate, notes = _decode(content, path)
    if len(samples) == 0:
        raise InputError(f"{path}: no samples in it; {_WAY_OUT}")
    if not np.isfinite(samples).all():
        raise InputError(f"{path}: NaN or infinite samples; {_WAY_OUT}")
    if not RATES[0] <= file_rate <= RATES[1]:
        raise InputError(f"{path}: a sampling rate of {file_rate} Hz; wanted {RATES[0]} to {RATES[1]}; {_WAY_OUT}")
    if file_rate != rate:
        notes = (f"{file_rate} Hz", *notes)
    return Audio(resample(samples, file_rate, rate), notes)


class Recording:
    """The samples of a file at `rate` Hz, on the scale of `read_audio`; `[start:stop]` gives some of them.

    Of WAV and FLAC files at that rate only those are read and decoded; other files are decoded whole, once. Raises
    InputError, one line with the name and the cause, as `read_audio`.
    """

    def __init__(self, path: str | os.PathLike, rate: int = SAMPLE_RATE) -> None:
        self.path, self._file = os.fspath(path), None
        with contextlib.suppress(soundfile.SoundFileError):  # of what PyAV may read, or of what is no audio
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
        return _mono(found.T * np.float32(_FULL_SCALE), self._file.samplerate, ())[0]


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Return the same sound at `new_rate` Hz (polyphase filter), float32."""
    if rate == new_rate:
        return samples
    common = gcd(rate, new_rate)
    return resample_poly(samples, new_rate // common, rate // common).astype(np.float32, copy=False)


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Return the sound played `factor` times as fast, pitch included, as sox's speed does."""
    exact = Fraction(factor).limit_denominator(100)
    return resample_poly(samples, exact.denominator, exact.numerator).astype(np.float32, copy=False)


def _run(entry: str, allowed: bool) -> bytes:
    command = entry[:-1].strip()
    if not allowed:
        raise InputError(f"{entry!r} is a command; commands are run only with --allow-pipes true")
    done = subprocess.run(["bash", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise InputError(f"{entry!r} ended with status {done.returncode}: {lines[-1]}")
    return done.stdout


def _decode(content: bytes, path: str) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Return samples, their rate, and notes."""
    # PyAV is told the format: left to guess, FFmpeg would also follow playlists to other files.
    if content[4:8] == b"ftyp":
        return _decode_av(content, path, "mov")
    if content[0] == 0xFF and content[1:2] and content[1] & 0xF6 == 0xF0:
        return _decode_av(content, path, "aac")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            blocks = []
            while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                blocks.append(block)
            claimed, told, subtype, rate = file.frames, file.extra_info, file.subtype, file.samplerate
    except (soundfile.SoundFileError, RuntimeError) as error:
        cause = str(getattr(error, "error_string", error)).rstrip(".")
        raise InputError(f"{path}: damaged, or not audio that can be read ({cause}; begins with "
                         f"{content[:8]!r}); {_WAY_OUT}") from error
    samples = np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32)
    cut = _CUT_WAV.search(told)
    if (cut and 0 < int(cut[1]) < _STREAMED or _ogg_ends_early(content)
            or len(samples) < 0.95 * claimed < _STREAMED):  # MP3 headers give estimates
        raise _truncated(path, len(samples), rate)
    notes = ("8 bits",) if subtype in ("PCM_U8", "PCM_S8") else ()
    return _mono(samples.T * np.float32(_FULL_SCALE), rate, notes)


def _ogg_ends_early(content: bytes) -> bool:
    """Whether an Ogg file's last page is cut (its segment table tells the size) or not flagged as the last."""
    if not content.startswith(b"OggS"):
        return False
    page = content[content.rfind(b"OggS"):].ljust(27, b"\0")
    size = 27 + page[26] + sum(page[27:27 + page[26]])
    return len(page) < size or not page[5] & 4


def _decode_av(content: bytes, path: str, kind: str) -> tuple[np.ndarray, int, tuple[str, ...]]:
    try:
        with av.open(io.BytesIO(content), format=kind) as container:
            if not container.streams.audio:
                raise InputError(f"{path}: no audio in it; {_WAY_OUT}")
            stream = container.streams.audio[0]
            rate, seconds = stream.rate, float((stream.duration or 0) * stream.time_base)
            planar = av.AudioResampler(format="fltp")
            frames = [part.to_ndarray() for frame in container.decode(stream)
                      for part in planar.resample(frame)]
    except (av.FFmpegError, ValueError) as error:
        cause = getattr(error, "strerror", error)
        raise InputError(f"{path}: damaged or truncated ({cause}); {_WAY_OUT}") from error
    samples = np.concatenate(frames, axis=1) if frames else np.zeros((1, 0), np.float32)
    if kind == "mov" and samples.shape[1] < 0.95 * seconds * rate:
        raise _truncated(path, samples.shape[1], rate)
    return _mono(samples * np.float32(_FULL_SCALE), rate, ())


def _truncated(path: str, samples: int, rate: int) -> InputError:
    return InputError(f"{path}: truncated after {samples / rate:.2f} s; {_WAY_OUT}")


def _mono(samples: np.ndarray, rate: int, notes: tuple[str, ...]) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """samples: channels x time."""
    channels = len(samples)
    if channels == 1:
        return samples[0], rate, notes
    return samples.mean(axis=0, dtype=np.float32), rate, (f"{channels} channels", *notes)
