"""Data directories: the reader refuses each malformed file, the tools keep directories valid."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utils.errors import InputError
from utils.kaldi import data_dir
from utils.kaldi.ark import ArkWriter
from utils.kaldi.data_dir import DataDir, read_data_dir, write_data_dir
from utils.kaldi.hold_out_speakers import target_pairs
from utils.kaldi.validate_data_dir import validate

SPEAKERS, SESSIONS, FILES = 5, 2, 3


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Run a tool's main with these arguments."""

    def call(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        importlib.import_module(name).main()

    return call


def example() -> DataDir:
    """30 utterances of 5 speakers, with every table except those that name archives."""
    ids = [f"id1000{speaker}-video{session}-0000{file}"
           for speaker in range(SPEAKERS) for session in range(SESSIONS) for file in range(FILES)]
    return DataDir(ids, {
        "utt2spk": [one[:7] for one in ids],
        "utt2num_frames": [str(100 + 7 * row % 30) for row in range(len(ids))],
        "wav.scp": [f"/corpus/a b;'c\"/{one}.wav" for one in ids],
    })


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A valid data directory with one trial list."""
    one = example()
    trials = [f"{one.ids[0]} {one.ids[1]} target\n", f"{one.ids[0]} {one.ids[-1]} nontarget\n"]
    write_data_dir(tmp_path / "data", one, {"list": trials})
    return tmp_path / "data"


def edit(path: Path, change) -> None:
    """Replace the content of a file by change(bytes)."""
    path.write_bytes(change(path.read_bytes()))


def lines_changed(change):
    """Turn a change of a list of lines into a change of a file's content."""
    return lambda content: b"".join(change(content.splitlines(keepends=True)))


def swap(lines):
    lines[3], lines[4] = lines[4], lines[3]
    return lines


FAULTS = {
    "unsorted": ("utt2spk", lines_changed(swap), r"utt2spk:5: .* not sorted .*fix_data_dir"),
    "duplicate": ("wav.scp", lines_changed(lambda x: x[:2] + x[1:]),
                  r"wav.scp:3: duplicate id .*fix_data_dir"),
    "crlf": ("utt2spk", lambda x: x.replace(b"\n", b"\r\n"), r"utt2spk:1: carriage return .*fix_data_dir"),
    "lone CR": ("wav.scp", lambda x: x.replace(b"02.wav\n", b"02.wav\r\n", 1),
                r"wav.scp:3: carriage return"),
    "no field": ("wav.scp", lambda x: x.replace(b" /corpus/a b;'c\"/id10000-video0-00002.wav", b""),
                 r"wav.scp:3: missing field .*fix_data_dir"),
    "blank line": ("utt2spk", lines_changed(lambda x: x[:2] + [b"\n"] + x[2:]),
                   r"utt2spk:3: missing field .*fix_data_dir"),
    "tab": ("utt2spk", lambda x: x.replace(b" ", b"\t", 1), r"utt2spk:1: a tab .*fix_data_dir"),
    "extra field": ("utt2spk", lambda x: x.replace(b" id10000\n", b" id10000 x\n", 1),
                    r"utt2spk:1: 3 fields"),
    "no line end": ("utt2spk", lambda x: x[:-1], r"utt2spk: no line end"),
    "empty file": ("wav.scp", lambda x: b"", r"wav.scp is empty"),
    "not UTF-8": ("wav.scp", lambda x: x.replace(b"/corpus", b"/c\xf6rpus", 1), r"wav.scp:1: not UTF-8"),
    "id missing": ("wav.scp", lines_changed(lambda x: x[:4] + x[5:]),
                   r"wav.scp: lacks 1 utterances of utt2spk: id10000-video1-00001; .*fix_data_dir"),
    "id unknown": ("utt2num_frames", lines_changed(lambda x: [*x, b"id9-x-1 200\n"]),
                   r"utt2num_frames:31: id9-x-1 is not in utt2spk"),
    "not a prefix": ("utt2spk", lambda x: x.replace(b"00001 id10000\n", b"00001 jd10000\n", 1),
                     r"utt2spk:2: speaker jd10000 is not a prefix"),
    "not the inverse": ("spk2utt", lambda x: x.replace(b" id10000-video0-00001", b""),
                        r"spk2utt:1: not the inverse of utt2spk; .*fix_data_dir"),
    "speaker missing": ("spk2utt", lines_changed(lambda x: x[:-1]), r"spk2utt:5: not the inverse"),
    "speaker too many": ("spk2utt", lines_changed(lambda x: [*x, b"z z-1\n"]), r"spk2utt:6: not the inverse"),
    "slash": ("utt2spk", lambda x: x.replace(b"id10000-video0-00000 ", b"id1/0 ", 1),
              r"utt2spk:1: id 'id1/0' holds"),
    "dots": ("wav.scp", lambda x: x.replace(b"id10000-video0-00000 ", b".. ", 1), r"wav.scp:1: id .* holds"),
    "no-break space": ("wav.scp", lambda x: x.replace(b"id10004-video1-00002 ", "id10004-w\xa0 ".encode(), 1),
                       r"wav.scp:30: id .* holds a blank"),
    "speaker with slash": ("utt2spk", lambda x: x.replace(b" id10000\n", b" id/\n", 1),
                           r"utt2spk:1: 'id/' is not"),
    "frames": ("utt2num_frames", lambda x: x.replace(b" 107\n", b" 0\n", 1),
               r"utt2num_frames:2: '0' is not"),
    "trial id": ("trials/list", lambda x: x.replace(b"id10000-video0-00001", b"id10000-video0-00009"),
                 r"trials/list:1: 1 ids are not in utt2spk: id10000-video0-00009;"),
    "trial label": ("trials/list", lambda x: x.replace(b"nontarget", b"impostor"),
                    r"list:2: label 'impostor'"),
    "trial label that ends alike": ("trials/list", lambda x: x.replace(b"nontarget", b"mytarget"),
                                    r"list:2: label 'mytarget'"),
    "trial CR": ("trials/list", lambda x: x.replace(b" id10004", b"\rid10004"), r"list:2: carriage return"),
    "trial field": ("trials/list", lambda x: x.replace(b" nontarget", b""), r"list:2: 2 fields"),
    "trial CRLF": ("trials/list", lambda x: x.replace(b"\n", b"\r\n"),
                   r"list:1: carriage return"),
    "trial of itself": ("trials/list", lambda x: x.replace(b"id10000-video0-00001", b"id10000-video0-00000"),
                        r"list:1: a trial of id10000-video0-00000 with itself; remove the line"),
    "trial not UTF-8": ("trials/list", lambda x: x.replace(b" id10004", b" \xff"), r"list:2: not UTF-8"),
    "NUL in a path": ("wav.scp", lambda x: x.replace(b"/corpus", b"/\0", 1), r"wav.scp:1: a NUL byte"),
    "trials empty": ("trials/list", lambda x: b"", r"list: empty"),
}


def test_valid_directory(data: Path) -> None:
    assert validate(data).endswith(
        "30 utterances, 5 speakers; utt2spk, utt2num_frames, wav.scp; trials: list 2")
    assert read_data_dir(data) == example()


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named(data: Path, fault: str) -> None:
    name, change, message = FAULTS[fault]
    edit(data / name, change)
    with pytest.raises(InputError, match=message) as error:
        validate(data)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["utt2spk", "spk2utt", "wav.scp"])
def test_missing_file(data: Path, name: str) -> None:
    (data / name).unlink()
    with pytest.raises(InputError, match=name):
        validate(data)


def test_tool_exits_with_one_line(data: Path) -> None:
    edit(data / "utt2spk", lambda content: content.replace(b"\n", b"\r\n"))
    done = subprocess.run([sys.executable, "-m", "utils.kaldi.validate_data_dir", data], capture_output=True,
                          text=True, check=False, cwd=Path(data_dir.__file__).parents[1])
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("utils.kaldi.validate_data_dir: error: ") and done.stderr.count("\n") == 1


def test_blanks_that_kaldi_writes_are_read(data: Path) -> None:
    edit(data / "utt2num_frames", lambda content: content.replace(b"\n", b" \n"))
    assert read_data_dir(data) == example()


def test_lengths_of_features_and_vad(data: Path) -> None:
    ids = example().ids
    for name, cut in (("feats", 0), ("vad", 1)):
        with ArkWriter(data / name) as writer:
            for row, one in enumerate(ids):
                writer.write(one, np.zeros((100 + 7 * row % 30, 2)) if name == "feats" else
                             np.ones(100 + 7 * row % 30 - (cut if row == 12 else 0)))
    with pytest.raises(InputError, match=f"{ids[12]}: numbers of frames differ: feats.scp 124, vad.scp 123"):
        validate(data)


@pytest.mark.parametrize("fault", [name for name, fault in FAULTS.items() if "fix_data_dir" in fault[2]])
def test_fix_repairs(data: Path, run, fault: str, capsys: pytest.CaptureFixture) -> None:
    name, change, _ = FAULTS[fault]
    before = (data / name).read_bytes()
    edit(data / name, change)
    broken = (data / name).read_bytes()
    run("utils.kaldi.fix_data_dir", data)
    validate(data)
    assert (data / ".backup" / name).read_bytes() == broken
    if fault in ("no field", "id missing"):
        assert len(read_data_dir(data).ids) == 29
        assert "dropped 1 of 30 utterances that another table lacks" in capsys.readouterr().out
    else:
        assert (data / name).read_bytes() == before


def test_fix_keeps_the_first_of_two(data: Path, run, capsys: pytest.CaptureFixture) -> None:
    edit(data / "wav.scp", lambda content: content + b"id10000-video0-00000 /other.wav\n")
    run("utils.kaldi.fix_data_dir", data)
    assert read_data_dir(data) == example()
    assert "wav.scp: dropped 1 duplicate lines of an utterance: id10000-video0-00000" in capsys.readouterr().out


def test_fix_leaves_alone_what_it_cannot_repair(data: Path, run) -> None:
    edit(data / "utt2spk", FAULTS["not a prefix"][1])
    before = {path: path.read_bytes() for path in data.glob("*") if path.is_file()}
    with pytest.raises(InputError, match="not a prefix"):
        run("utils.kaldi.fix_data_dir", data)
    assert {path: path.read_bytes() for path in data.glob("*") if path.is_file()} == before
    assert not list(data.glob(".backup*"))


def test_fix_drops_no_trial(data: Path, run) -> None:
    edit(data / "wav.scp", lines_changed(lambda lines: lines[1:]))
    with pytest.raises(InputError, match=r"list:1: 1 ids are not in utt2spk"):
        run("utils.kaldi.fix_data_dir", data)
    assert (data / "trials/list").read_text().count("\n") == 2


def test_failed_write_changes_nothing(data: Path, tmp_path: Path) -> None:
    def lines():
        yield "a b target\n"
        raise InputError("bad list")

    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    for folder in (data, tmp_path / "new/er"):
        with pytest.raises(InputError, match="bad list"):
            write_data_dir(folder, example().select(range(4)), {"list": lines()})
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_publishing_replaces_tables_and_keeps_other_files(data: Path) -> None:
    (data / "feats.1.ark").write_bytes(b"kept")
    (data / "vad.scp").write_text("stale\n")
    write_data_dir(data, example().select(range(4)))
    assert sorted(path.name for path in data.iterdir()) == [
        "feats.1.ark", "spk2utt", "utt2num_frames", "utt2spk", "wav.scp"]
    validate(data)


def test_copy_with_prefixes(data: Path, tmp_path: Path, run) -> None:
    out = tmp_path / "copy"
    run("utils.kaldi.copy_data_dir", "--utt-prefix", "reverb-", "--spk-prefix", "reverb-", data, out)
    assert read_data_dir(out).ids == [f"reverb-{one}" for one in example().ids]
    assert (out / "spk2utt").read_text().startswith("reverb-id10000 reverb-id10000-video0-00000 ")
    assert (out / "trials/list").read_text().startswith(
        "reverb-id10000-video0-00000 reverb-id10000-video0-00001 target\n")
    assert read_data_dir(out).columns["wav.scp"] == example().columns["wav.scp"]
    validate(out)
    with pytest.raises(InputError, match="not a prefix"):
        run("utils.kaldi.copy_data_dir", "--utt-prefix", "x-", data, tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
    with pytest.raises(InputError, match="both input and output"):
        run("utils.kaldi.copy_data_dir", data, data)


def test_combine(data: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture) -> None:
    run("utils.kaldi.copy_data_dir", "--utt-prefix", "sp0.9-", "--spk-prefix", "sp0.9-", data, tmp_path / "slow")
    (tmp_path / "slow/utt2speed").write_text("".join(f"sp0.9-{one} 0.9\n" for one in example().ids))
    (data / "utt2num_frames").unlink()
    run("utils.kaldi.combine_data", tmp_path / "all", tmp_path / "slow", data)
    validate(tmp_path / "all")
    both = read_data_dir(tmp_path / "all")
    assert len(both.ids) == 60 and set(both.columns) == {"utt2spk", "wav.scp", "utt2speed"}
    assert both.columns["utt2speed"] == ["1"] * 30 + ["0.9"] * 30
    assert "without utt2num_frames" in capsys.readouterr().err
    with pytest.raises(InputError, match="two utterances with the id id10000-video0-00000"):
        run("utils.kaldi.combine_data", tmp_path / "twice", data, data)


def frames_of(data: DataDir) -> list[int]:
    return [int(value) for value in data.columns["utt2num_frames"]]


@pytest.mark.parametrize(("options", "wanted"), [
    (["--first", 4], range(4)), (["--last", 4], range(26, 30)), (["--utts", 3], [0, 10, 20]),
    (["--per-spk", 2], range(0, 30, 3)),
    (["--first", 99], range(30)),
])
def test_subset_by_number(data: Path, tmp_path: Path, run, options: list, wanted) -> None:
    run("utils.kaldi.subset_data_dir", *options, data, tmp_path / "out")
    assert read_data_dir(tmp_path / "out") == example().select(wanted)


def test_subset_by_length(data: Path, tmp_path: Path, run) -> None:
    for option, order in (("--longest", -1), ("--shortest", 1)):
        run("utils.kaldi.subset_data_dir", option, 7, data, tmp_path / "out")
        out = read_data_dir(tmp_path / "out")
        assert sorted(frames_of(out)) == sorted(sorted(frames_of(example()))[::order][:7])
    (data / "utt2num_frames").unlink()
    with pytest.raises(InputError, match="need utt2num_frames"):
        run("utils.kaldi.subset_data_dir", "--longest", 7, data, tmp_path / "none")


def test_subset_by_speaker(data: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    run("utils.kaldi.subset_data_dir", "--speakers", 2, "--seed", 3, data, out)
    drawn = read_data_dir(out)
    assert len(set(drawn.speakers)) == 2 and len(drawn.ids) == 12
    run("utils.kaldi.subset_data_dir", "--spk-list", out / "spk2utt", data, tmp_path / "same")
    assert read_data_dir(tmp_path / "same") == drawn
    run("utils.kaldi.subset_data_dir", "--exclude-spk-list", out / "spk2utt", data, tmp_path / "rest")
    assert sorted(read_data_dir(tmp_path / "rest").ids + drawn.ids) == example().ids
    (tmp_path / "list").write_text("id10000-video0-00000 anything\nid1000x-unknown\n")
    capsys.readouterr()
    run("utils.kaldi.subset_data_dir", "--utt-list", tmp_path / "list", data, tmp_path / "one")
    assert read_data_dir(tmp_path / "one").ids == ["id10000-video0-00000"]
    assert "1 utterances are not in the directory: id1000x-unknown" in capsys.readouterr().err
    (tmp_path / "list").write_text("nobody\n")
    with pytest.raises(InputError, match="no utterances left"):
        run("utils.kaldi.subset_data_dir", "--spk-list", tmp_path / "list", data, tmp_path / "none")


def test_subset_keeps_whole_trial_lists_only(data: Path, tmp_path: Path, run) -> None:
    run("utils.kaldi.subset_data_dir", "--first", 29, data, tmp_path / "cut")
    assert not (tmp_path / "cut/trials").exists()
    run("utils.kaldi.subset_data_dir", "--first", 30, data, tmp_path / "whole")
    assert (tmp_path / "whole/trials/list").read_bytes() == (data / "trials/list").read_bytes()


@pytest.mark.parametrize(("options", "name"), [([], "split4"), (["--per-spk"], "split4spk")])
def test_split(data: Path, run, options: list, name: str) -> None:
    run("utils.kaldi.split_data_dir", *options, data, 4)
    parts = [read_data_dir(data / name / str(part)) for part in range(1, 5)]
    assert sum((part.ids for part in parts), []) == example().ids
    if options:
        assert sum(len(set(part.speakers)) for part in parts) == SPEAKERS
    else:
        assert sorted(len(part.ids) for part in parts) == [7, 7, 8, 8]
    kept = (data / name / "1/wav.scp").stat().st_ino
    run("utils.kaldi.split_data_dir", *options, data, 4)
    assert (data / name / "1/wav.scp").stat().st_ino == kept
    write_data_dir(data, example().select(range(12)))
    run("utils.kaldi.split_data_dir", data, 4)
    assert len(read_data_dir(data / "split4/4").ids) == 3


def test_split_into_too_many(data: Path, run) -> None:
    with pytest.raises(InputError, match="31 parts of 30 utterances; ask for at most 30"):
        run("utils.kaldi.split_data_dir", data, 31)
    with pytest.raises(InputError, match="6 parts of 5 speakers; ask for at most 5"):
        run("utils.kaldi.split_data_dir", "--per-spk", data, 6)
    assert not (data / "split31").exists()


def test_uneven_speakers_leave_no_part_empty(tmp_path: Path, run) -> None:
    ids = ["a-1", *(f"b-{number:03}" for number in range(90)), "c-1", "d-1"]
    write_data_dir(tmp_path / "data", DataDir(ids, {"utt2spk": [one[0] for one in ids], "wav.scp": ids}))
    run("utils.kaldi.split_data_dir", "--per-spk", tmp_path / "data", 4)
    assert [set(read_data_dir(tmp_path / f"data/split4spk/{part}").speakers) for part in range(1, 5)] == [
        {"a"}, {"b"}, {"c"}, {"d"}]


def test_inverting_tables(data: Path, run, capsys: pytest.CaptureFixture,
                          monkeypatch: pytest.MonkeyPatch) -> None:
    run("utils.kaldi.utt2spk_to_spk2utt", data / "utt2spk")
    assert capsys.readouterr().out == (data / "spk2utt").read_text()
    with open(data / "spk2utt", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        run("utils.kaldi.spk2utt_to_utt2spk")
    assert capsys.readouterr().out == (data / "utt2spk").read_text()
    (data / "utt2spk").write_text("a b\nc\n")
    with pytest.raises(InputError, match="utt2spk:2: 1 fields"):
        run("utils.kaldi.utt2spk_to_spk2utt", data / "utt2spk")


def test_hold_out(data: Path, tmp_path: Path, run) -> None:
    for attempt in "ab":
        run("utils.kaldi.hold_out_speakers", "--speakers", 3, "--trials", 40, "--seed", 7, data,
            tmp_path / f"valid_{attempt}", tmp_path / f"rest_{attempt}")
    valid, rest = tmp_path / "valid_a", tmp_path / "rest_a"
    assert (valid / "trials/valid").read_bytes() == (tmp_path / "valid_b/trials/valid").read_bytes()
    validate(valid)
    validate(rest)
    assert sorted(read_data_dir(valid).ids + read_data_dir(rest).ids) == example().ids
    assert len(set(read_data_dir(valid).speakers)) == 3
    trials = [line.split() for line in (valid / "trials/valid").read_text().splitlines()]
    assert trials == sorted(trials) and len({tuple(trial[:2]) for trial in trials}) == 40
    for first, second, label in trials:
        assert (first[:7] == second[:7]) == (label == "target")
        assert label == "nontarget" or first[:14] != second[:14]  # from different sessions
    assert sum(trial[2] == "target" for trial in trials) == 20


def test_a_speaker_with_many_utterances_makes_pairs_of_some(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("utils.kaldi.hold_out_speakers.MOST", 10)
    ids = [f"{speaker}-{session}-{number:03}" for speaker in "ab" for session in "xy" for number in range(100)]
    data = DataDir(ids, {"utt2spk": [one[0] for one in ids]})
    pairs = target_pairs(data, np.random.default_rng(1))
    assert 2 * 9 <= len(pairs) <= 2 * 25 and len(np.unique(pairs)) <= 20
    for first, second in pairs.tolist():
        assert first < second and ids[first][0] == ids[second][0] and ids[first][2] != ids[second][2]


def test_hold_out_too_much(data: Path, tmp_path: Path, run) -> None:
    for number in (1, 4):
        with pytest.raises(InputError, match=f"cannot hold out {number} of 5 speakers"):
            run("utils.kaldi.hold_out_speakers", "--speakers", number, data, tmp_path / "v", tmp_path / "r")
    ids = [f"s{number}-x-1" for number in range(6)]
    write_data_dir(tmp_path / "single", DataDir(ids, {"utt2spk": [one[:2] for one in ids], "wav.scp": ids}))
    with pytest.raises(InputError, match="hold out 2 or more speakers"):
        run("utils.kaldi.hold_out_speakers", "--speakers", 3, tmp_path / "single", tmp_path / "v", tmp_path / "r")
    write_data_dir(tmp_path / "alone", example().select(range(6)))
    with pytest.raises(InputError, match="cannot hold out 2 of 1 speakers"):
        run("utils.kaldi.hold_out_speakers", "--speakers", 2, tmp_path / "alone", tmp_path / "v", tmp_path / "r")
    assert not (tmp_path / "v").exists() and not (tmp_path / "r").exists()
