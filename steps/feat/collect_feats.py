"""Join the outputs of steps/make_feats.sh's jobs and the input's tables into a data directory.

Utterances that failed are left out, counted and named; if they exceed the share --max-failed, nothing is written.
Files that had to be converted (other sampling rates, more channels) or hold no sound are counted over the whole
directory, and named.
"""

import argparse
import json
import sys
from itertools import chain
from pathlib import Path

from steps.feat.compute_feats import Report
from utils.arguments import share
from utils.audio import SOUNDLESS
from utils.errors import InputError, first_five, run_main
from utils.kaldi.ark import read_table
from utils.kaldi.data_dir import DataDir, read_data_dir, separate, write_data_dir
from utils.kaldi.trials import list_files, trial_lines


def read_reports(output: Path, jobs: int) -> Report:
    """Return the sum of the jobs' reports."""
    total = Report()
    for job in range(1, jobs + 1):
        report = json.loads((output / f"log/report.{job}.json").read_text(encoding="utf-8"))
        total.failed |= report["failed"]
        for note, (count, names) in report["notes"].items():
            before, known = total.notes.get(note, (0, []))
            total.notes[note] = before + count, [*known, *names][:5]
    return total


def check_failures(failed: dict[str, str], count: int, max_failed: float, data: Path) -> None:
    """Name the failed utterances; raises InputError if they exceed the share `max_failed` of `count`."""
    for name, message in list(failed.items())[:5]:
        print(f"warning: {name}: {message}", file=sys.stderr)
    summary = f"{data}: {len(failed)} of {count} utterances have no features: {first_five(failed)}"
    if len(failed) > max_failed * count:
        raise InputError(f"{summary}; repair or remove them, or allow a share with --max-failed")
    if failed:
        print(f"warning: {summary}; left out", file=sys.stderr)


def join(output: Path, jobs: int, pattern: str) -> tuple[list[str], list[str]]:
    """Return the ids and values of the jobs' tables, joined in order; pattern: such as feats.{}.scp."""
    tables = [read_table(output / pattern.format(job)) for job in range(1, jobs + 1)]
    return list(chain(*(ids for ids, _ in tables))), list(chain(*(values for _, values in tables)))


def collect(data: Path, output: Path, jobs: int, max_failed: float) -> None:
    """Write the tables of the data directory `output`, whose archives exist already."""
    separate(output, [data])
    source = read_data_dir(data)
    report = read_reports(output, jobs)
    for note, (count, names) in sorted(report.notes.items()):
        what = "without speech" if note in SOUNDLESS else "converted"
        more = f" and {count - len(names)} more" if count > len(names) else ""
        print(f"warning: {data}: {count} files of {note}, {what}: {', '.join(names)}{more}", file=sys.stderr)
    check_failures(report.failed, len(source.ids), max_failed, data)
    ids, places = join(output, jobs, "feats.{}.scp")
    lengths = dict(zip(*join(output, jobs, "log/utt2num_frames.{}"), strict=True))
    kept = source.select([row for row, name in enumerate(source.ids) if name not in report.failed])
    if kept.ids != ids or list(lengths) != ids:
        raise InputError(f"{output}: the jobs' features do not match {data}, which has changed; run again")
    columns = {name: column for name, column in kept.columns.items() if name != "vad.scp"}
    columns |= {"feats.scp": places, "utt2num_frames": list(lengths.values())}
    trials = {path.name: trial_lines(path) for path in list_files(data)}
    write_data_dir(output, DataDir(ids, columns), trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--nj", type=int, default=1, help="number of parts")
    parser.add_argument("--max-failed", type=share("--max-failed"), default=0.0,
                        help="share of utterances that may fail")
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    collect(arguments.data, arguments.output, arguments.nj, arguments.max_failed)


if __name__ == "__main__":
    run_main(main)
