"""Signals that a queue sends some seconds before it ends a job: SIGTERM or SIGUSR1."""

import os
import signal
from pathlib import Path
from types import FrameType

from utils.jobs.task import REQUEUE


def note_stop() -> None:
    """Tell utils/torchrun_here, which starts several processes, that the state is saved and training will go on."""
    if note := os.environ.get("VOX_STOPPED"):
        Path(note).touch()


class Stopper:
    """Notes a signal for the training loop, which saves and exits; exits at once while nothing is unsaved."""

    def __init__(self) -> None:
        self.asked = False
        self.nothing_unsaved = True
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if self.nothing_unsaved:
            note_stop()
            raise SystemExit(REQUEUE)
