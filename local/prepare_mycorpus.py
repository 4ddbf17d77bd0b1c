"""Make data/train and data/test from any folder of recordings, and a summary of it; see docs/own_corpus.md.

Every file is decoded once. Recordings that cannot be used (damaged, silent, without a speaker, of two speakers) are
named, and left out up to a share. Writes train, test with its trial lists, ids.tsv (what became of each file),
summary.txt and picked.sh (sizes for --scale auto); survey.jsonl keeps the measurements for the next call.
e.g.: python3 -m local.prepare_mycorpus --meta recordings.csv /corpora/mine data
"""

import argparse
import csv
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from local.auto_scale import Picked, pick
from local.corpus_summary import contents, reasons_against, remarks_on
from local.own_corpus import shown_name
from local.own_recordings import GENDERS, Corpus, known_of, leave_out, read_corpus
from local.own_trials import Heard, Line, draw_trials, group_of, place_of, read_list
from local.preflight import judge
from local.speaker_tables import write_speakers
from utils.arguments import seed, share
from utils.errors import InputError, first_five, run_main
from utils.files import encodable, write_aside
from utils.kaldi.data_dir import DataDir, write_data_dirs
from utils.systems import as_shell

LEAST_TEST = 4  # speakers: two of each gender, for the hard list


def hold_out(corpus: Corpus, amount: float, seed: int) -> set[int]:
    """Return the rows of randomly drawn test speakers, a share of those with two recordings, alike of each gender."""
    of_speaker: dict[str, list[int]] = {}
    for row in corpus.usable():
        of_speaker.setdefault(corpus.ids[row].partition("-")[0], []).append(row)
    known = known_of(corpus, corpus.usable())
    # The draw goes by the order of the sounds, so that it does not depend on names.
    fit = sorted((name for name, rows in of_speaker.items() if len({corpus.copies[row] for row in rows}) > 1),
                 key=lambda name: min(corpus.measured[row].digest for row in of_speaker[name]))
    number = max(LEAST_TEST, round(amount * len(of_speaker)))
    order = random.Random(seed).sample(fit, len(fit))
    genders: dict[str, list[str]] = {}
    for name in order:
        genders.setdefault(known[name].get("gender", "").lower(), []).append(name)
    # Each speaker has a place in its gender's order; the smallest places are drawn, so that every gender is tested.
    places = {name: (place + 0.5) / len(names) for names in genders.values() for place, name in enumerate(names)}
    drawn = sorted(order, key=places.__getitem__)[:number]
    return {row for name in drawn for row in of_speaker[name]}


def from_list(corpus: Corpus, lines: Sequence[Line], arguments: argparse.Namespace) -> tuple[set[int], list[str]]:
    """Return the rows that a given list tests, and its trials; bad ones become reasons not to train."""
    roots = [os.path.abspath(root) for root in (arguments.test, arguments.corpus) if root]
    def sound(row: int) -> tuple[int, str]:
        return corpus.copies[row], corpus.measured[row].digest

    kept = {sound(row): row for row in corpus.usable()}
    rows: dict[str, int] = {}
    for row, one in enumerate(corpus.recordings):
        if corpus.ids[row]:
            for place in (os.path.splitext(one.path)[0], one.path, corpus.ids[row]):
                rows[place] = kept.get(sound(row), row)  # of identical recordings of a speaker, one is in use
    places = {place: str(row) for place, row in rows.items()}
    words = dict.fromkeys(word for line in lines for word in (line.first, line.second))
    found = {word: place_of(word, roots, places) for word in words}
    row_of = {word: int(place) for word, place in found.items() if place and int(place) not in corpus.out}
    missing = [shown_name(word) for word in words if word not in row_of]
    corpus.attempt(lambda: judge(f"recordings of {arguments.trials} are not there, or cannot be used", missing,
                                 len(words), arguments.max_missing_trials, "--max-missing-trials",
                                 f"wanted paths relative to {' or '.join(map(str, roots))}, or utterance ids"))
    trials, wrong = {}, []
    for line in lines:
        if line.first in row_of and line.second in row_of:
            first, second = row_of[line.first], row_of[line.second]
            same = corpus.recordings[first].speaker == corpus.recordings[second].speaker
            if same != (line.label == "target") or first == second:
                wrong.append(f"line {line.number}: {line.first} {line.second} {line.label}")
            trials[corpus.ids[first], corpus.ids[second]] = line.label
    if wrong:
        corpus.reasons.append(f"{arguments.trials}: {len(wrong)} of {len(lines)} trials contradict the speakers that "
                              "the corpus names, or compare a recording with itself: "
                              f"{first_five(map(shown_name, wrong))}; correct the list, or how speakers are named")
    targets = sum(label == "target" for label in trials.values())
    if not corpus.reasons and not 0 < targets < len(trials):
        corpus.reasons.append(f"{arguments.trials}: {targets} target and {len(trials) - targets} non-target trials can "
                              "be used, and an error rate needs both; complete the list, or leave --trials out: "
                              "trials are drawn then")
    return ({row_of[word] for word in words if word in row_of},
            [f"{first} {second} {label}\n" for (first, second), label in sorted(trials.items())])


def divide(corpus: Corpus, arguments: argparse.Namespace) -> tuple[list[int], dict[str, list[str]], list[str]]:
    """Return the rows to train on, the trial lists (name -> lines), and what has been chosen, for the summary."""
    train, test = corpus.usable(test=False), corpus.usable(test=True)
    if arguments.trials:
        listed, lines = from_list(corpus, read_list(arguments.trials), arguments)
        tested = {corpus.recordings[row].speaker for row in listed}
        kept = [row for row in train if corpus.recordings[row].speaker not in tested]
        chosen = [f"test: {len(tested)} speakers of {arguments.trials}; {len(train) - len(kept)} recordings of them "
                  "are not trained on"]
        return kept, {arguments.trials.stem: lines}, chosen
    if arguments.test:
        trained, tested = ({corpus.recordings[row].speaker for row in rows} for rows in (train, test))
        corpus.attempt(lambda: judge(f"speakers of {arguments.test} are also in {arguments.corpus}",
                                     sorted(trained & tested), len(tested), arguments.max_shared_speakers,
                                     "--max-shared-speakers", "rename or remove them"))
        chosen = [f"test: all speakers of {arguments.test}"]
    else:
        held = hold_out(corpus, arguments.test_share, arguments.seed)
        test, train = sorted(held), [row for row in train if row not in held]
        names = sorted({corpus.recordings[row].speaker for row in test})
        chosen = [f"test: {len(names)} speakers held out at random (--test-share {arguments.test_share:g}, --seed "
                  f"{arguments.seed}): {first_five(map(shown_name, names))}"]
    lists, more = own_lists(corpus, test, arguments)
    return train, lists, chosen + more


def own_lists(corpus: Corpus, rows: Sequence[int], arguments: argparse.Namespace,
              ) -> tuple[dict[str, list[str]], list[str]]:
    """Return lists of trials that are drawn among these rows, and what the summary says of them."""
    tests = [Heard(corpus.measured[row].digest, corpus.ids[row], corpus.speakers[corpus.recordings[row].speaker],
                   corpus.recordings[row].session, corpus.copies[row]) for row in rows]
    columns, groups = group_of(known_of(corpus, rows), arguments.hard_by.split())
    lists, told = {"test": draw_trials(tests, arguments.seed)}, []
    sessions = {one.id: one.session for one in tests}
    across = sum(label == "target" and sessions[first] != sessions[second] for first, second, label in lists["test"])
    told.append(f"list test: {len(lists['test'])} trials, half of them targets, {across} of these of different "
                "sessions")
    if not columns:
        told.append("no hard list: no gender or other column of --meta sorts the test speakers into groups")
    else:
        try:
            lists["test_hard"] = draw_trials(tests, arguments.seed, groups)
            told.append(f"list test_hard: {len(lists['test_hard'])} trials, with non-targets of the same "
                        f"{' and '.join(columns)}")
        except InputError as error:
            told.append(f"no hard list by {' and '.join(columns)}: {error}")
    return {name: [f"{' '.join(trial)}\n" for trial in trials] for name, trials in lists.items()}, told


def write(corpus: Corpus, train: Sequence[int], lists: Mapping[str, list[str]], folder: Path) -> None:
    """Write both data directories with their lists and tables of speakers."""
    row_of = {name: row for row, name in enumerate(corpus.ids)}
    tested = {word for lines in lists.values() for line in lines for word in line.split()[:2]}
    sets = {}
    for name, rows in (("train", train), ("test", [row_of[one] for one in tested])):
        ordered = sorted(rows, key=corpus.ids.__getitem__)
        sets[name] = DataDir([corpus.ids[row] for row in ordered],
                             {"utt2spk": [corpus.speakers[corpus.recordings[row].speaker] for row in ordered],
                              "wav.scp": [corpus.paths[row] for row in ordered]})
    write_data_dirs({folder / "train": (sets["train"], {}), folder / "test": (sets["test"], lists)})
    known = known_of(corpus, corpus.usable())
    for name, data in sets.items():
        tables = {column: {speaker: short(column, cells[column]) for speaker, cells in known.items() if column in cells}
                  for column in ("gender", "age")}
        write_speakers(folder / name, data.speakers,
                       {column: {speaker: value for speaker, value in table.items() if value}
                        for column, table in tables.items()})


def short(column: str, value: str) -> str:
    """Return f, m or whole years, as in spk2gender and spk2age; "" if the value is none of these."""
    if column == "gender":
        return value if value in GENDERS.values() else ""
    return value if value.isascii() and value.isdigit() and len(value) < 4 else ""


def write_ids(corpus: Corpus, train: set[int], tested: set[str], path: Path) -> None:
    """Write what became of each file: id, speaker's id, set or reason, and all that the corpus says of it."""
    columns = list(dict.fromkeys(name for one in corpus.recordings for name in one.more))
    with write_aside(path) as stream:
        rows = csv.writer(stream, delimiter="\t", lineterminator="\n")
        rows.writerow(["utterance", "speaker_id", "used", "path", "speaker", "session", *columns])
        for row, one in enumerate(corpus.recordings):
            used = "train" if row in train else "test" if corpus.ids[row] in tested else "not used"
            used = corpus.out.get(row, used)
            cells = [corpus.ids[row], corpus.speakers.get(one.speaker, ""), used, one.path, one.speaker, one.session,
                     *(one.more.get(name, "") for name in columns)]
            rows.writerow([cell if encodable(cell) else ascii(cell)[1:-1] for cell in cells])


def prepare(arguments: argparse.Namespace) -> None:
    """Do all of it; the summary is printed and written also if there are reasons not to train, which follow."""
    corpus = read_corpus(arguments)
    leave_out(corpus, arguments)
    rows = corpus.usable()
    folders = level_counts([one.name for row, one in enumerate(corpus.recordings) if row not in corpus.tests])
    if not rows and not corpus.reasons:
        corpus.reasons.append(f"{arguments.corpus}: no recording is left to use")
    title = f"Corpus {shown_name(str(arguments.corpus))}"
    lines = contents(title, corpus.entries(rows)) if rows else [title]
    if rows:
        own_test = bool(arguments.test or arguments.trials)
        corpus.reasons += reasons_against(corpus.entries(corpus.usable(test=False)), own_test,
                                          [] if arguments.speaker_regex or arguments.meta else folders)
    train, lists, chosen, picked = [], {}, [], Picked("mini", "", 2)
    if not corpus.reasons:
        try:
            train, lists, chosen = divide(corpus, arguments)
            picked = size_of(corpus, train)
            chosen += chosen_sizes(corpus, train, picked)
        except InputError as error:
            corpus.reasons.append(str(error))
            chosen = []
    for head, told in (("Worth a look", [*corpus.remarks, *remarks_on(corpus.entries(rows))]), ("Chosen", chosen)):
        lines += ["", head, *(f"- {one}" for one in told)] if told else []
    print("\n".join(lines))
    if corpus.reasons:
        lines += ["", "Not to be trained on", *(f"- {reason}" for reason in corpus.reasons)]
    with write_aside(arguments.data / "summary.txt") as stream:
        stream.writelines(f"{line}\n" for line in lines)
    if corpus.reasons:
        for reason in corpus.reasons[:-1]:
            print(f"local.prepare_mycorpus: error: {reason}", file=sys.stderr)
        raise InputError(corpus.reasons[-1])
    write(corpus, train, lists, arguments.data)
    tested = {word for those in lists.values() for line in those for word in line.split()[:2]}
    write_ids(corpus, set(train), tested, arguments.data / "ids.tsv")
    with write_aside(arguments.data / "picked.sh") as stream:
        stream.write(as_shell({"picked_scale": picked.scale, "picked_set": picked.settings,
                               "picked_valid": str(picked.valid_speakers)}))


def size_of(corpus: Corpus, train: Sequence[int]) -> Picked:
    """Return what suits the training data; raises InputError if too few speakers are left in them."""
    speakers = {corpus.recordings[row].speaker for row in train}
    if len(speakers) < 4:
        named = f" ({first_five(map(shown_name, sorted(speakers)))})" if speakers else ""
        raise InputError(f"{len(speakers)} speakers are left to train on{named}, wanted 4 or more: "
                         "2 validate; hold fewer out with --test-share, or add speakers")
    return pick(len(speakers), hours_of(corpus, train), len(train))


def hours_of(corpus: Corpus, rows: Sequence[int]) -> float:
    """Return the hours of some recordings."""
    return sum(corpus.measured[row].seconds for row in rows) / 3600


def chosen_sizes(corpus: Corpus, train: Sequence[int], picked: Picked) -> list[str]:
    """Return what the summary says of the training data and the sizes for them."""
    speakers = len({corpus.recordings[row].speaker for row in train})
    few = "; with so few, results say little" if speakers < 50 else ""
    return [f"train: {speakers} speakers, {len(train)} recordings, {hours_of(corpus, train):.2f} hours{few}",
            f"--scale auto: {picked.scale} {picked.settings or '(the papers settings; train on a GPU: --device cuda)'}",
            f"--valid-speakers: {picked.valid_speakers} of the training speakers, unless you name a number"]


def level_counts(names: Sequence[str]) -> list[str]:
    """Return how many folders each level has, `12 at level 1`."""
    folders = [name.split("/")[:-1] for name in names]
    deepest = max(map(len, folders), default=0)
    return [f"{len({'/'.join(parts[:level]) for parts in folders if len(parts) >= level})} at level {level}"
            for level in range(1, deepest + 1)]


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--test", type=Path, metavar="DIR", help="folder of the test speakers, like the corpus")
    parser.add_argument("--trials", type=Path, metavar="FILE", help="trial list; paths start from --test or the corpus")
    parser.add_argument("--speaker-level", type=int, default=0, metavar="N",
                        help="level of the speakers' folders, 1 for those in the corpus folder (default: found out)")
    parser.add_argument("--speaker-regex", default="", metavar="R",
                        help="searched in the path below the corpus: group 1 or (?P<speaker>...), (?P<session>...)")
    parser.add_argument("--meta", type=Path, metavar="FILE",
                        help="table with a header: path, speaker, session, gender, more; or speaker, gender, more")
    parser.add_argument("--hard-by", default="", metavar="COLUMNS",
                        help="columns in which non-targets of the hard list agree (default: gender, or else "
                             "the first one that sorts the test speakers into a few groups)")
    parser.add_argument("--test-share", type=share("--test-share"), default=0.2, metavar="SHARE",
                        help="share of the speakers held out for tests, without --test and --trials (default: 0.2)")
    for option, meaning in (("--max-missing", "recordings that cannot be read, are silent or have no speaker"),
                            ("--max-duplicates", "recordings that belong to two speakers"),
                            ("--max-missing-trials", "recordings of --trials that are not there"),
                            ("--max-shared-speakers", "speakers of --test that are also in the corpus")):
        parser.add_argument(option, type=share(option), default=0.0, metavar="SHARE",
                            help=f"stop above this share of {meaning} (default: 0)")
    parser.add_argument("--nj", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=1, help="seed of test speakers and trials (default: %(default)s)")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("data", type=Path)
    return parser.parse_args()


def main() -> None:
    prepare(parse_arguments())


if __name__ == "__main__":
    run_main(main)
