"""The keys of an i-vector system's configuration.

As a program, it writes a configuration without its back-end: the part that its models and i-vectors depend on.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml

from utils.config import Count, NotNegative, Range, Share, Whole, build
from utils.errors import run_main
from utils.features.frontend import FrontendOptions
from utils.files import write_if_changed
from utils.settings import keys_of
from utils.strict_yaml import read_yaml
from utils.systems import SCALE_LINE, scale_of

TwoOrMore = Annotated[int, Range(least=2)]


@dataclass(frozen=True)
class UbmOptions:
    """The universal background model, first diagonal, then with full covariances."""

    num_gaussians: TwoOrMore
    num_frames: Count = 1_000_000  # drawn from all utterances, kept in memory: 4 bytes x dimension each
    subsample: Whole = 0           # later iterations see every so many-th frame of all utterances; 0: the drawn ones
    split_iterations: Whole = 20   # initial EM iterations; the first half splits Gaussians, from half of them to all
    diagonal_iterations: Whole = 4
    full_iterations: Whole = 4
    num_gselect: Count = 20        # Gaussians per frame, chosen by the diagonal model
    min_weight: Share = 1e-4       # a Gaussian with a smaller weight keeps its mean and covariance
    parts: Count = 8               # of the frames, summed separately; also the largest useful number of jobs

    def __post_init__(self) -> None:
        if self.num_frames < self.num_gaussians:
            raise ValueError(f"num_gaussians is {self.num_gaussians} and num_frames {self.num_frames}; wanted more "
                             "frames than Gaussians")


@dataclass(frozen=True)
class ExtractorOptions:
    """The total-variability model."""

    dim: TwoOrMore
    longest: Whole = 0             # train on this many of the longest utterances; 0: on all
    iterations: Count = 5
    min_post: Share = 0.025        # smaller posteriors count as 0
    cache_gb: NotNegative = 2.0    # statistics of utterances kept between iterations; the rest is recomputed
    parts: Count = 8               # of the training data, summed separately; also the largest useful number of jobs
    update_ubm: bool = False       # the UBM's means follow the model, with new posteriors in each iteration


@dataclass(frozen=True)
class IvectorConfig:
    """One system's YAML."""

    kind: Literal["ivector"]
    features: str
    ubm: UbmOptions
    extractor: ExtractorOptions
    frontend: FrontendOptions = field(default_factory=FrontendOptions)
    backend: Any = None  # chains: read by steps/backend


def read_ivector_config(path: Path) -> IvectorConfig:
    """Read a resolved configuration; raises InputError naming file and key."""
    return build(IvectorConfig, read_yaml(path), str(path))


def settable_keys(mapping: dict[str, Any], where: str) -> list[str]:
    """Return the dotted keys that a configuration may have, such as ubm.num_gaussians; raises InputError like above."""
    build(IvectorConfig, mapping, where)
    return list(keys_of(IvectorConfig, mapping, {}, ("kind",)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("config", type=Path, help="resolved configuration, as `utils.config resolve` prints it")
    parser.add_argument("out", help="YAML file")
    arguments = parser.parse_args()
    read_ivector_config(arguments.config)
    found = {key: value for key, value in read_yaml(arguments.config).items() if key != "backend"}
    text = yaml.safe_dump(found, sort_keys=False, width=100)
    write_if_changed(arguments.out, f"{SCALE_LINE}{scale_of(arguments.config)}\n{text}")


if __name__ == "__main__":
    run_main(main)
