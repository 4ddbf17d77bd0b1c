"""The interface of front ends."""

import abc

from torch import Tensor, nn


class Frontend(nn.Module, abc.ABC):
    """The first part of a network.

    output_dim: F', values per frame that the encoder takes; rate: samples per second; shift: samples from one frame to
    the next. stored: whether its first part is fixed and gives the stored features, so that training, extraction and
    validation read these instead of audio; other front ends get audio. slow_rate: factor of the learning rate for
    `slow_parameters`.
    """

    stored = False
    slow_rate = 1.0
    output_dim: int
    rate: int
    shift: int

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.rate / self.shift

    def samples_of(self, frames: int) -> int:
        """Return the number of samples that give at least `frames` frames."""
        return frames * self.shift

    def initialise(self) -> None:  # noqa: B027  (most front ends have nothing to read)
        """Load the weights from which a training starts that starts from no trained network."""

    def slow_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that learn at another rate than the rest of the network."""
        return []

    @abc.abstractmethod
    def forward(self, samples: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the frames of whole utterances, B x T' x F', and the number of frames of each (None: all T').

        samples: B x N, 16-bit scale, at `rate`; lengths: B, samples of each that count; None: all N. Samples beyond an
        utterance's end never change its frames.
        """

    def chunks(self, samples: Tensor) -> Tensor:
        """Return the frames of training chunks, B x N to B x T x F': pieces of utterances, all of the same length."""
        return self(samples)[0]
