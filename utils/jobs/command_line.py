"""The command line of every launcher, the same as Kaldi's:

    <launcher> [--mem 4G] [--num-threads 4] [--gpu 1] [--max-jobs-run 10] [--time 24:00:00] [--retries 1]
               [--config FILE] [--dry-run] [JOB=1:n] <log> <command ...>

`--config` is only for engines. With `--dry-run`, a launcher prints its request and runs nothing. Any other option is an
error.
"""

import re
from dataclasses import dataclass

from utils.errors import InputError

OPTIONS = ("mem", "num-threads", "gpu", "max-jobs-run", "time", "retries", "nodes", "config")
ZERO_ALLOWED = ("gpu", "retries")


@dataclass
class Call:
    """One call of a launcher: an array of jobs `first`..`last`, each with its log and its command."""

    launcher: str
    options: dict[str, str]
    variable: str | None  # the whole word, usually JOB, that the job's number replaces
    first: int
    last: int
    log: str
    command: list[str]
    dry_run: bool = False

    @property
    def jobs(self) -> range:
        """The numbers of the jobs."""
        return range(self.first, self.last + 1)

    def number(self, option: str, default: int) -> int:
        """Return a numeric option; raises InputError if it is not a positive whole number."""
        value = self.options.get(option, str(default))
        if not re.fullmatch("[0-9]{1,9}", value) or int(value) < 1 and option not in ZERO_ALLOWED:
            raise InputError(f"{self.launcher}: --{option} is {value!r}, wanted a whole number above 0")
        return int(value)

    def words(self, job: int) -> list[str]:
        """Return the command of one job."""
        return [self.fill(word, job) for word in self.command]

    def fill(self, text: str, job: int) -> str:
        """Return `text` with the job variable, where it is a separate word, replaced by the number."""
        return re.sub(whole_word(self.variable), str(job), text) if self.variable else text

    def log_of(self, job: int) -> str:
        """Return the path of one job's log."""
        return self.fill(self.log, job)


def whole_word(variable: str) -> str:
    """Return a regular expression for a variable that is not part of another word: JOB in x.JOB, not in MYJOBS."""
    return rf"(?<![A-Za-z0-9_]){variable}(?![A-Za-z0-9_])"


def parse_call(launcher: str, words: list[str]) -> Call:
    """Read a launcher's command line; raises InputError on a wrong call."""
    options, rest, dry_run = {}, list(words), False
    while rest and rest[0].startswith("-"):
        name = rest.pop(0).lstrip("-")
        if name == "dry-run":
            dry_run = True
            continue
        if name not in OPTIONS:
            raise InputError(f"{launcher}: unknown option --{name}; allowed: --{', --'.join(OPTIONS)}, --dry-run")
        if not rest:
            raise InputError(f"{launcher}: option --{name} needs a value")
        options[name] = rest.pop(0)
    variable, first, last = None, 1, 1
    array = re.fullmatch(r"([A-Za-z_]+)=(\d+)(?::(\d+))?", rest[0]) if rest else None
    if array:
        variable, first, last = array[1], int(array[2]), int(array[3] or array[2])
        rest.pop(0)
        if first < 1 or last < first:
            raise InputError(f"{launcher}: empty job range {array[0]}")
    if len(rest) < 2:
        got = " ".join(words)
        raise InputError(f"{launcher}: wanted [options] [JOB=1:n] <log> <command ...>, got {got!r}")
    if variable and last > first and not re.search(whole_word(variable), rest[0]):
        raise InputError(f"{launcher}: the log {rest[0]} must contain {variable}, otherwise all jobs write to one file")
    return Call(launcher, options, variable, first, last, rest[0], rest[1:], dry_run)
