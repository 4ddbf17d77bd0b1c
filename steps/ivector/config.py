"""What an i-vector system's configuration may say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from steps.feat.frontend import FrontendOptions
from utils.config import build, read_yaml


@dataclass(frozen=True)
class UbmOptions:
    """The universal background model, first diagonal, then with full covariances."""

    num_gaussians: int
    num_frames: int = 1_000_000    # drawn from all utterances, kept in memory: 4 bytes x dimension each
    split_iterations: int = 20     # of EM while Gaussians are split, from half of them, and while they settle
    diagonal_iterations: int = 4
    full_iterations: int = 4
    num_gselect: int = 20          # Gaussians a frame, chosen by the diagonal model
    min_weight: float = 1e-4       # a Gaussian with less keeps its shape

    def __post_init__(self) -> None:
        if self.num_gaussians < 2 or self.num_frames < self.num_gaussians:
            raise ValueError(f"num_gaussians is {self.num_gaussians} and num_frames {self.num_frames}; wanted 2 or "
                             "more Gaussians and more frames than Gaussians")


@dataclass(frozen=True)
class ExtractorOptions:
    """The total-variability model."""

    dim: int
    iterations: int = 5
    min_post: float = 0.025        # smaller posteriors count as 0
    cache_gb: float = 2.0          # of utterances' statistics kept between iterations; what is beyond is recomputed
    parts: int = 8                 # of the training data, each summed by itself: the most jobs that can share them
    update_ubm: bool = False       # means of the UBM follow the model, with new posteriors in each iteration

    def __post_init__(self) -> None:
        if self.dim < 2 or self.iterations < 1 or self.parts < 1:
            raise ValueError(f"dim is {self.dim}, iterations {self.iterations} and parts {self.parts}; wanted at least "
                             "2, 1 and 1")


@dataclass(frozen=True)
class IvectorConfig:
    """One system's YAML."""

    kind: Literal["ivector"]
    features: str
    ubm: UbmOptions
    extractor: ExtractorOptions
    frontend: FrontendOptions = field(default_factory=FrontendOptions)
    backend: dict[str, Any] = field(default_factory=dict)  # read by steps/backend


def read_ivector_config(path: Path) -> IvectorConfig:
    """Read a resolved configuration; raises InputError naming file and key."""
    return build(IvectorConfig, read_yaml(path), str(path))
