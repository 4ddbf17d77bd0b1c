"""Traces a file of scores through the records of the steps that made it (utils/jobs/done.py).

A record names its inputs; most of them are outputs of other records of the work folder, down to the data directories.
Scores are valid as long as no input in this chain has changed. Their origin is the seed of the model's training, the
scale of its configuration, and the code versions of all steps in the chain.
"""

import functools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from utils.errors import InputError
from utils.jobs.fingerprint import RECORD, fingerprint, of_content, read_record
from utils.systems import scale_of


class Origin(NamedTuple):
    """The origin of a file of scores; `-` where no record states it."""

    seed: str
    scale: str
    code: str  # several versions, oldest first, are joined by +


class Judged(NamedTuple):
    """The verdict on a record and all before it: why they are invalid (None: valid), and which code ran when."""

    reason: str | None
    code: frozenset[tuple[str, str]]  # (time, version)


class Provenance:
    """The records of a work folder, each read and judged once."""

    def __init__(self, work: Path) -> None:
        self.work = work.absolute()
        self.known: dict[Path, Judged] = {}
        self.fingerprint = functools.cache(fingerprint)  # of a data directory: sizes and times of all its audio

    def of_scores(self, scores: Path) -> Origin | str:
        """Return the origin of exp/<system>/scores_<set>/<list>.<backend>, or the reason why it must not be used."""
        record = scores.with_name(f"{RECORD}.{scores.name}")
        if not record.is_file():
            return "scores without a record"
        made = read_record(record)["outputs"].get(scores.name)
        if of_content(scores) != made:
            return "scores changed since they were made"
        found = self.judge(record)
        if found.reason:
            return found.reason
        # A fusion has no model: its scores come from those of several, which its record names.
        inputs = self.paths(read_record(record)["inputs"])
        fused = [path for path in inputs.values() if path.parent.name == scores.parent.name]
        models = dict.fromkeys(path.parents[1] for path in (scores, *fused))
        trained = [self.training(model / RECORD) for model in models if (model / RECORD).is_file()] or [("-", "-")]
        seed, scale = ("+".join(dict.fromkeys(values)) for values in zip(*trained, strict=True))
        return Origin(seed, scale, "+".join(dict.fromkeys(version for _, version in sorted(found.code))))

    def training(self, record: Path) -> tuple[str, str]:
        """Return the seed and the scale in a model's record."""
        said = read_record(record)
        configurations = [path for name, path in self.paths(said["inputs"]).items() if name.endswith(".yaml")]
        return said["options"].get("seed", "-"), next(map(scale_of, configurations), "-")

    def judge(self, record: Path) -> Judged:
        """Follow the inputs of a record back to their origins."""
        if record in self.known:
            return self.known[record]
        self.known[record] = Judged(None, frozenset())  # a record that leads back to itself ends here
        said = read_record(record)
        reason, code = None, {(said.get("finished", ""), said.get("code", "unknown"))}
        paths = self.paths(said["inputs"])
        for name, then in said["inputs"].items():
            path = paths[name]
            shown = path.relative_to(self.work) if path.is_relative_to(self.work) else path
            try:
                reason = reason or (None if self.fingerprint(path) == then else f"input {shown} changed")
            except InputError:
                reason = reason or f"input {shown} is gone"
            for source in self.makers(path):
                before = self.judge(source)
                reason, code = reason or before.reason, code | before.code
        self.known[record] = Judged(reason, frozenset(code))
        return self.known[record]

    def paths(self, names: Iterable[str]) -> dict[str, Path]:
        """Return the present paths of a record's inputs: the work folder may have been moved or copied since.

        Its place then is the folder that holds the `data` or `exp` of most inputs; an input elsewhere, such as the
        model that a training started from, has stayed where it was.
        """
        found = {name: Path(name).absolute() for name in names}
        roots = Counter(path.parents[len(path.parts) - place - 1] for path in found.values()
                        for place, part in enumerate(path.parts) if part in ("data", "exp"))
        then = max(roots, key=lambda root: (roots[root], len(root.parts)), default=self.work)
        moved = {name: self.work / path.relative_to(then) for name, path in found.items() if path.is_relative_to(then)}
        return found | {name: path for name, path in moved.items() if path.exists()}

    @staticmethod
    def makers(path: Path) -> list[Path]:
        """Return the records of the steps that made a folder or a file."""
        if path.name.startswith(RECORD):
            return [path] if path.is_file() else []
        if (path / RECORD).is_file():
            return [path / RECORD]
        if path.is_dir():  # perhaps one of several folders that a step has made, such as a chain of train_backend.sh
            return [record for record in (path.parent / RECORD,) if record.is_file()
                    and any(name.startswith(f"{path.name}/") for name in read_record(record)["outputs"])]
        return [record for record in sorted(path.parent.glob(f"{RECORD}*")) if record.is_file()
                and path.name in read_record(record)["outputs"]]
