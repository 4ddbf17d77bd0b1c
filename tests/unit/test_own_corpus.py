"""Any folder of recordings: who speaks, in which session, ids for Kaldi's tables, and tables that tell more."""

import os
import unicodedata
from pathlib import Path

import pytest

from local.own_corpus import (
    Naming,
    Recording,
    find_recordings,
    look_alikes,
    make_ids,
    pattern_of,
    plain,
    read_table,
    speaker_ids,
)
from tests.in_process import call
from utils.errors import InputError
from utils.kaldi.data_dir import DataDir, write_data_dir

NAMES = ["Ann", "ann", "ANN", "José", unicodedata.normalize("NFD", "José"), "Jose", "李 雷", "Владимир", "O'Neil \"x\"",
         "a\nb", "a b", "a_b", "..", "-", "a-b", "a", "x" * 300, "x" * 299, "🎤", "bad\udcff", "a|", "a_b_2", "sp0.9-a"]


BY_FOLDER = Naming()


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def named(root: Path, naming: Naming = BY_FOLDER) -> dict[str, tuple[str, str]]:
    return {one.name: (one.speaker, one.session) for one in find_recordings(root, naming)[0]}


def test_speakers_are_folders_below_the_names_of_parts(tmp_path):
    root = touch(tmp_path, *(f"wav/dev/{speaker}/{session}/1.{ending}" for speaker, session, ending in (
        ("ann", "mon/am", "wav"), ("ann", "tue", "WAV"), ("bob", "mon", "m4a"))), "wav/dev/cid/1.sph", "wav/notes.txt",
        "wav/dev/ann/mon/.hidden.wav", "wav/dev/ann/mon/._1.wav", ".trash/x/1.wav")
    wanted = {"wav/dev/ann/mon/am/1.wav": ("ann", "mon/am"), "wav/dev/ann/tue/1.WAV": ("ann", "tue"),
              "wav/dev/bob/mon/1.m4a": ("bob", "mon"), "wav/dev/cid/1.sph": ("cid", "")}
    assert named(root) == wanted
    _, remarks = find_recordings(root, Naming())
    assert remarks == ["1 files are not audio by their ending: 1 .txt",
                       "speakers are the folders at level 3, such as wav/dev/ann (another level: --speaker-level)"]
    assert set(named(root, Naming(level=4)).values()) == {("mon", "am"), ("mon", ""), ("tue", ""), ("", "")}


def test_a_folder_that_leads_back_to_itself_is_listed_once(tmp_path):
    root = touch(tmp_path, "ann/1.wav", "bob/1.wav")
    (root / "bob/again").symlink_to(root)
    assert set(named(root)) == {"ann/1.wav", "bob/1.wav"}


def test_the_list_of_a_corpus_has_a_folder_that_leads_back_to_itself_once(tmp_path):
    root = touch(tmp_path / "corpus", "ann/1.wav", "bob/1.wav")
    (root / "bob/again").symlink_to(root)
    contents = []
    for _ in range(2):
        done = call("local.list_corpus", tmp_path / "list", root)
        assert (done.returncode, done.stderr) == (0, "")
        contents.append((tmp_path / "list").read_text().splitlines())
        (root / "ann/1.wav").write_text("another recording")
    folders = [f"{root}", f"{root}/ann", f"{root}/bob"]
    assert [[line.split()[0] for line in lines] for lines in contents] == [folders, folders]
    assert [old == new for old, new in zip(*contents, strict=True)] == [True, False, True]


def test_speakers_of_a_regular_expression(tmp_path):
    root = touch(tmp_path, "ann-1-a.wav", "bob-2-b.wav", "noise.wav")
    assert named(root, Naming(pattern=pattern_of("^([^-]+)-")))["bob-2-b.wav"] == ("bob", "")
    both = named(root, Naming(pattern=pattern_of("(?P<session>x)?(?P<speaker>[a-z]+)-(?:[0-9])")))
    assert both == {"ann-1-a.wav": ("ann", ""), "bob-2-b.wav": ("bob", ""), "noise.wav": ("", "")}
    both = named(root, Naming(pattern=pattern_of("(?P<speaker>[^-]+)-(?P<session>[0-9])")))
    assert both["ann-1-a.wav"] == ("ann", "1")
    for bad, message in (("[a", "--speaker-regex '\\[a': unterminated"),
                         ("ann", "'ann' has no group; put the speaker")):
        with pytest.raises(InputError, match=message):
            pattern_of(bad)


def test_a_table_names_files_speakers_and_more(tmp_path):
    root = touch(tmp_path / "c", "1.wav", "2.dat", "sub/3.wav", "4.wav")
    path = tmp_path / "t.csv"
    path.write_text('\ufeffPath;Speaker;session;Gender;city\r\n1.wav;Ann;;f;"Köln; Süd"\r\n./2.dat;Bob;7;m;\r\n'
                    f"{root}/sub/3.wav;Ann;8;f;Bonn\r\n")
    found, remarks = find_recordings(root, Naming(table=read_table(path, root)))
    assert [(one.name, one.speaker, one.session, one.more) for one in found] == [
        ("1.wav", "Ann", "", {"gender": "f", "city": "Köln; Süd"}), ("2.dat", "Bob", "7", {"gender": "m", "city": ""}),
        ("sub/3.wav", "Ann", "8", {"gender": "f", "city": "Bonn"})]
    assert remarks == [f"1 audio files are not in {path} and are left out: 4.wav"]
    path.write_text("speaker\tgender\nsub\tf\n")
    assert find_recordings(touch(root, "other/1.wav"), Naming(1, table=read_table(path, root)))[0][-1].more == {
        "gender": "f"}


def test_a_quote_between_tabs_is_a_character(tmp_path):
    (tmp_path / "t.tsv").write_text('path\tspeaker\tsentence\na.wav\tAnn\t"No\nb.wav\tBob\tYes"\n')
    assert [row["sentence"] for row in read_table(tmp_path / "t.tsv", tmp_path).by_path.values()] == ['"No', 'Yes"']


def test_a_work_folder_in_the_corpus_is_refused(tmp_path):
    root = touch(tmp_path / "corpus", "ann/1.wav", "bob/1.wav")
    (tmp_path / "link").symlink_to(root)
    for place in ("corpus/work/data", "link/work/data", "corpus"):
        done = call("local.list_corpus", tmp_path / place / "list", root)
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert f"{place} lies in the corpus {root}, and its files would become part of it; name another" in done.stderr
    assert sorted(path.name for path in root.iterdir()) == ["ann", "bob"]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    root = touch(tmp_path, "ann/1.wav", "bob/1.wav")
    listing = os.scandir

    def scandir(path):
        if os.fspath(path).endswith("bob"):
            raise PermissionError(13, "Permission denied", path)
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="bob: Permission denied; make the folder readable, or move it away"):
        find_recordings(root, Naming())


def test_paths_of_a_table_start_from_the_corpus_or_else_from_the_test_folder(tmp_path):
    """A path that both have is the corpus's; the other file has no row unless its path is absolute."""
    corpus, test = touch(tmp_path / "c", "a/1.wav", "b/1.wav"), touch(tmp_path / "t", "a/1.wav", "x/1.wav", "y/1.wav")
    (tmp_path / "t.csv").write_text(f"path,speaker\na/1.wav,Ann\nb/1.wav,Bob\nx/1.wav,Xi\n{test}/y/1.wav,Yo\n")
    naming = Naming(table=read_table(tmp_path / "t.csv", corpus, test))
    assert named(corpus, naming) == {"a/1.wav": ("Ann", ""), "b/1.wav": ("Bob", "")}
    assert named(test, naming) == {"x/1.wav": ("Xi", ""), "y/1.wav": ("Yo", "")}
    assert find_recordings(test, naming)[1][-1].endswith("t.csv and are left out: a/1.wav")


@pytest.mark.parametrize(("text", "message"), [
    ("file,speaker2\n", "its first line has the columns file, speaker2; wanted path and speaker"),
    ("", r"its first line has the columns \(none\)"),
    ("path,speaker,path\na,b,c\n", "columns path, speaker, path"),
    ("path,speaker\na.wav\n", "row 2 has 1 cells, the first line 2"),
    ("path,speaker\na.wav,x\n./a.wav,y\n", "row 3: path is './a.wav', listed twice"),
    ("path,speaker\n,x\n", "row 2: path is '', empty"),
    ('path,speaker,text\na.wav,x,"so\nb.wav,y,no\n', "line 3: unexpected end of data; close the quote"),
    ('path,speaker,text\na.wav,x,"so\nb.wav,y,"no"\n', "line 3: ',' expected after '\"'; close the quote there"),
    (f'path,speaker,text\na.wav,x,"{"so " * 50000}\n', "line 2: field larger than field limit .131072.; close"),
    ("path,speaker\nq.wav,x\n", "none of its 1 paths is in .*c, such as '.*q.wav'; wanted absolute paths, or "
     "relative ones, such as '1.wav'"),
])
def test_tables_that_cannot_be_used(tmp_path, text, message):
    root = touch(tmp_path / "c", "1.wav")
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        find_recordings(root, Naming(table=read_table(tmp_path / "t.csv", root)))
    (tmp_path / "t.csv").write_bytes(b"path,speaker\n\xff,a\n")
    with pytest.raises(InputError, match="not UTF-8 at byte 13"):
        read_table(tmp_path / "t.csv", root)


def test_what_is_no_corpus_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder; name the one that holds the recordings"):
        find_recordings(tmp_path / "none", Naming())
    with pytest.raises(InputError, match="no audio .*; it holds 2 with .txt, 1 with no ending; name the folder"):
        find_recordings(touch(tmp_path / "text", "a.txt", "b.txt", "README"), Naming())
    for names in (("a.wav", "b.wav"), ("wav/a.wav", "wav/b.wav"), ("dev/a.wav", "test/b.wav")):
        with pytest.raises(InputError, match="no level of folders tells speakers apart .*--speaker-regex or --meta"):
            find_recordings(touch(tmp_path / names[0].replace("/", "-"), *names), Naming())


def test_ids_are_plain_unique_and_in_kaldis_order(tmp_path):
    recordings = [Recording(f"/{number}", f"{speaker}/{session}/{stem}.{ending}", speaker, session)
                  for number, (speaker, session, stem, ending) in enumerate(
                      (speaker, session, stem, ending) for speaker in NAMES for session in ("", "s 1", "s_1", "S-1")
                      for stem in ("a", "A", "a_2", "ä", "日") for ending in ("wav", "mp3"))]
    ids, speakers = make_ids(recordings), speaker_ids(recordings)
    assert len({one.lower() for one in ids}) == len(ids) == len(recordings)
    assert len({one.lower() for one in speakers.values()}) == len(NAMES)
    for one, name in zip(recordings, ids, strict=True):
        assert name.isascii() and name.startswith(f"{speakers[one.speaker]}-") and len(name) < 140
        assert name.count("-") == 1 + bool(one.session)
        assert all(sign.isalnum() or sign in "-_" for sign in name)
    rows = sorted(range(len(ids)), key=ids.__getitem__)
    data = DataDir([ids[row] for row in rows], {"utt2spk": [speakers[recordings[row].speaker] for row in rows],
                                                "wav.scp": [recordings[row].path for row in rows]})
    write_data_dir(tmp_path / "data", data)  # refuses ids that Kaldi's tools would not take
    assert speakers["ANN"] == "ANN" and speakers["Ann"] == "Ann_2"
    assert speakers["Jose"] == "Jose" and speakers["a"] == "a"
    assert make_ids(recordings[::-1])[::-1] == ids


def test_plain_names_and_look_alikes():
    names = ("José 2", "李", "", "a/b\n", "Ça-va!")
    assert [plain(name) for name in names] == ["Jose_2", "u674e", "_", "a_b_", "Ca_va_"]
    assert look_alikes(NAMES) == ["'ANN' / 'Ann' / 'ann'", " / ".join(map(repr, NAMES[4:2:-1]))]
    assert look_alikes(["Ann", "Bob"]) == []


def test_a_corpus_with_names_in_bytes_that_are_not_text(tmp_path):
    for name in (b"a\xff", b"b"):
        os.mkdir(os.fsencode(tmp_path) + b"/" + name)
        with open(os.fsencode(tmp_path) + b"/" + name + b"/1.wav", "wb"):
            pass
    found, _ = find_recordings(tmp_path, Naming())
    assert [one.speaker for one in found] == ["a\udcff", "b"] and make_ids(found) == ["audcff-1", "b-1"]
