"""Trial lists of data directories: refused and counted lines."""

from pathlib import Path

import pytest

from utils.errors import InputError
from utils.kaldi.data_dir import DataDir, write_data_dir
from utils.kaldi.trials import check_trials
from utils.kaldi.validate_data_dir import validate

IDS = [f"s{speaker}-{utterance}" for speaker in range(4) for utterance in range(5)]


@pytest.fixture(params=[30, 1 << 20])
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A list that is read in blocks of one or two lines, or at once."""
    monkeypatch.setattr("utils.text_lines.BLOCK", request.param)
    return tmp_path / "list"


def test_lists_of_more_than_one_block(path: Path) -> None:
    lines = [f"{a} {b} nontarget\n" for a in IDS for b in IDS if a != b]
    path.write_text("".join(lines))
    assert check_trials(path, IDS) == (380, 190)
    lines[300] = lines[300].replace("nontarget", "nontarge")
    path.write_text("".join(lines))
    with pytest.raises(InputError, match="list:301: label 'nontarge'"):
        check_trials(path, IDS)
    path.write_text("".join(f"{a} {b} target\n" for a in IDS for b in IDS if a < b) + "strange x target\n")
    with pytest.raises(InputError, match="list:191: 2 ids are not in utt2spk: strange, x;"):
        check_trials(path, IDS)
    path.write_text(f"{IDS[0]} {IDS[1]} target \n")
    assert check_trials(path, IDS) == (1, 0)


@pytest.mark.parametrize(("lines", "message"), [
    (["s0-0 s0-1 target", "s1-0 s2-0 nontarget", "s1-0 s1-0 target"],
     r"list:3: a trial of s1-0 with itself; remove the line"),
    (["s0-0 s0-1 target", "s1-0 s2-0 nontarget", "s0-0 s0-1 nontarget"],
     r"list:3: s0-0 s0-1 is nontarget here and target in line 1; remove one"),
    (["s0-0 s1-1 nontarget", "s1-0 s2-0 nontarget", "s1-1 s0-0 target", "s1-1 s0-0 nontarget"],
     r"list:3: s0-0 s1-1 is target here and nontarget in line 1; remove one"),
    (["s0-0 s0-1 target", "s0-0 \udcff target"], r"list:2: not UTF-8")])
def test_what_would_count_wrongly_is_refused(path: Path, lines: list[str], message: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")
    with pytest.raises(InputError, match=message):
        check_trials(path, IDS)


def test_repeated_pairs_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = DataDir(IDS, {"utt2spk": [one[:2] for one in IDS], "wav.scp": [f"/x/{one}.wav" for one in IDS]})
    lines = ["s0-0 s0-1 target\n", "s0-1 s0-0 target\n", "s0-0 s1-0 nontarget\n", "s0-0 s0-1 target\n"]
    write_data_dir(tmp_path / "data", data, {"list": lines})
    assert validate(tmp_path / "data").endswith("trials: list 4")
    assert "list: 2 of 4 trials repeat a pair of an earlier line" in capsys.readouterr().err
