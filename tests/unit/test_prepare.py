"""Preparation of VoxCeleb in every layout, and faulty corpora and trial lists."""

import os
import re
import sys
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from local import prepare_voxceleb
from local.corpus import find_utterances, read_names, utterance_id
from local.preflight import file_fault
from local.speaker_tables import read_speakers, write_speakers
from local.trial_lists import TrialList
from utils.errors import InputError
from utils.kaldi.data_dir import read_data_dir
from utils.kaldi.validate_data_dir import validate

DEV, TEST = ("id10001", "id10002", "id10003"), ("id10270", "id10271")
NAMES = dict(zip((*DEV, *TEST), ("A.J._Buckley", "Adam_O'Neil", "Zoe", "Eartha_Kitt", "Ed_Westwick"),
                 strict=True))
VIDEOS = ("1zcIwhmdeo4", "x6uYq-x31k_")  # ids of VoxCeleb's videos contain - and _


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Run the preparation with these options and tmp_path/data as output."""

    def call(*options: object) -> Path:
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, options), str(tmp_path / "data")])
        prepare_voxceleb.main()
        return tmp_path / "data"

    return call


def write_audio(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".m4a":
        write_m4a(path)
    else:
        soundfile.write(path, np.zeros(160, np.int16), 16000)


def write_m4a(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        frame.rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def make_corpus(root: Path, dev: str, test: str, suffix: str = "wav", first_release: bool = False) -> Path:
    """Write two videos of two utterances for each speaker, and a list of trials of the test speakers."""
    for speaker in (*DEV, *TEST):
        for video in VIDEOS:
            for number in (1, 2):
                folder = root / (test if speaker in TEST else dev)
                if first_release:
                    write_audio(folder / NAMES[speaker] / f"{video}_{number:07}.{suffix}")
                else:
                    write_audio(folder / speaker / video / f"{number:05}.{suffix}")
    paths = [f"{speaker}/{VIDEOS[0]}/0000{number}.wav" for speaker in TEST for number in (1, 2)]
    (root / "veri_test.txt").write_text(f"1 {paths[0]} {paths[1]}\n0 {paths[0]} {paths[2]}\n")
    return root


def ids(speakers: tuple[str, ...], videos: tuple[str, ...] = VIDEOS) -> list[str]:
    return [f"{speaker}-{video}-0000{number}"
            for speaker in speakers for video in videos for number in (1, 2)]


TRIALS = ("id10270-1zcIwhmdeo4-00001 id10270-1zcIwhmdeo4-00002 target\n"
          "id10270-1zcIwhmdeo4-00001 id10271-1zcIwhmdeo4-00001 nontarget\n")
LAYOUTS = {
    "dev and test": ("dev/wav", "test/wav"),
    "as unpacked": ("vox1_dev_wav/wav", "vox1_test_wav/wav"),
    "nested": ("VoxCeleb1/train/wav", "VoxCeleb1/test/wav"),
    "without wav": ("dev", "test"),
    "merged": ("wav", "wav"),
    "merged, at the top": (".", "."),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_layouts_of_voxceleb1(tmp_path: Path, run, layout: str, suffix: str) -> None:
    data = run("--voxceleb1-root", make_corpus(tmp_path / "vox 1;'a'", *LAYOUTS[layout], suffix))
    validate(data / "train")
    validate(data / "test")
    train, test = read_data_dir(data / "train"), read_data_dir(data / "test")
    assert train.ids == ids(DEV)
    assert test.ids == [one for one in ids(TEST, VIDEOS[:1]) if one != "id10271-1zcIwhmdeo4-00002"]
    assert (data / "test/trials/veri_test").read_text() == TRIALS
    for path, one in zip(train.columns["wav.scp"], train.ids, strict=True):
        assert os.path.isabs(path) and Path(path).is_file()
        assert one == "-".join([*Path(path).parts[-3:-1], Path(path).stem])


def test_first_release(tmp_path: Path, run) -> None:
    root = make_corpus(tmp_path / "vox", "voxceleb1_wav", "voxceleb1_wav", first_release=True)
    lines = "".join(f"{speaker}\t{name}\tm\tIreland\tdev\r\n" for speaker, name in NAMES.items())
    header = "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\r\n"
    (root / "vox1_meta.csv").write_bytes(f"{header}{lines}".encode())
    data = run("--voxceleb1-root", root)
    assert read_data_dir(data / "train").ids == ids(DEV)
    assert (data / "test/trials/veri_test").read_text() == TRIALS
    # That release's list has people's names and seven digits.
    (root / "veri_test.txt").unlink()
    (root / "voxceleb1_test.txt").write_text(
        "1 Eartha_Kitt/1zcIwhmdeo4_0000001.wav Eartha_Kitt/1zcIwhmdeo4_0000002.wav\n"
        "0 Eartha_Kitt/1zcIwhmdeo4_0000001.wav Ed_Westwick/1zcIwhmdeo4_0000001.wav\n")
    data = run("--voxceleb1-root", root)
    assert (data / "test/trials/voxceleb1_test").read_text() == TRIALS
    # Without the table of names, names are kept, in audio and list alike.
    (root / "vox1_meta.csv").unlink()
    data = run("--voxceleb1-root", root)
    assert set(read_data_dir(data / "train").speakers) == {"A.J._Buckley", "Adam_O'Neil", "Zoe"}
    assert "Eartha_Kitt-1zcIwhmdeo4-00001 Ed_Westwick-1zcIwhmdeo4-00001 nontarget" in (
        data / "test/trials/voxceleb1_test").read_text()


def test_names_without_table_do_not_fit_lists_of_ids(tmp_path: Path, run,
                                                     capsys: pytest.CaptureFixture) -> None:
    root = make_corpus(tmp_path / "vox", "voxceleb1_wav", "voxceleb1_wav", first_release=True)
    with pytest.raises(InputError, match="2 of its 2 speakers have no audio"):
        run("--voxceleb1-root", root)
    assert "--meta" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_voxceleb2(tmp_path: Path, run) -> None:
    root1 = make_corpus(tmp_path / "vox1", "dev/wav", "test/wav")
    root2 = tmp_path / "vox2"
    for part, speaker in (("dev", "id00012"), ("dev", "id00013"), ("test", "id00017")):
        write_audio(root2 / part / "aac" / speaker / "21Uxsk56VDQ" / "00001.m4a")
    (root2 / "dev/txt/id00012").mkdir(parents=True)
    both = run("--voxceleb1-root", root1, "--voxceleb2-root", root2)
    assert read_data_dir(both / "train").ids == [
        "id00012-21Uxsk56VDQ-00001", "id00013-21Uxsk56VDQ-00001", *ids(DEV)]
    everything = run("--voxceleb1-root", root1, "--voxceleb2-root", root2,
                     "--train", "voxceleb1-dev,voxceleb2-dev,voxceleb2-test")
    assert "id00017" in read_data_dir(everything / "train").speakers
    # A copy converted to wav next to the original is the same utterance.
    write_audio(root2 / "dev/aac/id00012/21Uxsk56VDQ/00001.wav")
    only = run("--voxceleb1-root", root1, "--voxceleb2-root", root2, "--train", "voxceleb2")
    train = read_data_dir(only / "train")
    assert len(train.ids) == 2 and train.columns["wav.scp"][0].endswith(".wav")


def hard_list(root: Path) -> Path:
    """Write a list E, with speakers of dev and test."""
    everyone = ids((*DEV, *TEST))
    paths = [f"{one[:7]}/{one[8:19]}/{one[20:]}.wav" for one in everyone]
    lines = [f"{int(one[:7] == two[:7])} {one} {two}\n" for one, two in pairwise(paths)]
    (root / "list_test_all.txt").write_text("".join(lines))
    return root / "list_test_all.txt"


def test_lists_of_training_speakers(tmp_path: Path, run, capsys: pytest.CaptureFixture) -> None:
    root = make_corpus(tmp_path / "vox1", "dev/wav", "test/wav")
    path = hard_list(root)
    data = run("--voxceleb1-root", root)
    assert [one.name for one in (data / "test/trials").iterdir()] == ["veri_test"]
    told = capsys.readouterr().err
    assert "list_test_all.txt left out: 3 of its 5 speakers are in the training data" in told
    with pytest.raises(InputError, match="3 of 5 speakers of .*_all.txt are .*in the training data.*with --lists"):
        run("--voxceleb1-root", root, "--lists", path, "--")
    data = run("--voxceleb1-root", root, "--max-shared-speakers", 0.6)
    assert len(read_data_dir(data / "test").ids) == 20
    write_audio(tmp_path / "vox2/dev/aac/id00012/21Uxsk56VDQ/00001.m4a")
    data = run("--voxceleb1-root", root, "--voxceleb2-root", tmp_path / "vox2", "--train", "voxceleb2-dev",
               "--lists", path, root / "veri_test.txt")
    assert sorted(one.name for one in (data / "test/trials").iterdir()) == ["list_test_all", "veri_test"]
    assert read_data_dir(data / "test").ids == ids((*DEV, *TEST))


def test_named_lists(tmp_path: Path, run, capsys: pytest.CaptureFixture) -> None:
    root = make_corpus(tmp_path / "vox1", "wav", "wav")
    own = tmp_path / "own.txt"
    own.write_bytes((root / "veri_test.txt").read_bytes().replace(b"\n", b"\r\n"))
    data = run("--lists", own, "--voxceleb1-root", root)
    assert (data / "test/trials/own").read_text() == TRIALS
    assert not (data / "test/trials/veri_test").exists()
    assert "2 carriage returns" in capsys.readouterr().err
    (tmp_path / "x").mkdir()
    (tmp_path / "x/own.txt").write_bytes(own.read_bytes())
    with pytest.raises(InputError, match="the same name"):
        run("--voxceleb1-root", root, "--lists", own, tmp_path / "x/own.txt")
    (root / "veri_test.txt").unlink()
    with pytest.raises(InputError, match="no trial list to test on; .*--lists"):
        run("--voxceleb1-root", root)


@pytest.mark.parametrize(("line", "message"), [
    ("2 id10270/a/00001.wav id10270/a/00002.wav", "veri_test.txt:3: label '2' is neither 1 nor 0"),
    ("target id10270/a/00001.wav id10270/a/00002.wav", "veri_test.txt:3: label 'target'"),
    ("1 id10270/a/00001.wav", "veri_test.txt:3: 2 fields"),
    ("1 id10270/a/00001.wav id10270/a/00001.flac", "veri_test.txt:3: a trial of id10270/a/00001.wav with itself"),
    ("1 id10270/a/00001.wav id10270/a b/00002.wav", "veri_test.txt:3: 4 fields"),
    ("1 00001.wav id10270/a/00002.wav", "veri_test.txt:3: '00001.wav' is not <speaker>"),
    ("1 id10270/../x/00001.wav id10270/a/00002.wav", "veri_test.txt:3: .* is not <speaker>"),
    ("1 /etc/id10270/a/00001.wav id10270/a/00002.wav", "veri_test.txt:3: .* is not <speaker>"),
])
def test_bad_lines_of_lists(tmp_path: Path, run, line: str, message: str) -> None:
    root = make_corpus(tmp_path / "vox1", "dev/wav", "test/wav")
    with open(root / "veri_test.txt", "a", encoding="utf-8") as stream:
        stream.write(f"{line}\n")
    with pytest.raises(InputError, match=message) as error:
        run("--voxceleb1-root", root)
    assert "\n" not in str(error.value) and not (tmp_path / "data").exists()


def test_trials_without_audio(tmp_path: Path, run, capsys: pytest.CaptureFixture) -> None:
    root = make_corpus(tmp_path / "vox1", "dev/wav", "test/wav")
    with open(root / "veri_test.txt", "a", encoding="utf-8") as stream:
        stream.write("0 id10270/unknown/00001.wav id10271/1zcIwhmdeo4/00001.wav\n")
    with pytest.raises(InputError, match="1 of 4 utterances of .* no usable audio: id10270-unknown-00001; "
                                         ".*--max-missing-trials 0.25"):
        run("--voxceleb1-root", root)
    assert not (tmp_path / "data").exists()
    data = run("--voxceleb1-root", root, "--max-missing-trials", 0.25)
    assert (data / "test/trials/veri_test").read_text() == TRIALS
    assert "2 trials of 3, the others without audio" in capsys.readouterr().out


def test_files_that_cannot_be_used(tmp_path: Path, run, capsys: pytest.CaptureFixture) -> None:
    root = make_corpus(tmp_path / "vox1", "dev/wav", "test/wav")
    folder = root / "dev/wav/id10001/1zcIwhmdeo4"
    (folder / "00003.wav").touch()
    (folder / "00004.wav").write_text("this is no audio " * 50)
    (folder / "00005.wav").symlink_to("nowhere.wav")
    (folder / "00006.wav").write_bytes((folder / "00001.wav").read_bytes()[:-10])
    (folder / "notes.txt").write_text("not audio, not looked at\n")
    with pytest.raises(InputError, match=r"4 of 19 audio files cannot be used: .*00003.wav \(empty\), "
                                         r".*--max-missing 0.211"):
        run("--voxceleb1-root", root)
    assert not (tmp_path / "data").exists()
    capsys.readouterr()
    data = run("--voxceleb1-root", root, "--max-missing", 0.211)
    assert read_data_dir(data / "train").ids == ids(DEV)
    told = capsys.readouterr().err
    for what in ("missing: .*00005", "empty: .*00003", "cut short: .*00006", "unreadable: .*00004"):
        assert re.search(f"1 of 19 audio files {what}", told)


def test_strange_names(tmp_path: Path, run) -> None:
    root = make_corpus(tmp_path / "vox1", "dev/wav", "test/wav")
    strange = root / "dev/wav/id10001/it's; a \"b\" | c/00 01.wav"
    write_audio(strange)
    train = read_data_dir(run("--voxceleb1-root", root) / "train")
    row = train.columns["wav.scp"].index(str(strange))
    assert train.ids[row] == "id10001-it's;_a_\"b\"_|_c-00_01"
    os.rename(strange, strange.with_name("00\n01.wav"))
    with pytest.raises(InputError, match=r"00\\n01.wav.* rename it"):
        run("--voxceleb1-root", root)
    os.rename(strange.with_name("00\n01.wav"), os.fsencode(strange.parent) + b"/\xff.wav")
    with pytest.raises(InputError, match="not UTF-8"):
        run("--voxceleb1-root", root)


def test_two_files_of_one_utterance(tmp_path: Path, run) -> None:
    root = make_corpus(tmp_path / "vox1", "dev/wav", "test/wav")
    write_audio(root / "wav/id10001/1zcIwhmdeo4/00001.wav")
    with pytest.raises(InputError, match="are both utterance id10001-1zcIwhmdeo4-00001"):
        run("--voxceleb1-root", root)


def test_corpus_is_never_written_and_may_be_links(tmp_path: Path, run) -> None:
    real = make_corpus(tmp_path / "real", "dev/wav", "test/wav")
    (real / "dev/wav/id10002").rename(tmp_path / "elsewhere")
    (real / "dev/wav/id10002").symlink_to(tmp_path / "elsewhere")
    (real / "dev/wav/id10001/loop").symlink_to(real / "dev/wav/id10001")
    (tmp_path / "link").symlink_to(real)
    folders = [real, *(path for path in real.rglob("*") if path.is_dir())]
    before = {path: (path.stat().st_mtime_ns, sorted(os.listdir(path))) for path in folders}
    for path in folders:
        path.chmod(0o555)
    try:
        data = run("--voxceleb1-root", tmp_path / "link")
    finally:
        for path in folders:
            path.chmod(0o755)
    assert {path: (path.stat().st_mtime_ns, sorted(os.listdir(path))) for path in folders} == before
    train = read_data_dir(data / "train")
    assert set(ids(DEV)) <= set(train.ids)
    assert train.columns["wav.scp"][train.ids.index("id10002-1zcIwhmdeo4-00001")] == str(
        tmp_path / "link/dev/wav/id10002/1zcIwhmdeo4/00001.wav")


def test_wrong_calls(tmp_path: Path, run) -> None:
    with pytest.raises(InputError, match="no corpus"):
        run()
    with pytest.raises(InputError, match="is not a directory"):
        run("--voxceleb1-root", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/veri_test.txt").write_text("1 a/b/c.wav a/b/d.wav\n")
    with pytest.raises(InputError, match="no audio"):
        run("--voxceleb1-root", tmp_path / "empty")
    with pytest.raises(SystemExit):
        run("--train", "voxceleb3")
    with pytest.raises(SystemExit):
        run("--train", "")
    root = make_corpus(tmp_path / "vox1", "dev/wav", "test/wav")
    with pytest.raises(InputError, match="no audio of voxceleb2-dev in .*; name the folders that hold it"):
        run("--voxceleb1-root", root, "--train", "voxceleb2-dev")


def test_headers(tmp_path: Path) -> None:
    good = tmp_path / "good.m4a"
    write_m4a(good)
    assert file_fault(str(good)) == ""
    cut = tmp_path / "cut.m4a"
    cut.write_bytes(good.read_bytes()[:-100])
    assert file_fault(str(cut)) == "cut short"
    (tmp_path / "text.m4a").write_text("no audio\n" * 100)
    assert file_fault(str(tmp_path / "text.m4a")).startswith("unreadable")
    # FFmpeg, if it guessed the format, would follow a playlist to other files.
    (tmp_path / "list.aac").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n")
    assert file_fault(str(tmp_path / "list.aac")).startswith("unreadable")
    with av.open(str(good)) as source, av.open(str(tmp_path / "raw.aac"), "w", format="adts") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert file_fault(str(tmp_path / "raw.aac")) == ""
    for name, subtype in (("float.wav", "FLOAT"), ("eight.wav", "PCM_U8"), ("ulaw.wav", "ULAW"),
                          ("x.flac", "PCM_16"), ("x.ogg", "VORBIS"), ("x.mp3", "MPEG_LAYER_III")):
        soundfile.write(tmp_path / name, np.zeros((4410, 2)), 44100, subtype=subtype)
        assert file_fault(str(tmp_path / name)) == "", name
    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.int16), 16000)
    assert file_fault(str(tmp_path / "none.wav")) == "empty"
    header = bytearray((tmp_path / "eight.wav").read_bytes())
    place = header.index(b"data") + 4
    header[place:place + 4] = b"\xff\xff\xff\xff"  # as written to a pipe
    (tmp_path / "piped.wav").write_bytes(header)
    assert file_fault(str(tmp_path / "piped.wav")) == ""
    (tmp_path / "folder.wav").mkdir()
    assert file_fault(str(tmp_path / "folder.wav")).startswith("unreadable: ")


def test_ids_of_paths() -> None:
    names = {"Eartha_Kitt": "id10270"}
    wanted = ("id10270-x6uYqmx31kE-00001", "id10270")
    for path in ("id10270/x6uYqmx31kE/00001.wav", "id10270/x6uYqmx31kE/00001.flac",
                 "id10270/x6uYqmx31kE/00001",
                 "Eartha_Kitt/x6uYqmx31kE_0000001.wav", "wav/id10270/x6uYqmx31kE/00001.wav",
                 "dev/wav/id10270/x6uYqmx31kE/00001.m4a"):
        assert utterance_id(path, names) == wanted
    assert utterance_id("speaker/no_video.wav", {}) == ("speaker-no_video", "speaker")
    for path in ("00001.wav", "wav/00001.wav", "", "/id1/x/y.wav", "id1//y.wav"):
        assert utterance_id(path, {}) == ("", "")


def test_names_table(tmp_path: Path) -> None:
    table = tmp_path / "vox1_meta.csv"
    table.write_text("VoxCeleb1 ID,VGGFace1 ID ,Gender\nid10001 ,A.J._Buckley ,m\n")
    assert read_names(table) == {"A.J._Buckley": "id10001"}
    table.write_text("nothing\n")
    with pytest.raises(InputError, match="vox1_meta.csv"):
        read_names(table)


@pytest.mark.parametrize(("text", "expected"), [
    ("VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid1\tA.B\tm\tIreland\tdev\nid2\tC\tf\tUSA\ttest\n",
     {"gender": {"id1": "m", "id2": "f"}}),
    ("VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set\nid3 ,n0 ,f ,dev\nid4 ,n1 ,? ,dev\nid5\n", {"gender": {"id3": "f"}}),
    ("speaker_id\tgender\tage\tset\nid6\tm\t12\ttest\nid7\tf\told\ttest\n",
     {"gender": {"id6": "m", "id7": "f"}, "age": {"id6": "12"}}),
    ("nothing\n", {}), ("", {})])
def test_tables_of_speakers(tmp_path: Path, text: str, expected: dict) -> None:
    (tmp_path / "meta.csv").write_text(text)
    known = read_speakers(tmp_path / "meta.csv")
    assert known == expected
    (tmp_path / "spk2age").write_text("of an earlier run")
    write_speakers(tmp_path, ["id7", "id6", "id6", "id8"], known)
    found = {path.name: path.read_text() for path in tmp_path.glob("spk2*")}
    assert found == ({"spk2gender": "id6 m\nid7 f\n", "spk2age": "id6 12\n"} if "age" in expected else {})


def test_official_list(shared: Path) -> None:
    official = TrialList(shared / "lists/veri_test.txt", {})
    assert official.trials == 37720 and official.carriage_returns == 0
    assert set(official.speakers.values()) == prepare_voxceleb.TEST_SPEAKERS
    assert len(official.speakers) == 4715
    lines = list(official.lines(official.speakers))
    assert len(lines) == official.written == 37720
    assert lines[0] == "id10270-x6uYqmx31kE-00001 id10270-8jEAjG6SegY-00008 target\n"
    assert sum(line.endswith(" target\n") for line in lines) == 18860


def test_minivox(shared: Path, run) -> None:
    root = shared / "corpora/minivox"
    if not root.is_dir():
        pytest.skip(f"no corpus in {root}")
    data = run("--voxceleb1-root", root)
    summaries = [validate(data / name) for name in ("train", "test")]
    assert "2200 utterances, 110 speakers" in summaries[0]
    assert "800 utterances, 40 speakers" in summaries[1]
    assert summaries[1].endswith("trials: veri_test 15200, veri_test_hard 15200")
    assert len(find_utterances(root, 1, {})) == 3000
    rows = [line.split("\t") for line in (root / "meta.csv").read_text().splitlines()[1:]]
    for part, name in (("train", "dev"), ("test", "test")):
        for column, table in ((1, "spk2gender"), (2, "spk2age")):
            assert (data / part / table).read_text() == "".join(
                f"{row[0]} {row[column]}\n" for row in sorted(rows) if row[3] == name)
