"""Data directories whose utterances are parts of recordings: read, checked, repaired, copied, computed."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from steps.feat.compute_feats import Reader, utterances
from utils.audio import SILENT
from utils.errors import InputError
from utils.kaldi.data_dir import DataDir, read_data_dir, write_data_dir
from utils.kaldi.fix_data_dir import fix
from utils.kaldi.segments import Segment, cut, read_segment
from utils.kaldi.validate_data_dir import validate

TABLES = {
    "segments": ["a-call1-1 call1 0.5 1.25", "a-call1-2 call1 1 2", "a-call2-1 call2 0.1 1.1", "b-call1-1 call1 1.5 -1",
                 "b-call2-1 call2 0 1.5"],
    "utt2spk": ["a-call1-1 a", "a-call1-2 a", "a-call2-1 a", "b-call1-1 b", "b-call2-1 b"],
    "spk2utt": ["a a-call1-1 a-call1-2 a-call2-1", "b b-call1-1 b-call2-1"],
    "wav.scp": ["call1 {}/call1.wav", "call2 {}/call2.flac"],
    "reco2dur": ["call1 2.5", "call2 1.5"],
}


@pytest.fixture
def data(tmp_path):
    """Two recordings, 2.5 and 1.5 s, of two speakers, with overlapping segments."""
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(4)
    for name, seconds in (("call1.wav", 2.5), ("call2.flac", 1.5)):
        soundfile.write(folder / name, rng.uniform(-0.5, 0.5, int(seconds * 16000)), 16000)
    for name, lines in TABLES.items():
        (folder / name).write_text("".join(f"{line.format(folder)}\n" for line in lines))
    return folder


@pytest.fixture
def run(monkeypatch):
    """Call a tool's main."""

    def call(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        importlib.import_module(f"utils.kaldi.{name}").main()

    return call


def test_each_utterance_has_the_path_of_its_recording(data, tmp_path):
    found = read_data_dir(data)
    assert [Path(path).name for path in found.columns["wav.scp"]] == [
        "call1.wav", "call1.wav", "call2.flac", "call1.wav", "call2.flac"]
    assert found.columns["reco2dur"] == ["2.5", "2.5", "1.5", "2.5", "1.5"]
    write_data_dir(tmp_path / "copy", found)
    for name in TABLES:
        assert (tmp_path / "copy" / name).read_bytes() == (data / name).read_bytes()
    assert validate(data).endswith("5 utterances, 2 speakers; utt2spk, segments, wav.scp, reco2dur")


@pytest.mark.parametrize(("table", "old", "new", "message"), [
    ("segments", "call1 0.5 1.25", "call1 1.25 0.5", "segments:1: 'call1 1.25 0.5' is not a recording"),
    ("segments", "call1 0.5 1.25", "call1 1 1", "segments:1: 'call1 1 1' is not a recording with start and end"),
    ("segments", "call1 0.5 1.25", "call1 0.5", "segments:1: 'call1 0.5' is not a recording with start"),
    ("segments", "call1 0.5 1.25", "call1 -0.5 1.25", "segments:1: 'call1 -0.5 1.25' is not a recording"),
    ("segments", "call1 0.5 1.25", "call1 nan 1.25", "segments:1: 'call1 nan 1.25' is not a recording"),
    ("segments", "call1 0.5 1.25", "call/1 0.5 1.25", "segments:1: 'call/1 0.5 1.25' is not a recording"),
    ("segments", "call1 0.5 1.25", "call3 0.5 1.25", "wav.scp: lacks 1 recordings of segments: call3; repair"),
    ("segments", "a-call1-1 call1 0.5 1.25\n", "", "segments: lacks 1 utterances of utt2spk: a-call1-1"),
    ("segments", "call2 0 1.5", "call2 0 2.01", "b-call2-1: ends at 2.01 s, but recording call2 lasts 1.5 s"),
    ("segments", "call2 0 1.5", "call2 1.5 2", "b-call2-1: starts at 1.5 s, but recording call2 lasts 1.5 s"),
    ("wav.scp", "call2 ", "call3 {0}/x.wav\ncall2 ", "call2 after call3: not sorted"),
    ("wav.scp", "call1 ", "call0 {0}/x.wav\ncall1 ", "wav.scp: no segment of 1 recordings: call0; repair"),
    ("reco2dur", "call2 1.5\n", "", "reco2dur: lacks 1 recordings of segments: call2; repair"),
    ("reco2dur", "call2 1.5", "call2 0", "reco2dur:2: '0' is not a length in seconds above 0"),
])
def test_faults(data, table, old, new, message):
    text = (data / table).read_text()
    assert old in text
    (data / table).write_text(text.replace(old, new.format(data)))
    with pytest.raises(InputError) as error:
        validate(data)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_ends_a_little_after_the_recording_are_moved_there(data):
    text = (data / "segments").read_text()
    (data / "segments").write_text(text.replace("call2 0 1.5", "call2 0 2"))
    read_data_dir(data)
    assert read_segment("call2 0.5 -1") == Segment("call2", 0.5, None)
    samples = np.arange(1000.0)
    assert cut(samples, 1000, Segment("x", 0.25, 1.5)).tolist() == samples[250:].tolist()
    assert cut(samples, 1000, Segment("x", 0.25, None)).tolist() == samples[250:].tolist()
    assert cut(samples, 1000, Segment("x", 0, 0.75)).tolist() == samples[:750].tolist()
    for segment, message in ((Segment("x", 0.25, 1.51), "ends at 1.51 s, but recording x lasts 1 s"),
                             (Segment("x", 1, 1.2), "starts at 1 s, but recording x lasts 1 s"),
                             (Segment("x", 0.5, 0.5005), "from 0.5 to 0.5005 s of recording x: no sample")):
        with pytest.raises(InputError, match=message):
            cut(samples, 1000, segment)


def test_audio_of_a_segment(data):
    """The samples between its times; whether it is silent is judged by them alone."""
    loud = np.random.default_rng(1).uniform(-0.5, 0.5, 40000).astype(np.float32)
    loud[:24000] = 0
    soundfile.write(data / "call1.wav", loud, 16000, subtype="FLOAT")
    found, reader = list(utterances(data, 1, 1)), Reader(16000, pipes=False)
    assert [one.name for one in found] == read_data_dir(data).ids
    parts = {one.name: reader.read(one.path, one.segment) for one in found}
    assert parts["a-call1-1"].notes == (SILENT,) and parts["b-call1-1"].notes == ()
    np.testing.assert_array_equal(parts["a-call1-2"].samples, loud[16000:32000] * 32768)
    np.testing.assert_array_equal(parts["b-call1-1"].samples, loud[24000:] * 32768)
    other, _ = soundfile.read(data / "call2.flac", dtype="float32")
    np.testing.assert_array_equal(parts["a-call2-1"].samples, other[1600:17600] * 32768)
    soundfile.write(data / "call2.flac", np.zeros(24000), 16000)
    assert Reader(16000, pipes=False).read(found[2].path, found[2].segment).notes == (SILENT,)


def test_repair(data):
    (data / "utt2spk").write_text((data / "utt2spk").read_text() + "c-1 c\nc-2 c\n")
    (data / "segments").write_text((data / "segments").read_text().replace("call1 0.5 1.25", "call1 0.5 9").replace(
        "call1 1 2", "call1 2 1") + "c-1 call9 0 1\nc-2 call3 0 1\n")
    (data / "wav.scp").write_text((data / "wav.scp").read_text() + "call3 /x.wav\ncall4 /x.wav\n")
    notes = fix(data)
    for wanted in ("segments: dropped 1 lines with a bad value: a-call1-2",
                   "segments: dropped 1 segments that are not inside their recording: a-call1-1",
                   "segments: dropped 1 segments of recordings that wav.scp lacks: c-1",
                   "segments: dropped 1 segments of recordings that reco2dur lacks: c-2",
                   "segments: dropped 2 recordings of wav.scp without a segment: call3, call4"):
        assert wanted in notes, notes
    assert read_data_dir(data).ids == ["a-call2-1", "b-call1-1", "b-call2-1"]
    assert (data / "reco2dur").read_text() == "call1 2.5\ncall2 1.5\n"
    assert "reco2dur" in {path.name for path in (data / ".backup").iterdir()}


def test_tools_keep_segments(data, tmp_path, run):
    run("subset_data_dir", "--first", 2, data, tmp_path / "first")
    assert (tmp_path / "first/wav.scp").read_text() == f"call1 {data}/call1.wav\n"
    assert (tmp_path / "first/reco2dur").read_text() == "call1 2.5\n"
    run("perturb_speed", "--speeds", "0.9", data, tmp_path / "slow")
    assert (tmp_path / "slow/segments").read_text().startswith("sp0.9-a-call1-1 call1 0.5 1.25\n")
    run("combine_data", tmp_path / "both", data, tmp_path / "slow")
    both = read_data_dir(tmp_path / "both")
    assert len(both.ids) == 10 and (tmp_path / "both/wav.scp").read_bytes() == (data / "wav.scp").read_bytes()
    run("split_data_dir", data, 2)
    assert (data / "split2/1/segments").read_text().count("\n") == 2
    assert (data / "split2/2/wav.scp").read_bytes() == (data / "wav.scp").read_bytes()
    run("copy_data_dir", "--utt-prefix", "x-", "--spk-prefix", "x-", data, tmp_path / "x")
    assert (tmp_path / "x/segments").read_text().startswith("x-a-call1-1 call1 0.5 1.25\n")


def test_combination_with_whole_files(data, tmp_path, run):
    """Whole files become recordings; two recordings with one id are an error, and nothing is written."""
    write_data_dir(tmp_path / "whole", DataDir(["c-1"], {"utt2spk": ["c"], "wav.scp": ["/c 1.wav"]}))
    run("combine_data", tmp_path / "both", data, tmp_path / "whole")
    assert (tmp_path / "both/segments").read_text().splitlines()[-1] == "c-1 c-1 0 -1"
    assert (tmp_path / "both/wav.scp").read_text().splitlines()[0] == "c-1 /c 1.wav"
    assert not (tmp_path / "both/reco2dur").exists()
    run("copy_data_dir", "--utt-prefix", "x-", "--spk-prefix", "x-", data, tmp_path / "x")
    (tmp_path / "x/wav.scp").write_text("call1 /another.wav\ncall2 /2.wav\n")
    with pytest.raises(InputError, match=r"all/wav.scp: recording call1 is both .*/call1.wav and /another.wav; give"):
        run("combine_data", tmp_path / "all", data, tmp_path / "x")
    assert not (tmp_path / "all").exists()
