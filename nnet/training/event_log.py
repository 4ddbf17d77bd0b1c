"""Display of a training run: TensorBoard's event files, and a line beside the progress bar."""

import resource
import sys
from pathlib import Path

import torch
from torch.utils.tensorboard import SummaryWriter


class Watch:
    """Writes event files into a folder, and keeps the latest figures for the bar."""

    def __init__(self, folder: Path, step: int, device: torch.device) -> None:
        self.device = device
        self.writer = SummaryWriter(str(folder), purge_step=step)  # drop events newer than the checkpoint
        self.figures: dict[str, float] = {}

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Record figures, such as {"loss": 3.2}, after `step` steps."""
        self.figures |= figures
        for name, value in figures.items():
            self.writer.add_scalar(name, value, step)

    def memory_gb(self) -> float:
        """Return the peak memory of the GPU, or on a CPU of the process; GB."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e9 if sys.platform == "darwin" else 1e6)

    def line(self) -> str:
        """Return the text beside the bar."""
        if "loss" not in self.figures:
            return ""
        return (f"loss {self.figures['loss']:.3f}, {self.figures['utterances_per_second']:.0f} utt/s, waiting "
                f"{self.figures['waiting']:.1%}, {self.memory_gb():.1f} GB")

    def close(self) -> None:
        """Finish the files."""
        self.writer.close()

