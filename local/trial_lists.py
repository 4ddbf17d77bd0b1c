"""VoxCeleb's trial lists: lines `1|0 <path> <path>`, 1 for two utterances of one speaker."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.corpus import utterance_id
from utils.errors import InputError
from utils.kaldi.table_values import BAD_ID

# Lists whose speakers are VoxCeleb1's test speakers: O, O cleaned, and their names in Kaldi's recipe.
ORIGINAL = ("veri_test.txt", "veri_test2.txt", "voxceleb1_test.txt", "voxceleb1_test_v2.txt")
# E, E cleaned, H, H cleaned, minivox's hard list, and those of simulated speakers.
OFFICIAL = (*ORIGINAL, "list_test_all.txt", "list_test_all2.txt", "list_test_hard.txt",
            "list_test_hard2.txt", "veri_test_hard.txt", "simulated_test.txt", "simulated_test_hard.txt")
PLACES = ("", "meta", "lists", "trials", "test", "dev", "wav", "test/wav")  # under the corpus folder
LABELS = {"1": "target", "0": "nontarget"}


@dataclass
class TrialList:
    """A trial list and its utterances."""

    path: Path
    names: Mapping[str, str]                                     # folder name -> speaker id
    trials: int = 0
    speakers: dict[str, str] = field(default_factory=dict)       # utterance -> speaker
    carriage_returns: int = 0
    written: int = 0                                             # trials yielded by `lines` so far

    def __post_init__(self) -> None:
        for first, second, _ in self.read():
            self.trials += 1
            for one, speaker in (first, second):
                self.speakers[one] = speaker
        if not self.trials:
            raise InputError(f"{self.path}: empty trial list; get the official one again")

    def read(self) -> Iterator[tuple[tuple[str, str], tuple[str, str], str]]:
        """Yield ((utterance, speaker), (utterance, speaker), label); raises InputError naming a bad line."""
        cache: dict[str, tuple[str, str]] = {}
        self.carriage_returns = 0
        with open(self.path, encoding="utf-8", errors="replace", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                self.carriage_returns += line.endswith("\r\n")
                fields = line.split()
                if not fields:
                    continue
                if len(fields) != 3:
                    raise InputError(f"{self.path}:{number}: {len(fields)} fields, expected `1|0 <path> <path>`; "
                                     "correct the line (write _ for a blank in a path)")
                if fields[0] not in LABELS:
                    raise InputError(f"{self.path}:{number}: label {fields[0]!r} is neither 1 nor 0; correct "
                                     "the line")
                for path in fields[1:]:
                    if path not in cache:
                        cache[path] = self._identify(path, number)
                if cache[fields[1]] == cache[fields[2]]:
                    raise InputError(f"{self.path}:{number}: a trial of {fields[1]} with itself; remove the line")
                yield cache[fields[1]], cache[fields[2]], LABELS[fields[0]]

    def _identify(self, path: str, number: int) -> tuple[str, str]:
        one, speaker = utterance_id(path, self.names)
        if not one or BAD_ID.search(one):
            raise InputError(f"{self.path}:{number}: {path!r} is not <speaker>/<video>/<utterance>.wav; "
                             "correct the line")
        return one, speaker

    def lines(self, present: Container[str]) -> Iterator[str]:
        """Yield the lines of a Kaldi trial list for the trials whose utterances are both in `present`."""
        for (first, _), (second, _), label in self.read():
            if first in present and second in present:
                self.written += 1
                yield f"{first} {second} {label}\n"


def find_files(root: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the files with these names in a corpus folder, in the order of `names`; only the first of each."""
    found = []
    for name in names:
        places = (root / place / name for place in PLACES)
        found += [path for path in places if path.is_file()][:1]
    return found
