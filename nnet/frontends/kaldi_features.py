"""Kaldi's log mel energies and MFCC of a batch of waveforms, and the front end, on the device, for systems that augment
online.

The steps and their order are those of Kaldi's feature-window.cc, feature-fbank.cc and feature-mfcc.cc, for the
options that a feature file may set; steps/feat computes the same for stored features.
"""

import math

import torch
from torch import Tensor, nn

from utils.errors import InputError
from utils.features.cmvn import VARIANCE_FLOOR, sliding_windows
from utils.features.deltas import delta_filters
from utils.features.frontend import FrontendOptions
from utils.features.options import FeatureOptions


def hz_to_mel(hz: Tensor) -> Tensor:
    """Return 1127 ln(1 + f / 700)."""
    return 1127 * torch.log1p(hz / 700)


def mel_banks(bins: int, size: int, rate: float, low: float, high: float) -> Tensor:
    """Return the triangles' weights, size/2 x bins; high: Hz, or from Nyquist down where it is not positive."""
    high = high if high > 0 else rate / 2 + high
    edges_hz = torch.tensor([low, high], dtype=torch.float64)
    first, last = hz_to_mel(edges_hz).tolist()
    edges = torch.linspace(first, last, bins + 2, dtype=torch.float64)
    mel = hz_to_mel(torch.arange(size // 2, dtype=torch.float64) * rate / size)[:, None]
    up = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    return torch.minimum(up, down).clamp_min(0)


def make_window(kind: str, length: int, blackman: float) -> Tensor:
    """Return Kaldi's window function of `length` points."""
    phase = 2 * math.pi / (length - 1) * torch.arange(length, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(phase)
    return {"hanning": hann, "povey": hann.pow(0.85), "hamming": 0.54 - 0.46 * torch.cos(phase),
            "sine": torch.sin(phase / 2), "rectangular": torch.ones_like(phase),
            "blackman": blackman - 0.5 * torch.cos(phase) + (0.5 - blackman) * torch.cos(2 * phase)}[kind]


class KaldiFeatures(nn.Module):
    """B x N samples (16-bit scale, at the options' rate) -> B x T x F; no parameters, no gradient."""

    def __init__(self, options: FeatureOptions) -> None:
        super().__init__()
        kaldi, frame, mel = options.kaldi, options.kaldi.frame_opts, options.kaldi.mel_opts
        if kaldi.htk_compat or (options.kind == "fbank" and not kaldi.use_power) or (
                options.kind == "fbank" and not kaldi.use_log_fbank):
            raise InputError("features on the device: --htk-compat=true, --use-power=false and --use-log-fbank=false "
                             "are not there; remove them from the feature file")
        self.options = options
        self.shift = round(frame.samp_freq * frame.frame_shift_ms) // 1000
        self.length = round(frame.samp_freq * frame.frame_length_ms) // 1000
        self.size = 1 << (self.length - 1).bit_length() if frame.round_to_power_of_two else self.length
        self.register_buffer("window", make_window(frame.window_type, self.length, frame.blackman_coeff).float(), False)
        banks = mel_banks(mel.num_bins, self.size, frame.samp_freq, mel.low_freq, mel.high_freq)
        self.register_buffer("banks", banks.float(), False)
        if options.kind == "mfcc":
            order = torch.arange(kaldi.num_ceps, dtype=torch.float64)
            cosines = torch.cos(math.pi / mel.num_bins * (torch.arange(mel.num_bins)[:, None] + 0.5) * order)
            cosines *= math.sqrt(2 / mel.num_bins)
            cosines[:, 0] = math.sqrt(1 / mel.num_bins)
            if kaldi.cepstral_lifter:
                cosines *= 1 + 0.5 * kaldi.cepstral_lifter * torch.sin(math.pi * order / kaldi.cepstral_lifter)
            self.register_buffer("cosines", cosines.float(), False)

    def frames(self, samples: Tensor, snip_edges: bool) -> Tensor:
        """Return B x T x window frames; without snip-edges, the ends are mirrored."""
        if not snip_edges:
            count = (samples.shape[1] + self.shift // 2) // self.shift
            first = self.shift // 2 - self.length // 2
            place = torch.arange(first, first + (count - 1) * self.shift + self.length, device=samples.device)
            period = 2 * samples.shape[1]
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
        """snip_edges: whether all frames lie within the samples; None: as the options have it."""
        kaldi, frame = self.options.kaldi, self.options.kaldi.frame_opts
        tiny = torch.finfo(torch.float32).eps
        with torch.autocast(samples.device.type, enabled=False):
            x = self.frames(samples.float(), frame.snip_edges if snip_edges is None else snip_edges)
            if frame.remove_dc_offset:
                x = x - x.mean(dim=2, keepdim=True)
            energy = self.log_energy(x) if kaldi.use_energy and kaldi.raw_energy else None
            before = torch.cat([x[:, :, :1], x[:, :, :-1]], dim=2)
            x = before.mul_(-frame.preemph_coeff).add_(x).mul_(self.window)
            if kaldi.use_energy and not kaldi.raw_energy:
                energy = self.log_energy(x)
            spectrum = torch.view_as_real(torch.fft.rfft(x, self.size)[:, :, :self.size // 2])
            power = spectrum[..., 0].square().addcmul_(spectrum[..., 1], spectrum[..., 1])
            mel = (power @ self.banks).clamp_min(tiny).log()
            if self.options.kind == "fbank":
                return mel if energy is None else torch.cat([energy[:, :, None], mel], dim=2)
            cepstra = mel @ self.cosines
            return cepstra if energy is None else torch.cat([energy[:, :, None], cepstra[:, :, 1:]], dim=2)


def frontend_of_batch(x: Tensor, options: FrontendOptions) -> Tensor:
    """Return what utils/features/frontend.py makes of each matrix, voicing apart: B x T x F to B x T x F'."""
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
    if options.cmn == "utterance" or options.cmn_window >= frames:
        x = x - x.mean(dim=1, keepdim=True)
        variance = x.square().mean(dim=1, keepdim=True) if options.norm_vars else None
    else:
        start, end = (torch.from_numpy(place).to(x.device) for place in sliding_windows(frames, options.cmn_window))
        mean = window_means(x, start, end)
        variance = window_means(x.double().square(), start, end) - mean.square() if options.norm_vars else None
        x = x - mean.float()
    return x if variance is None else x / variance.clamp_min(VARIANCE_FLOOR).sqrt().to(x.dtype)


def window_means(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Return the means of B x T x F over the frames start..end of each frame, float64."""
    sums = nn.functional.pad(x.double().cumsum(dim=1), (0, 0, 1, 0))
    return (sums[:, end] - sums[:, start]) / (end - start)[:, None]
