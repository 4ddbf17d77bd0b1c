"""The data of any folder of recordings: layouts, the summary, trials, and corpora that make no sense."""

import csv
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local.audio_survey import measure
from steps.backend.cosine import Cosine
from tests.in_process import call
from tests.unit.made_up_voices import RATE, voice, write
from utils.audio import read_audio
from utils.features.compute import compute_features
from utils.features.options import read_feature_options
from utils.kaldi.data_dir import read_data_dir
from utils.kaldi.validate_data_dir import validate
from utils.metrics import measure as measure_scores

FEATURES = Path(__file__).resolve().parents[2] / "egs/voxceleb/conf/features/fbank40.conf"
SPEAKERS = [f"spk{number:02}" for number in range(12)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """speaker/session/file: twelve speakers, two sessions of two recordings each."""
    root = tmp_path_factory.mktemp("corpus") / "my 'own' corpus"
    for number, name in enumerate(SPEAKERS):
        for place in range(4):
            write(root / name / f"s{place // 2}" / f"{place}.wav", voice(number, place))
    return root


@pytest.fixture
def own(corpus, tmp_path):
    """A copy to spoil."""
    return Path(shutil.copytree(corpus, tmp_path / "own"))


def prepare(corpus: Path, data: Path, *options: object):
    return call("local.prepare_mycorpus", *options, corpus, data)


def trials(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def genders(path: Path) -> Path:
    rows = (f"{name},{'fm'[place % 2]}\n" for place, name in enumerate(SPEAKERS))
    path.write_text(f"speaker,gender\n{''.join(rows)}")
    return path


def eer(data: Path) -> float:
    """EER of the cosine of mean log mel energies, centred by the training data, on the list test."""
    options = read_feature_options(FEATURES)
    means = {}
    for part in ("train", "test"):
        table = read_data_dir(data / part)
        means |= {(part, one): compute_features(read_audio(path).samples, options).mean(axis=0)
                  for one, path in zip(table.ids, table.columns["wav.scp"], strict=True)}
    center = np.mean([mean for (part, _), mean in means.items() if part == "train"], axis=0)
    ids = [one for part, one in means if part == "test"]
    x = np.stack([means["test", one] - center for one in ids])
    rows = {one: row for row, one in enumerate(ids)}
    listed = trials(data / "test/trials/test")
    scores = Cosine().scorer(x, 1, x).scores(*(np.array([rows[trial[side]] for trial in listed]) for side in (0, 1)))
    target = np.array([trial[2] == "target" for trial in listed])
    return measure_scores(scores[target], scores[~target]).eer


def test_three_layouts_of_the_same_recordings_are_the_same_corpus(corpus, tmp_path):
    """speaker/session/file; a flat folder with a table; other names, in Kaldi's manner, and a regular expression."""
    files = sorted(corpus.rglob("*.wav"))
    other = {name: f"v{99 - place}" for place, name in enumerate(SPEAKERS)}
    rows = [["path", "speaker", "session", "gender", "text"]]
    for number, path in enumerate(files):
        speaker, session = path.parts[-3:-1]
        flat = f"Aufnahme {number * 7 % 48:02} – {path.stem}.flac"
        write(tmp_path / "flat/x" / flat, soundfile.read(path, dtype="int16")[0])
        rows.append([f"x/{flat}", speaker, session, "fm"[SPEAKERS.index(speaker) % 2], "a, b\n\"c\""])
        kaldi = tmp_path / f"kaldi/{other[speaker]}-{session}-{path.stem}.wav"
        kaldi.parent.mkdir(exist_ok=True)
        shutil.copy(path, kaldi)
    with open(tmp_path / "t.csv", "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    meta, others = genders(tmp_path / "genders.csv"), tmp_path / "others.csv"
    others.write_text(re.sub(r"spk\d\d", lambda match: other[match[0]], meta.read_text()))
    found = []
    for name, root, options in (("nested", corpus, ("--meta", meta)),
                                ("flat", tmp_path / "flat", ("--meta", tmp_path / "t.csv")),
                                ("kaldi", tmp_path / "kaldi",
                                 ("--meta", others, "--speaker-regex", "(?P<speaker>[^/-]+)-(?P<session>[^-]+)"))):
        data = tmp_path / name
        done = prepare(root, data, *options)
        assert done.returncode == 0, done.stderr
        heard = {}
        for part in ("train", "test"):
            validate(data / part)
            table = read_data_dir(data / part)
            paths = table.columns["wav.scp"]
            heard |= {one: measure(path).digest for one, path in zip(table.ids, paths, strict=True)}
            gender = dict(line.split() for line in (data / part / "spk2gender").read_text().splitlines())
            heard[part] = {(frozenset(heard[one] for one in table.ids[rows.start:rows.stop]), gender[speaker])
                           for speaker, rows in table.by_speaker()}
        lists = {name: Counter((frozenset((heard[first], heard[second])), label)
                               for first, second, label in trials(data / "test/trials" / name))
                 for name in ("test", "test_hard")}
        found.append((heard["train"], heard["test"], lists, eer(data)))
    assert found[0] == found[1] == found[2]
    assert 0 < found[0][-1] < 50
    kept = list(csv.DictReader((tmp_path / "flat/ids.tsv").open(newline="", encoding="utf-8"), delimiter="\t"))
    assert len(kept) == 48 and all(row["text"] == 'a, b\n"c"' for row in kept)
    assert Counter(row["used"] for row in kept) == {"train": 32, "test": 16}


def test_the_summary_says_what_is_there_and_what_was_chosen(own, tmp_path):
    """Also what deserves a look: clipping, rates, versions, names, single recordings and sessions."""
    samples = voice(0, 9)
    write(own / "spk00/s0/loud.wav", np.clip(samples.astype(np.int32) * 40, -32768, 32767).astype(np.int16))
    soundfile.write(own / "spk01/s0/phone.wav", voice(1, 9, 3.6)[::2], 8000)
    soundfile.write(own / "spk01/s0/short.wav", np.stack([voice(1, 8, 0.6)] * 2, axis=1), RATE)
    write(own / "spk02/s0/copy.flac", voice(2, 0))
    write(own / "spk03/s0/quieter.ogg", (voice(3, 0) // 4).astype(np.int16))
    write(own / "Spk04/1.wav", voice(30, 0))
    (own / "notes.txt").touch()
    done = prepare(own, tmp_path / "data", "--meta", genders(tmp_path / "genders.csv"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "data/summary.txt").read_text()
    lines = done.stdout.splitlines()
    assert lines[0] == f"Corpus {own}: 13 speakers, 53 recordings, 0.03 hours, 24 sessions"
    for line in (
            "recordings per speaker          1        4        4        5        6",
            "sessions per speaker            0        2        2        2        2",
            "formats                 52 wav, 1 ogg", "rates                   52 at 16000 Hz, 1 at 8000 Hz",
            "channels                52 mono, 1 with 2",
            "- 1 files are not audio by their ending: 1 .txt",
            "- 1 recordings have the same samples as another one of their speaker and are left out",
            "- 1 recordings of one speaker are there in several versions (format, level, microphone); no two versions "
            "of one make a trial",
            "- 1 speakers have one recording and give no target trial: Spk04",
            "- 1 names of speakers differ only in case, accents or blanks; one speaker each?: 'Spk04' / 'spk04'",
            "- 1 recordings are clipped (0.1% of the samples or more at the limit): spk00/s0/loud.wav",
            "- 1 recordings are shorter than 1 s: spk01/s0/short.wav",
            "- test: 4 speakers held out at random (--test-share 0.2, --seed 1): "):
        assert any(one.startswith(line) for one in lines), (line, done.stdout)
    assert [line for line in lines if line.startswith("- --scale auto: mini ubm.num_gaussians=32 ")]


def test_test_folder_trial_list_and_their_contradictions(own, tmp_path):
    test = tmp_path / "own/test set"
    for name in SPEAKERS[:3]:
        (test / name).parent.mkdir(exist_ok=True)
        (own / name).rename(test / name)
    for name in ("spk20", "spk21"):
        for place in range(2):
            write(own / name / f"{place}.wav", voice(int(name[3:]), place, 2))
    done = prepare(own, tmp_path / "data", "--test", test)
    assert done.returncode == 0, done.stderr
    train, held = read_data_dir(tmp_path / "data/train"), read_data_dir(tmp_path / "data/test")
    assert set(held.speakers) == set(SPEAKERS[:3]) and set(train.speakers) == {*SPEAKERS[3:], "spk20", "spk21"}
    path = tmp_path / "my list.txt"
    path.write_text("1 spk03/s0/0.wav spk03/s1/2.wav\nspk03/s0/0\tspk04/s0/0.wav\tnontarget\n")
    done = prepare(own, tmp_path / "data", "--trials", path)
    assert done.returncode == 0, done.stderr
    assert trials(tmp_path / "data/test/trials/my list") == [["spk03-s0-0", "spk03-s1-2", "target"],
                                                              ["spk03-s0-0", "spk04-s0-0", "nontarget"]]
    assert not {"spk03", "spk04"} & set(read_data_dir(tmp_path / "data/train").speakers)
    for text, message in (
            ("1 spk03/s0/0.wav spk99/s1/2.wav", "1 of 2 recordings of .*my list.txt are not there, or cannot be used: "
             "spk99/s1/2.wav; wanted paths relative to .*own, or utterance ids, or allow it with --max-missing-trials "
             "0.5"),
            ("0 spk03/s0/0.wav spk03/s1/2.wav", "1 of 1 trials contradict the speakers .*line 1: spk03/s0/0.wav"),
            ("1 spk03/s0/0.wav", "my list.txt:1: '1 spk03/s0/0.wav'; wanted"), ("\n", "no trials; name another list"),
            ("yes a b", "my list.txt:1: 'yes a b'; wanted")):
        path.write_text(text)
        done = prepare(own, tmp_path / "data", "--trials", path)
        assert done.returncode == 1
        assert re.search(message, done.stderr.splitlines()[-1]), done.stderr
    shutil.copytree(test / "spk00", own / "spk00")
    for place in range(4):  # other recordings of a speaker with the same name
        write(next((own / "spk00").rglob(f"{place}.wav")), voice(0, 10 + place))
    done = prepare(own, tmp_path / "data", "--test", test)
    assert done.returncode == 1
    assert "1 of 3 speakers of " in done.stderr and "--max-shared-speakers 0.334" in done.stderr.splitlines()[-1]
    assert prepare(own, tmp_path / "data", "--test", test, "--max-shared-speakers", "0.4").returncode == 0


def test_a_given_list_needs_targets_and_non_targets_that_can_be_used(corpus, tmp_path):
    path = tmp_path / "list"
    target, other = "1 spk03/s0/0.wav spk03/s1/2.wav\n", "0 spk03/s0/0.wav spk04/s0/0.wav\n"
    for text, counts in ((target, (1, 0)), (other, (0, 1)), ("1 x/a.wav x/b.wav\n0 x/a.wav y/b.wav\n", (0, 0))):
        path.write_text(text)
        done = prepare(corpus, tmp_path / "data", "--trials", path, "--max-missing-trials", "1")
        assert done.returncode == 1 and not (tmp_path / "data/train").exists()
        assert done.stderr.splitlines()[-1].endswith(
            f"list: {counts[0]} target and {counts[1]} non-target trials can be used, and an error rate needs both; "
            "complete the list, or leave --trials out: trials are drawn then")
    path.write_text(target + other)
    assert prepare(corpus, tmp_path / "data", "--trials", path).returncode == 0


def test_a_given_list_may_name_any_of_identical_recordings(own, tmp_path):
    """Trials of the copy that is left out are those of the one in use, also if there is another version."""
    write(own / "spk03/s0/0-quiet.wav", (voice(3, 0) // 2).astype(np.int16))
    shutil.copy(own / "spk03/s0/0.wav", own / "spk03/s1/again.wav")
    path = tmp_path / "list"
    path.write_text("1 spk03/s1/again.wav spk03/s1/2.wav\n1 spk03/s0/0.wav spk03/s1/3.wav\n"
                    "0 spk03/s1/again spk04/s0/0.wav\n0 spk03/s0/0.wav spk04/s0/0.wav\n")
    done = prepare(own, tmp_path / "data", "--trials", path)
    assert done.returncode == 0, done.stderr
    assert trials(tmp_path / "data/test/trials/list") == [["spk03-s0-0", "spk03-s1-2", "target"],
                                                          ["spk03-s0-0", "spk03-s1-3", "target"],
                                                          ["spk03-s0-0", "spk04-s0-0", "nontarget"]]
    path.write_text("1 spk03/s0/0.wav spk03/s1/again.wav\n")
    done = prepare(own, tmp_path / "data", "--trials", path)
    assert done.returncode == 1 and "or compare a recording with itself: line 1: " in done.stderr.splitlines()[-1]


def test_a_corpus_that_cannot_be_trained_on_is_refused_with_the_reasons(own, tmp_path):
    def refused(root, *options):
        done = prepare(root, tmp_path / "data", *options)
        assert done.returncode == 1
        assert not (tmp_path / "data/train").exists()
        reasons = [line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line]
        end = "".join(f"- {reason}\n" for reason in reasons)
        assert (tmp_path / "data/summary.txt").read_text() == f"{done.stdout}\nNot to be trained on\n{end}"
        return reasons

    one = tmp_path / "one"
    shutil.copytree(own / "spk00", one / "spk00")
    line, = [line for line in refused(one, "--speaker-level", "1") if "speakers" in line]
    assert line == ("1 speakers (spk00) with 4 usable recordings, wanted 10 speakers or more, some of them held out "
                    "for tests; add recordings of others, or name another level with --speaker-level: folders are 1 "
                    "at level 1, 2 at level 2")
    three = tmp_path / "three"
    for place in range(3):
        write(three / f"{place}/a.wav", voice(place, 0))
    assert refused(three) == ["3 speakers (0, 1, 2) with 3 usable recordings, wanted 10 speakers or more, some of them "
                              "held out for tests; add recordings of others, or name another level with "
                              "--speaker-level: folders are 3 at level 1",
                              "5.4 s of sound in all, wanted 60 s or more; add recordings"]
    single = tmp_path / "single"
    for place in range(12):
        write(single / f"{place}/a.wav", voice(place, 0, 6))
    assert refused(single) == ["0 of 12 speakers have two recordings or more, wanted 5 or more: how a voice varies can "
                               "only be learnt from several; add recordings, or check how speakers are named"]
    silent = tmp_path / "silent"
    for place in range(12):
        write(silent / f"{place}/a.wav", np.zeros(RATE, np.int16) + place % 3)
    assert refused(silent)[0].startswith("12 of 12 recordings cannot be used (12 silent): 0/a.wav (silent), 1/a.wav")


def test_genders_spelt_in_several_ways_are_two(corpus, tmp_path):
    """For the draw of the test speakers, the hard list and spk2gender."""
    words = ("F", "M", "female", "Male", "w", "man", "f", "m", "Woman", "MAN", "f", "m")
    for name, spelt in (("plain", "fm" * 6), ("mixed", words)):
        rows = (f"{speaker},{word}\n" for speaker, word in zip(SPEAKERS, spelt, strict=True))
        (tmp_path / "t.csv").write_text(f"speaker,gender\n{''.join(rows)}")
        done = prepare(corpus, tmp_path / name, "--meta", tmp_path / "t.csv")
        assert done.returncode == 0, done.stderr
    for table in ("test/trials/test", "test/trials/test_hard", "test/spk2gender", "train/spk2gender"):
        assert (tmp_path / "mixed" / table).read_text() == (tmp_path / "plain" / table).read_text()


def test_a_table_of_the_tests_too(own, tmp_path):
    """Of a test folder elsewhere, with paths that start from it."""
    (tmp_path / "tests").mkdir()
    for name in SPEAKERS[:3]:
        shutil.move(own / name, tmp_path / "tests" / name)
    rows = [f"{path.relative_to(root)},{path.parts[-3]}\n" for root in (own, tmp_path / "tests")
            for path in sorted(root.rglob("*.wav"))]
    (tmp_path / "t.csv").write_text(f"path,speaker\n{''.join(rows)}")
    done = prepare(own, tmp_path / "data", "--meta", tmp_path / "t.csv", "--test", tmp_path / "tests")
    assert done.returncode == 0, done.stderr
    assert set(read_data_dir(tmp_path / "data/test").speakers) == set(SPEAKERS[:3])


def test_a_table_of_other_speakers_is_told(corpus, tmp_path):
    """Its speakers without recordings, and those of the corpus whom it does not list."""
    path = genders(tmp_path / "genders.csv")
    path.write_text(path.read_text().replace("spk0", "Spk0"))
    done = prepare(corpus, tmp_path / "data", "--meta", path)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "data/summary.txt").read_text()
    assert f"- 10 of 12 speakers of {path} have no recordings: Spk00, Spk01, Spk02, Spk03, Spk04 and 5 more" in told
    assert f"- 10 of 12 speakers are not in {path}: spk00, spk01, spk02, spk03, spk04 and 5 more" in told
    assert "no recordings" not in prepare(corpus, tmp_path / "data", "--meta", genders(path)).stdout


def test_options_that_fit_nothing_end_with_one_line(corpus, tmp_path):
    for words, message in (
            (("--hard-by", "age"), "--hard-by names 'age', which --meta does not tell of speakers; known: nothing"),
            (("--test", corpus / "../my 'own' corpus"), "name another folder, or leave --test out: test speakers are "
             "held out then"),
            (("--test-share", "1"), "error: 0 speakers are left to train on, wanted 4 or more: 2 validate; hold fewer"),
            (("--test-share", "0.8"), "error: 2 speakers are left to train on (spk"),
            (("--speaker-level", "5", "--max-missing", "1"), "my 'own' corpus: no recording is left to use"),
            (("--speaker-level", "3"), "48 of 48 recordings cannot be used (48 no speaker): spk00/s0/0.wav"),
            (("--speaker-level", "3", "--speaker-regex", "(x)"), "both name the speakers; give one of them"),
            (("--meta", tmp_path / "none"), "none: No such file or directory; name a table with --meta")):
        done = prepare(corpus, tmp_path / "data", *words)
        assert done.returncode == 1 and message in done.stderr.splitlines()[-1], done.stderr
        assert not (tmp_path / "data/train").exists()


def test_one_session_each_is_accepted_and_told(own, tmp_path):
    for name in SPEAKERS:
        for path in sorted((own / name).rglob("*.wav")):
            path.rename(own / name / path.name)
    done = prepare(own, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    assert "- sessions are not known: if the recordings of a speaker were made at one place" in done.stdout
    assert "48 trials, half of them targets, 0 of these of different sessions" in done.stdout
    assert "- no hard list: no gender or other column of --meta" in done.stdout


def test_files_without_sound_are_named_and_may_be_a_share(own, tmp_path):
    for place in range(2000):
        path = own / f"empty/{place // 100}/{place}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (own / "spk00/s0/broken.wav").write_bytes(b"RIFF" + bytes(100))
    write(own / "spk00/s0/still.wav", np.zeros(RATE, np.int16))
    write(own / "loose.wav", voice(0, 20))
    done = prepare(own, tmp_path / "data")
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert "2003 of 2051 recordings cannot be used (2000 empty, 1 " in line and "--max-missing 0.977" in line
    done = prepare(own, tmp_path / "data", "--max-missing", "0.977")
    assert done.returncode == 0 and "warning: 2003 of 2051 recordings cannot be used" in done.stderr
    assert "\n- 2003 of 2051 recordings cannot be used (2000 empty, 1 " in (tmp_path / "data/summary.txt").read_text()
    assert len(read_data_dir(tmp_path / "data/train").ids) == 32


def test_recordings_of_two_speakers_are_named_and_all_left_out(own, tmp_path):
    """Also as another file: louder, in another format, cut differently."""
    shutil.copy(own / "spk00/s0/0.wav", own / "spk01/s0/x.wav")
    write(own / "spk02/s1/y.ogg", (voice(3, 1)[1000:] // 2).astype(np.int16))
    done = prepare(own, tmp_path / "data")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "4 of 50 recordings belong to two speakers, compared by their sound: spk00/s0/0.wav (spk00) = spk01/s0/x.wav "
        "(spk01), spk02/s1/y.ogg (spk02) = spk03/s0/1.wav (spk03); remove the wrong ones, or leave all of them out "
        "with --max-duplicates 0.08")
    done = prepare(own, tmp_path / "data", "--max-duplicates", "0.08")
    assert done.returncode == 0, done.stderr
    assert ("\n- 4 of 50 recordings belong to two speakers, compared by their sound: spk00/s0/0.wav (spk00) = "
            in (tmp_path / "data/summary.txt").read_text())
    ids = {*read_data_dir(tmp_path / "data/train").ids, *read_data_dir(tmp_path / "data/test").ids}
    assert len(ids) == 46 and not ids & {"spk00-s0-0", "spk01-s0-x", "spk02-s1-y", "spk03-s0-1"}


def test_names_in_any_script_with_quotes_line_ends_and_pipes(own, tmp_path):
    odd = ("Ann", "ann", "O'Neil \"x\"", "李 雷", "a\nb", "rm -rf |", " blank ", "Владимир", "José", "Jose\u0301",
           "tab\tx", "bad\udcff")
    names = dict(zip(SPEAKERS, odd, strict=True))
    for old, new in names.items():
        (own / old).rename(own / new)
        (own / new / "s0/0.wav").rename(own / new / "s0/0 |")
    assert prepare(own, tmp_path / "x").returncode == 0  # `0 |` has no ending of audio: left out
    for new in names.values():
        (own / new / "s0/0 |").rename(own / new / "s0/'0\n.wav")
    done = prepare(own, tmp_path / "data")
    assert done.returncode == 0, done.stderr
    heard = {}
    for part in ("train", "test"):
        validate(tmp_path / "data" / part)
        table = read_data_dir(tmp_path / "data" / part)
        assert all(os.path.isfile(path) for path in table.columns["wav.scp"])
        heard |= {one: measure(path).digest for one, path in zip(table.ids, table.columns["wav.scp"], strict=True)}
    assert len(heard) == 48 == len(set(heard.values()))
    with (tmp_path / "data/ids.tsv").open(newline="", encoding="utf-8") as stream:
        rows = {row["utterance"]: row for row in csv.DictReader(stream, delimiter="\t")}
    speakers = {row["speaker"]: row["speaker_id"] for row in rows.values()}
    assert len(speakers) == len({one.lower() for one in speakers.values()}) == 12
    assert speakers["Ann"] == "Ann" and speakers["ann"] == "ann_2" and speakers["李 雷"] == "u674e_u96f7"
    for name, row in rows.items():
        if "\\udcff" not in row["path"]:
            assert measure(row["path"]).digest == heard[name]
        assert name.startswith(f"{row['speaker_id']}-")


def test_measurements_are_kept_until_a_file_changes(own, tmp_path, monkeypatch):
    import local.audio_survey as survey

    assert prepare(own, tmp_path / "data").returncode == 0
    decoded = []
    monkeypatch.setattr(survey, "measure", lambda path: decoded.append(path) or measure(path))
    assert prepare(own, tmp_path / "data", "--seed", "2").returncode == 0 and not decoded
    write(own / "spk00/s0/0.wav", voice(0, 30))
    assert prepare(own, tmp_path / "data").returncode == 0
    assert decoded == [str(own / "spk00/s0/0.wav")]
    (tmp_path / "data/survey.jsonl").write_text("{")
    assert prepare(own, tmp_path / "data").returncode == 0 and len(decoded) == 49


def test_a_listed_file_whose_name_looks_like_a_command_is_read_and_not_run(own, tmp_path):
    (own / "spk00/s0/0.wav").rename(own / "spk00/s0/touch gone |")
    rows = [f"{path.relative_to(own)},{path.parts[-3]}\n" for path in sorted(own.rglob("*")) if path.is_file()]
    (tmp_path / "t.csv").write_text(f"path,speaker\n{''.join(rows)}")
    done = prepare(own, tmp_path / "data", "--meta", tmp_path / "t.csv")
    assert done.returncode == 0, done.stderr
    tables = [read_data_dir(tmp_path / "data" / part).columns["wav.scp"] for part in ("train", "test")]
    paths = [path for table in tables for path in table]
    assert len(paths) == 48 and not any(path.endswith("|") for path in paths)
    assert sum(os.path.realpath(path).endswith("touch gone |") for path in paths) == 1
