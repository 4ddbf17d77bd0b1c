"""Programs that import from utils end quietly on Ctrl-C: by the signal, status 130, without a traceback."""

import sys
from types import TracebackType


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


def _hook_at_exit(unraisable: "sys.UnraisableHookArgs") -> None:
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


sys.excepthook, sys.unraisablehook = _hook, _hook_at_exit
