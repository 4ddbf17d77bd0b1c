"""Kaldi's MFCC and log mel energies, with derivatives, normalisation and voice activity, computed on the device.

The steps and their order are those of Kaldi's feature-window.cc, feature-fbank.cc and feature-mfcc.cc, for the options
that a feature file may set. Stored features come from kaldi-native-fbank (utils/features/compute.py); both agree
(tests/unit/test_waveform.py). Each has its use: 64 chunks of 3 s take 0.07 s here and 0.12 s there (two cores, two
threads), and this code also runs on a GPU; but with it the jobs of stage 1 would need PyTorch, 0.1 GB more memory and
one more second to start.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nnet.frontends.interface import Frontend
from nnet.precision import in_full_precision
from utils.errors import InputError
from utils.features.cmvn import VARIANCE_FLOOR
from utils.features.deltas import delta_filters
from utils.features.frontend import FrontendOptions
from utils.features.model_features import Options
from utils.features.options import FeatureOptions, as_written_out
from utils.features.vad import energy_vad, vad_options

BLOCK = 4096  # frames of an utterance computed at a time


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Return 1127 ln(1 + f / 700)."""
    return 1127 * np.log1p(hz / 700)


def mel_banks(bins: int, size: int, rate: float, low: float, high: float) -> np.ndarray:
    """Return the triangles' weights, size/2 x bins; high: Hz, or an offset from Nyquist if it is not positive."""
    high = high if high > 0 else rate / 2 + high
    edges = np.linspace(*hz_to_mel(np.array([low, high])), bins + 2)
    mel = hz_to_mel(np.arange(size // 2) * rate / size)[:, None]
    up = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(up, down), 0)


def make_window(kind: str, length: int, blackman: float) -> np.ndarray:
    """Return Kaldi's window function of `length` points."""
    phase = 2 * math.pi / (length - 1) * np.arange(length)
    hann = 0.5 - 0.5 * np.cos(phase)
    return {"hanning": hann, "povey": hann**0.85, "hamming": 0.54 - 0.46 * np.cos(phase),
            "sine": np.sin(phase / 2), "rectangular": np.ones_like(phase),
            "blackman": blackman - 0.5 * np.cos(phase) + (0.5 - blackman) * np.cos(2 * phase)}[kind]


def dct(cepstra: int, bins: int, lifter: float) -> np.ndarray:
    """Return the cosine transform from log mel energies to liftered cepstra: bins x cepstra."""
    order = np.arange(cepstra)
    cosines = np.cos(math.pi / bins * (np.arange(bins)[:, None] + 0.5) * order) * math.sqrt(2 / bins)
    cosines[:, 0] = math.sqrt(1 / bins)
    return cosines * (1 + 0.5 * lifter * np.sin(math.pi * order / lifter)) if lifter else cosines


class KaldiFeatures(nn.Module):
    """B x N samples (16-bit scale, at the options' rate) -> B x T x F; no parameters, no gradient."""

    def __init__(self, options: FeatureOptions) -> None:
        super().__init__()
        kaldi, frame, mel = options.kaldi, options.kaldi.frame_opts, options.kaldi.mel_opts
        if kaldi.htk_compat or (options.kind == "fbank" and not kaldi.use_power) or (
                options.kind == "fbank" and not kaldi.use_log_fbank):
            raise InputError("features on the device: --htk-compat=true, --use-power=false and --use-log-fbank=false "
                             "are not supported; remove them from the feature file")
        self.options, self.shift, self.length = options, options.shift, options.length
        self.size = 1 << (self.length - 1).bit_length() if frame.round_to_power_of_two else self.length
        constants = {"window": make_window(frame.window_type, self.length, frame.blackman_coeff), "banks": mel_banks(
            mel.num_bins, self.size, frame.samp_freq, mel.low_freq, mel.high_freq)}
        if options.kind == "mfcc":
            constants["cosines"] = dct(kaldi.num_ceps, mel.num_bins, kaldi.cepstral_lifter)
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(value.astype(np.float32)), persistent=False)

    def frames(self, samples: Tensor, snip_edges: bool) -> Tensor:
        """Return B x T x window frames; without snip-edges, the ends are mirrored."""
        if not snip_edges:
            count = (samples.shape[1] + self.shift // 2) // self.shift
            first = self.shift // 2 - self.length // 2
            place = torch.arange(first, first + (count - 1) * self.shift + self.length, device=samples.device)
            period = place.new_full((), 2 * samples.shape[1])  # a tensor, which ONNX takes where it takes no number
            place = place.remainder(period)
            samples = samples[:, torch.minimum(place, period - 1 - place)]
        if samples.shape[1] < self.length:
            raise InputError(f"{samples.shape[1]} samples are too short for one frame")
        return samples.unfold(1, self.length, self.shift)

    def log_energy(self, x: Tensor) -> Tensor:
        """Return the logarithm of the frames' energies, floored: B x T."""
        energy = x.square().sum(dim=2).clamp_min(torch.finfo(torch.float32).eps).log()
        floor = self.options.kaldi.energy_floor
        return energy.clamp_min(math.log(floor)) if floor > 0 else energy

    @torch.no_grad()
    def forward(self, samples: Tensor, snip_edges: bool | None = None) -> Tensor:
        """snip_edges: whether all frames lie within the samples; None: as in the options."""
        snip_edges = self.options.kaldi.frame_opts.snip_edges if snip_edges is None else snip_edges
        if torch.compiler.is_exporting():  # a graph has no blocks: their number depends on the length
            return self.of_frames(self.frames(samples, snip_edges))
        with in_full_precision(samples):
            # In blocks: the frames of an hour take a hundred times the memory of its samples.
            return torch.cat([self.of_frames(x) for x in self.frames(samples.float(), snip_edges).split(BLOCK, dim=1)],
                             dim=1)

    def of_frames(self, x: Tensor) -> Tensor:
        """Return the features of frames: B x T x window to B x T x F."""
        kaldi, frame = self.options.kaldi, self.options.kaldi.frame_opts
        if frame.remove_dc_offset:
            x = x - x.mean(dim=2, keepdim=True)
        energy = self.log_energy(x) if kaldi.use_energy and kaldi.raw_energy else None
        before = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
        x = before.mul_(-frame.preemph_coeff).add_(x).mul_(self.window)
        if kaldi.use_energy and not kaldi.raw_energy:
            energy = self.log_energy(x)
        spectrum = torch.view_as_real(torch.fft.rfft(x, self.size)[:, :, :self.size // 2])
        power = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
        mel = (power @ self.banks).clamp_min(torch.finfo(torch.float32).eps).log()
        if self.options.kind == "fbank":
            return mel if energy is None else torch.cat([energy[:, :, None], mel], dim=2)
        cepstra = mel @ self.cosines
        return cepstra if energy is None else torch.cat([energy[:, :, None], cepstra[:, :, 1:]], dim=2)


def frontend_of_batch(x: Tensor, options: FrontendOptions) -> Tensor:
    """Apply utils/features/frontend.py, except voicing, to each matrix: B x T x F to B x T x F'."""
    frames = x.shape[1]
    if options.deltas:
        reach = options.deltas * options.delta_window
        padded = torch.cat([x[:, :1].expand(-1, reach, -1), x, x[:, -1:].expand(-1, reach, -1)], dim=1)
        filters = delta_filters(options.deltas, options.delta_window)
        x = torch.cat([sum(weight * padded[:, shift:shift + frames]
                           for shift, weight in enumerate(weights.tolist(), start=reach - len(weights) // 2) if weight)
                       for weights in filters], dim=2)
    if options.cmn == "none":
        return x
    # An exported graph takes utterances on both sides of the window's length, with the same result.
    if options.cmn != "sliding" or (not torch.compiler.is_exporting() and options.cmn_window >= frames):
        x = x - x.mean(dim=1, keepdim=True)
        variance = x.square().mean(dim=1, keepdim=True) if options.norm_vars else None
    else:
        start, end = windows_of(frames, options.cmn_window, x.device)
        mean = window_means(x, start, end)
        variance = window_means(x.double().square(), start, end) - mean.square() if options.norm_vars else None
        x = x - mean.float()
    return x if variance is None else x / variance.clamp_min(VARIANCE_FLOOR).sqrt().to(x.dtype)


def windows_of(frames: int, window: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return what utils.features.cmvn.sliding_windows does, as tensors: T first frames and T ends."""
    place = torch.arange(frames, device=device)
    last = (place[-1] + 1 - window).clamp_min(0)
    start = torch.minimum((place - window // 2).clamp_min(0), last)
    return start, torch.minimum(start + window, place[-1] + 1)


def window_means(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return the means of B x T x F over the window start..end of each frame, float64."""
    sums = nn.functional.pad(x.double().cumsum(dim=1), (0, 0, 1, 0))
    return (sums[:, end] - sums[:, start]) / (end - start)[:, None]


class KaldiFrontend(Frontend):
    """Features, derivatives, normalisation, voiced frames. For stored features, utils/features/frontend.py does all
    but the first step instead.

    Raises InputError if the options do not match the features.
    """

    stored = True

    def __init__(self, options: FrontendOptions, of_data: Options, feature_dim: int) -> None:
        super().__init__()
        self.options, self.output_dim = options, options.output_dim(feature_dim)
        self.vad = vad_options(of_data.vad, "voice activity") if of_data.vad else None
        self.features: KaldiFeatures | None = None
        if of_data.features is not None:
            features = as_written_out(of_data.features, "features")
            if features.dim != feature_dim:
                raise InputError(f"the feature options give {features.dim} values per frame, the features have "
                                 f"{feature_dim}; make them again")
            self.features = KaldiFeatures(features)
            self.rate, self.shift = features.rate, features.shift

    def samples_of(self, frames: int) -> int:
        return self.features.options.samples_of(frames)

    def forward(self, samples: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the (voiced) frames; all frames of an utterance without any voiced one."""
        if self.features is None:
            raise InputError("the feature options are unknown, so features cannot be computed; train on features of "
                             "steps/make_feats.sh")
        ends = [samples.shape[1]] * len(samples) if lengths is None else lengths.tolist()
        found = [self._utterance(x[:end]) for x, end in zip(samples, ends, strict=True)]
        return pad_sequence(found, batch_first=True), torch.tensor([len(x) for x in found], device=samples.device)

    def _utterance(self, samples: Tensor) -> Tensor:
        features = self.features(samples[None])
        frames = frontend_of_batch(features, self.options)[0]
        if not self.options.vad:
            return frames
        if self.vad is None:
            raise InputError("the options of the voice activity are unknown; run steps/compute_vad.sh and train again")
        voiced = torch.from_numpy(energy_vad(features[0].cpu().numpy(), self.vad) != 0).to(frames.device)
        return frames[voiced] if voiced.any() else frames

    def chunks(self, samples: Tensor) -> Tensor:
        """Return the frames that lie within the samples; derivatives and windows end at the chunk's ends."""
        return frontend_of_batch(self.features(samples, snip_edges=True), self.options)
