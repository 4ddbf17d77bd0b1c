"""Option files in Kaldi's format (conf/features/*.conf), and the options of Kaldi's features that they may set.

    # 24 cepstra for i-vectors
    --feature-type=mfcc     # our own option: the kind of features, mfcc or fbank (log mel energies)
    --num-ceps=24

All other options have Kaldi's names, meanings and defaults, except that dither is 0.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import kaldi_native_fbank

from utils.errors import InputError

WINDOWS = ("hamming", "hanning", "povey", "rectangular", "sine", "blackman")

# Kaldi's option -> (group of kaldi_native_fbank's options, its name there, type)
_COMMON = {
    "sample-frequency": ("frame_opts", "samp_freq", float),
    "frame-length": ("frame_opts", "frame_length_ms", float),
    "frame-shift": ("frame_opts", "frame_shift_ms", float),
    "preemphasis-coefficient": ("frame_opts", "preemph_coeff", float),
    "remove-dc-offset": ("frame_opts", "remove_dc_offset", bool),
    "window-type": ("frame_opts", "window_type", str),
    "blackman-coeff": ("frame_opts", "blackman_coeff", float),
    "round-to-power-of-two": ("frame_opts", "round_to_power_of_two", bool),
    "snip-edges": ("frame_opts", "snip_edges", bool),
    "dither": ("frame_opts", "dither", float),
    "num-mel-bins": ("mel_opts", "num_bins", int),
    "low-freq": ("mel_opts", "low_freq", float),
    "high-freq": ("mel_opts", "high_freq", float),
    "use-energy": ("", "use_energy", bool),
    "energy-floor": ("", "energy_floor", float),
    "raw-energy": ("", "raw_energy", bool),
    "htk-compat": ("", "htk_compat", bool),
}
_OF_TYPE = {
    "mfcc": _COMMON | {"num-ceps": ("", "num_ceps", int), "cepstral-lifter": ("", "cepstral_lifter", float)},
    "fbank": _COMMON | {"use-log-fbank": ("", "use_log_fbank", bool), "use-power": ("", "use_power", bool)},
}


@dataclass(frozen=True)
class FeatureOptions:
    """The contents of a feature file. kaldi: the options object of kaldi_native_fbank."""

    kind: str  # mfcc or fbank
    kaldi: Any

    @property
    def rate(self) -> int:
        """Sampling rate, Hz."""
        return round(self.kaldi.frame_opts.samp_freq)

    @property
    def shift(self) -> int:
        """Samples from one frame to the next."""
        return round(self.kaldi.frame_opts.samp_freq * self.kaldi.frame_opts.frame_shift_ms) // 1000

    @property
    def length(self) -> int:
        """Samples in a frame."""
        return round(self.kaldi.frame_opts.samp_freq * self.kaldi.frame_opts.frame_length_ms) // 1000

    def samples_of(self, frames: int) -> int:
        """Return how many samples `frames` frames span, without samples beyond the ends."""
        return (frames - 1) * self.shift + self.length

    def frames_of(self, samples: int) -> int:
        """Return how many frames an utterance of `samples` samples has."""
        if self.kaldi.frame_opts.snip_edges:
            return max(0, 1 + (samples - self.length) // self.shift)
        return (samples + self.shift // 2) // self.shift

    @property
    def dim(self) -> int:
        """Values per frame."""
        if self.kind == "mfcc":
            return self.kaldi.num_ceps
        return self.kaldi.mel_opts.num_bins + self.kaldi.use_energy


def read_conf(path: str | os.PathLike, types: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Read `--name=value` lines; `#` starts a comment.

    types: the allowed options with their types (None: any option, as text). Raises InputError naming file
    and line for a malformed line, an unknown or repeated option, or a value of the wrong type.
    """
    options: dict[str, Any] = {}
    with open(path, encoding="utf-8", errors="replace") as stream:  # invalid UTF-8 is not an option either
        for number, line in enumerate(stream, start=1):
            line = re.sub(r"(^|\s)#.*", "", line).strip()
            if not line:
                continue
            where = f"{path}: line {number}"
            found = re.fullmatch(r"--([a-z0-9-]+)=(\S+)", line)
            if not found:
                raise InputError(f"{where}: expected --name=value, found {line!r}")
            name, value = found.groups()
            if types is not None and name not in types:
                raise InputError(f"{where}: unknown option --{name}; allowed: {', '.join(sorted(types))}")
            if name in options:
                raise InputError(f"{where}: --{name} is given twice")
            options[name] = value if types is None else _convert(value, types[name], f"{where}: --{name}")
    return options


def read_feature_options(path: str | os.PathLike) -> FeatureOptions:
    """Read a feature file; raises InputError for options that are unknown or contradict each other."""
    kind = read_conf(path).get("feature-type")
    if kind not in _OF_TYPE:
        found = "no --feature-type" if kind is None else f"--feature-type={kind}"
        raise InputError(f"{path}: {found}; add the line --feature-type=mfcc or --feature-type=fbank")
    known = _OF_TYPE[kind]
    types = {name: value_type for name, (_, _, value_type) in known.items()}
    return _make(kind, read_conf(path, types | {"feature-type": str}), path)


def as_written_out(values: Mapping[str, Any], where: str) -> FeatureOptions:
    """Return the options from a mapping of `written_out`; raises InputError with `where` if it is not complete."""
    kind = values.get("feature-type")
    known = _OF_TYPE.get(str(kind))
    if known is None:
        raise InputError(f"{where}: feature-type is {kind!r}, wanted mfcc or fbank; train the model again")
    text = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in values.items()}
    options = _make(str(kind), {name: _convert(text[name], known[name][2], f"{where}: {name}")
                                for name in text if name in known}, where)
    whole = written_out(options)
    for name in [*whole, *values]:
        if values.get(name) != whole.get(name):
            raise InputError(f"{where}: {name} is {values.get(name, 'missing')}, wanted "
                             f"{whole.get(name, 'no such option')}; train the model again")
    return options


def _make(kind: str, values: Mapping[str, Any], where: str | os.PathLike) -> FeatureOptions:
    """Return the options of a kind of features. values: converted, by Kaldi's names."""
    known = _OF_TYPE[kind]
    kaldi = kaldi_native_fbank.MfccOptions() if kind == "mfcc" else kaldi_native_fbank.FbankOptions()
    kaldi.frame_opts.dither = 0.0
    for name, value in values.items():
        if name != "feature-type":
            group, attribute, _ = known[name]
            setattr(getattr(kaldi, group) if group else kaldi, attribute, value)
    _check(kaldi, kind, where)
    return FeatureOptions(kind, kaldi)


def written_out(options: FeatureOptions) -> dict[str, Any]:
    """Return every effective option by Kaldi's name, including defaults: equivalent files give equal results.

    Options that others switch off are left out; --high-freq is in Hz even if the file counts down from Nyquist.
    """
    found: dict[str, Any] = {"feature-type": options.kind}
    for name, (group, attribute, kind) in _OF_TYPE[options.kind].items():
        value = getattr(getattr(options.kaldi, group) if group else options.kaldi, attribute)
        found[name] = float(f"{value:.7g}") if kind is float else value  # the library keeps single precision
    if found["high-freq"] <= 0:
        found["high-freq"] += found["sample-frequency"] / 2
    unused = {"dither"}
    if found["window-type"] != "blackman":
        unused.add("blackman-coeff")
    if not found["use-energy"]:
        unused |= {"energy-floor", "raw-energy"}
    return {name: value for name, value in found.items() if name not in unused}


def _convert(value: str, kind: type, where: str) -> Any:
    readers: dict[type, Callable[[str], Any]] = {bool: {"true": True, "false": False}.__getitem__}
    try:
        found = readers.get(kind, kind)(value)
        if kind in (int, float) and not abs(found) < 2**31:  # also refuses NaN
            raise ValueError
        return found
    except (ValueError, KeyError) as error:
        wanted = {bool: "true or false", int: "a whole number below 2^31", float: "a number below 2^31"}[kind]
        raise InputError(f"{where}: expected {wanted}, found {value!r}") from error


def _check(kaldi: Any, kind: str, path: str | os.PathLike) -> None:
    """Refuse values that would abort the process in the C++ library, or make features differ between runs."""
    frame, mel = kaldi.frame_opts, kaldi.mel_opts
    nyquist = frame.samp_freq / 2
    high = mel.high_freq if mel.high_freq > 0 else nyquist + mel.high_freq
    checks = {
        "--dither must be 0: features are the same in each run": frame.dither == 0,
        "--sample-frequency must be a whole number from 1000 to 1000000":
            1000 <= frame.samp_freq <= 1e6 and frame.samp_freq % 1 == 0,
        "--frame-length and --frame-shift must be 1 to 1000 ms":
            1 <= frame.frame_length_ms <= 1000 and 1 <= frame.frame_shift_ms <= 1000,
        "--preemphasis-coefficient must be 0 to 1": 0 <= frame.preemph_coeff <= 1,
        "--energy-floor must not be negative": kaldi.energy_floor >= 0,
        "--cepstral-lifter must not be negative": kind != "mfcc" or kaldi.cepstral_lifter >= 0,
        f"--window-type must be one of {', '.join(WINDOWS)}": frame.window_type in WINDOWS,
        f"0 <= --low-freq < --high-freq <= {nyquist:g} Hz must hold": 0 <= mel.low_freq < high <= nyquist,
        "--num-mel-bins must be 3 to 512": 3 <= mel.num_bins <= 512,
        "--num-ceps must be 1 to --num-mel-bins": kind != "mfcc" or 1 <= kaldi.num_ceps <= mel.num_bins,
    }
    for message, holds in checks.items():
        if not holds:
            raise InputError(f"{path}: {message}")
