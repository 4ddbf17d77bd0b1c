"""Site options of an engine, in the format of Kaldi's queue.conf: translate a launcher's options to the engine's.

    command qsub -V -cwd        # the program and its fixed options
    option mem=* -l mem_free=$0 # for --mem 4G: `-l mem_free=4G`
    option num_threads=1        # an exact value takes precedence over `*`; this one adds nothing
    option num_threads=* -pe smp $0
    default gpu=0               # as if --gpu 0 had been given
"""

import shlex
from pathlib import Path

from utils.errors import InputError


class EngineConfig:
    """The contents of one configuration file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.command: list[str] = []
        self.options: dict[tuple[str, str], list[str]] = {}
        self.defaults: dict[str, str] = {}
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise InputError(f"--config {path}: no such file, or not a text file") from error
        for number, line in enumerate(lines, start=1):
            try:
                words = shlex.split(line, comments=True)
                self._take(words)
            except ValueError as error:
                raise InputError(f"{path}: line {number}: {error or 'not understood'}: {line!r}") from error
        if not self.command:
            raise InputError(f"{path}: no line `command ...`")

    def _take(self, words: list[str]) -> None:
        if not words:
            return
        kind, *rest = words
        if kind == "command" and rest:
            self.command = rest
        elif kind == "option" and rest and "=" in rest[0]:
            name, value = rest[0].split("=", 1)
            self.options[name.replace("-", "_"), value] = rest[1:]
        elif kind == "default" and len(rest) == 1 and "=" in rest[0]:
            name, value = rest[0].split("=", 1)
            self.defaults[name.replace("-", "_")] = value
        else:
            raise ValueError("expected `command ...`, `option name=value ...` or `default name=value`")

    def words(self, given: dict[str, str]) -> list[str]:
        """Return the engine's command for a launcher's options; an option without a line is an error."""
        words = list(self.command)
        for name, value in {**self.defaults, **{key.replace("-", "_"): value for key, value in given.items()}}.items():
            added = self.options.get((name, value), self.options.get((name, "*")))
            if added is None:
                raise InputError(f"{self.path}: no line `option {name}={value}` or `option {name}=*` says what --"
                                 f"{name.replace('_', '-')} {value} means at this site; add one")
            words += [word.replace("$0", value) for word in added]
        return words
