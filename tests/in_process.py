"""Calls our programs inside the test's process: a new process spends two seconds on importing torch."""

import contextlib
import importlib
import io
import signal
import subprocess
import sys
from unittest import mock

import torch

from utils.errors import run_main


def call(module: str, *words: object) -> subprocess.CompletedProcess:
    """Do what `python3 -m module words ...` does; return its status and output."""
    threads, watched = torch.get_num_threads(), (signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in watched}
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
          mock.patch.object(sys, "argv", [module, *map(str, words)])):
        try:
            run_main(importlib.import_module(module).main)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            torch.set_num_threads(threads)
            for number, handler in before.items():
                signal.signal(number, handler)
    return subprocess.CompletedProcess([module, *words], code, out.getvalue(), err.getvalue())
