"""Data directories are written only if they can be read back, and repaired without loss of data."""

from collections.abc import Callable
from pathlib import Path

import pytest

from utils.errors import InputError
from utils.kaldi.data_dir import TABLES, DataDir, read_data_dir, write_data_dir, write_data_dirs
from utils.kaldi.fix_data_dir import fix

IDS = ["s1-a", "s1-b", "s2-a"]


def example() -> DataDir:
    return DataDir(list(IDS), {"utt2spk": ["s1", "s1", "s2"], "wav.scp": [f"/x/{one} 1.wav" for one in IDS]})


def put(table: str, value: str) -> Callable[[DataDir], None]:
    def change(data: DataDir) -> None:
        data.columns.setdefault(table, ["1"] * 3)[1] = value
    return change


def rename(speaker: str) -> Callable[[DataDir], None]:
    """Utterance ids as in prepare_mine.py of docs/extending.md."""
    def change(data: DataDir) -> None:
        data.columns["utt2spk"][:2] = [speaker] * 2
        data.ids[:2] = [f"{speaker}-a", f"{speaker}-b"]
    return change


CHANGES = {
    "speaker with a blank": (rename("a s"), "id 'a s-a': an id is one word without blanks"),
    "speaker with a tab": (rename("a\ts"), "an id is one word"),
    "speaker with a line end": (rename("a\ns"), "an id is one word"),
    "speaker with a slash": (rename("a/s"), "an id is one word"),
    "speaker with dots": (rename("a.."), "an id is one word"),
    "speaker with a no-break space": (rename("a\xa0s"), "an id is one word"),
    "speaker that is not UTF-8": (rename("a\udcff"), "an id is one word"),
    "no utterance id": (lambda data: data.ids.__setitem__(0, ""), "id '': an id is one word"),
    "no speaker": (put("utt2spk", ""), "s1-b: '' is not a speaker id"),
    "bad speaker of good ids": (put("utt2spk", "s1 "), "s1-b: 's1 ' is not a speaker id, one word"),
    "no path": (put("wav.scp", ""), "s1-b: '' is not a value"),
    "path with a line end": (put("wav.scp", "/x/a\nb.wav"), "s1-b: '/x/a.nb.wav' holds a line end"),
    "path with CR": (put("wav.scp", "/x/a\rb.wav"), "holds a line end"),
    "path with NUL": (put("wav.scp", "/x/a\0b.wav"), "holds a line end, a NUL"),
    "path that is not UTF-8": (put("wav.scp", "/x/a\udcff.wav"), "bytes that are not UTF-8"),
    "path that ends in a space": (put("wav.scp", "/x/a.wav "), "a space at an end; rename the file"),
    "frames": (put("utt2num_frames", "0"), "s1-b: '0' is not a number of frames above 0"),
    "frames of two words": (put("utt2num_frames", "1 2"), "s1-b: '1 2' is not a number of frames"),
    "speed": (put("utt2speed", "nan"), "s1-b: 'nan' is not a speed factor"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_reader_refuses_is_not_written(tmp_path: Path, what: str) -> None:
    change, message = CHANGES[what]
    data = example()
    change(data)
    with pytest.raises(InputError, match=message) as error:
        write_data_dirs({tmp_path / "train": (example(), {}), tmp_path / "test": (data, {})})
    assert len(str(error.value).splitlines()) == 1
    assert "test/" in str(error.value) and "prepare the data again" in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", ["1", "x", "a b", "\x85", "\ufeff", "\u2028", "\ud800", "1\t", "\v1", "\0", "..", "/",
                                   "-1", "\u0663"])
@pytest.mark.parametrize("table", TABLES)
def test_what_is_written_can_be_read(tmp_path: Path, table: str, value: str) -> None:
    data = example()
    put(table, value)(data)
    try:
        write_data_dir(tmp_path / "data", data)
    except InputError:
        return
    assert read_data_dir(tmp_path / "data") == data


@pytest.mark.parametrize("lines", [["s1-a s1-b\n"], ["s1-a s1-a target\n"], ["s1-a x target\n"], []])
def test_trials_that_the_reader_refuses_are_not_written(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(InputError, match=f"{tmp_path}/data/trials/list"):
        write_data_dir(tmp_path / "data", example(), {"list": lines})
    assert not list(tmp_path.iterdir())


def test_a_second_repair_keeps_the_originals_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_data_dir(folder, example())
    contents = []
    for number in range(3):
        lines = (folder / "wav.scp").read_bytes() + f"s1-a /other{number}.wav\n".encode()
        (folder / "wav.scp").write_bytes(lines)
        contents.append(lines)
        assert str(folder / ".backup") in fix(folder)[-1]
    kept = [(folder / name / "wav.scp").read_bytes() for name in (".backup", ".backup.2", ".backup.3")]
    assert kept == contents


def test_a_list_that_is_not_utf8_ends_the_repair_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_data_dir(folder, example(), {"list": ["s1-a s1-b target\n", "s1-a s2-a nontarget\n"]})
    path = folder / "trials/list"
    path.write_bytes(path.read_bytes().replace(b"s2-a", b"\xff"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=r"trials/list:2: not UTF-8; correct the line"):
        fix(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_nul_byte_in_a_path_is_dropped_with_its_utterance(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_data_dir(folder, example())
    path = folder / "wav.scp"
    path.write_bytes(path.read_bytes().replace(b"s1-b 1", b"\0"))
    assert "wav.scp: dropped 1 lines that are not UTF-8 or hold a NUL byte: line 2" in fix(folder)
    assert read_data_dir(folder).ids == ["s1-a", "s2-a"]
