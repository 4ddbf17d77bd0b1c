"""Processing of stored features before a model sees them: deltas, normalisation, selection of voiced frames."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from utils.config import Count, Whole
from utils.errors import InputError
from utils.features.cmvn import normalise
from utils.features.deltas import add_deltas


@dataclass(frozen=True)
class FrontendOptions:
    """Options in the order of application, which is that of Kaldi's i-vector recipe."""

    type: Literal["kaldi"] = "kaldi"
    deltas: Whole = 0       # derivatives appended to the features: 1 doubles, 2 triples the dimension
    delta_window: Count = 2  # frames on each side for one derivative
    # utterance: over all of it, before chunks are cut; chunk: over each chunk that the model sees, on its own
    cmn: Literal["none", "utterance", "chunk", "sliding"] = "none"
    cmn_window: Count = 300  # frames of the sliding window, centred
    norm_vars: bool = False  # divide by the standard deviation as well
    vad: bool = False       # keep voiced frames only

    def __post_init__(self) -> None:
        if self.delta_window != 2 and not self.deltas:
            raise ValueError(f"delta_window is {self.delta_window}, but deltas is 0; leave it out")
        if self.cmn_window != 300 and self.cmn != "sliding":
            raise ValueError(f"cmn_window is {self.cmn_window}, but cmn is {self.cmn}; it needs cmn sliding")
        if self.norm_vars and self.cmn == "none":
            raise ValueError("norm_vars needs cmn utterance, chunk or sliding")

    def output_dim(self, feature_dim: int) -> int:
        """Return the dimension after the front end."""
        return feature_dim * (self.deltas + 1)


WHOLE = 2**31  # more frames than an utterance has


def frontend_margin(options: FrontendOptions) -> int:
    """Return how many frames on each side of a chunk the front end needs."""
    if options.cmn == "utterance":
        return WHOLE
    window = options.cmn_window if options.cmn == "sliding" else 0
    return options.deltas * options.delta_window + window


def apply_frontend(features: np.ndarray, vad: np.ndarray | None, options: FrontendOptions,
                   keep: tuple[int, int] | None = None) -> np.ndarray:
    """Return the frames that a model sees, T' x F', float32.

    features: T x F; vad: T values, 0 for unvoiced (used only with options.vad).
    keep: the frames to return, start and stop; the others are context. A chunk start..stop of an utterance,
        read with `frontend_margin` more frames on each side if the utterance has them, gives the
        frames start..stop of the whole utterance's result (cmn chunk: normalised over the chunk alone).
    An utterance without any voiced frame keeps all its frames, because trials may need it. compute_vad
    counts and names such utterances. Raises InputError if vad is missing or differs in length.
    """
    kept = slice(None) if keep is None else slice(*keep)
    if options.vad and (vad is None or len(vad) != len(features)):
        found = "no decisions" if vad is None else f"{len(vad)} decisions"
        raise InputError(f"{len(features)} frames but {found} on voicing; run steps/compute_vad.sh again")
    features = features.astype(np.float32, copy=False)
    if options.deltas:
        features = add_deltas(features, options.deltas, options.delta_window)
    if options.cmn == "chunk":
        features = normalise(features[kept], None, options.norm_vars)
    elif options.cmn != "none":
        window = options.cmn_window if options.cmn == "sliding" else None
        features = normalise(features, window, options.norm_vars)[kept]
    else:
        features = features[kept]
    if not options.vad:
        return features
    voiced = np.asarray(vad)[kept] != 0
    return features[voiced] if voiced.any() else features
