"""speechocean762: preparation, lists and minivox, on a synthetic corpus in its layout and, if present, on minivox."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from local import make_minivox
from local.make_minivox import choose, read_trials, write_corpus
from local.prepare_speechocean762 import draw_trials
from local.speechocean762 import Speaker, read_corpus
from tests.tiny import make_speechocean762
from utils.errors import InputError
from utils.kaldi.data_dir import read_data_dir

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "egs/speechocean762/minivox"


PEOPLE = [(1, "train", "m", 6), (3, "train", "f", 30), (4, "train", "f", 31), (2, "train", "m", 8),
          (10, "test", "m", 6), (11, "test", "m", 15), (12, "test", "m", 19), (13, "test", "m", 43),
          (14, "test", "f", 7), (15, "test", "f", 8)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_speechocean762(tmp_path_factory.mktemp("so") / "speech ocean", PEOPLE, 7)


def call(script, *words):
    return subprocess.run(["bash", str(ROOT / script), *map(str, words)], capture_output=True, text=True, check=False,
                          env=dict(os.environ))


def test_preparation_makes_both_sets_and_both_lists(corpus, tmp_path):
    counts = ("--speakers", 10, "--utterances", 70)
    done = call("local/prepare_speechocean762.sh", *counts, corpus, tmp_path)
    assert done.returncode == 0, done.stderr
    train, test = read_data_dir(tmp_path / "train"), read_data_dir(tmp_path / "test")
    assert sorted(set(train.speakers)) == ["id20001", "id20002", "id20003", "id20004"]
    assert test.ids[:7] == [f"id20010-s{1 + k // 5}-{7 * k + 10:05}" for k in range(7)]
    assert test.columns["wav.scp"][0] == f"{corpus}/WAVE/SPEAKER0010/000100010.WAV"
    assert (tmp_path / "test/spk2age").read_text().startswith("id20010 6\nid20011 15\n")
    assert (tmp_path / "train/spk2gender").read_text() == "id20001 m\nid20002 m\nid20003 f\nid20004 f\n"
    groups = {f"id200{number}": (gender, age < 16) for number, part, gender, age in PEOPLE if part == "test"}
    for name in ("all", "hard"):
        trials = [line.split() for line in (tmp_path / "test/trials" / name).read_text().splitlines()]
        assert Counter(trial[2] for trial in trials) == {"target": 6 * 21, "nontarget": 6 * 21}
        assert len({frozenset(trial[:2]) for trial in trials}) == len(trials)
        same = {groups[one[:7]] == groups[other[:7]] for one, other, kind in trials if kind == "nontarget"}
        assert same == ({True} if name == "hard" else {True, False})
        assert all((one[:7] == other[:7]) == (kind == "target") for one, other, kind in trials)
    again = call("local/prepare_speechocean762.sh", *counts, corpus, tmp_path)
    assert "up to date" in again.stderr


def test_what_is_incomplete_stops_with_one_line(corpus, tmp_path):
    done = call("local/prepare_speechocean762.sh", corpus, tmp_path / "data")
    assert done.returncode == 1
    assert "10 speakers with 70 utterances, wanted 250 with 5000; unpack" in done.stderr.splitlines()[-1]
    strangers = [Speaker(f"id{age}", "test", "f", age, (("s1/1", ""), ("s1/2", ""))) for age in (6, 30)]
    with pytest.raises(InputError, match="2 test speakers give 0 non-targets for 2 targets"):
        draw_trials(strangers, True, 1)
    other = make_speechocean762(tmp_path / "other", PEOPLE[:6], 2)
    (other / "WAVE/SPEAKER0003/000030010.WAV").unlink()
    with pytest.raises(InputError, match="1 recordings are missing: .*000030010.WAV"):
        read_corpus(other, 6, 12)
    (other / "train/spk2age").write_text("0001 6\n")
    with pytest.raises(InputError, match="no gender or age for 0002, 0003, 0004 in spk2gender"):
        read_corpus(other, 6, 12)
    (other / "train/utt2spk").write_text("000010001 0001\n")
    with pytest.raises(InputError, match="wav.scp and utt2spk list different utterances"):
        read_corpus(other, 6, 12)


@pytest.mark.long
def test_minivox_is_made_again_with_the_same_names_trials_and_samples(shared, tmp_path):
    """From its own recordings in speechocean762's layout (one speaker's in full; the others are short)."""
    minivox = shared / "corpora/minivox"
    rows = [line.split("\t") for line in (minivox / "meta.csv").read_text().splitlines()[1:]]
    corpus, real = tmp_path / "speechocean762", rows[0][0]
    tables = {part: {name: [] for name in ("wav.scp", "utt2spk", "spk2gender", "spk2age")}
              for part in ("train", "test")}
    for speaker, gender, age, part in rows:
        table, number = tables["test" if part == "test" else "train"], speaker[3:]
        table["spk2gender"].append(f"{number} {gender}")
        table["spk2age"].append(f"{number} {age}")
        for path in sorted((minivox / part / "wav" / speaker).rglob("*.flac")):
            one = f"0{number}{path.stem[1:]}"
            wav = corpus / f"WAVE/SPEAKER{number}/{one}.WAV"
            wav.parent.mkdir(parents=True, exist_ok=True)
            samples = soundfile.read(path, dtype="int16")[0] if speaker == real else np.zeros(160, np.int16)
            soundfile.write(wav, samples, 16000, format="WAV")
            table["wav.scp"].append(f"{one}\tWAVE/SPEAKER{number}/{one}.WAV")
            table["utt2spk"].append(f"{one}\t{number}")
    for part, table in tables.items():
        (corpus / part).mkdir()
        for name, lines in table.items():
            (corpus / part / name).write_text("".join(f"{line}\n" for line in lines))
    made = tmp_path / "minivox"
    write_corpus(choose(read_corpus(corpus, 150, 3000)), made)
    names = {path.relative_to(minivox) for path in minivox.rglob("*.flac")}
    assert {path.relative_to(made) for path in made.rglob("*.flac")} == names and len(names) == 3000
    assert (made / "meta.csv").read_text() == (minivox / "meta.csv").read_text()
    for name in ("veri_test.txt", "veri_test_hard.txt"):
        assert sorted((minivox / name).read_text().splitlines()) == (made / name).read_text().splitlines()
    for path in (name for name in names if name.parts[2] == real):
        assert np.array_equal(*(soundfile.read(root / path, dtype="int16")[0] for root in (minivox, made)))


def test_minivox_needs_every_speaker_in_its_part(corpus):
    with pytest.raises(InputError, match="149 of 150 speakers are missing or misplaced"):
        choose(read_corpus(corpus, 10, 70))


def test_kept_lists_are_of_40_speakers():
    kept = dict(line.split() for line in (KEPT / "speakers").read_text().splitlines())
    assert Counter(kept.values()) == {"dev": 110, "test": 40}
    for name in ("veri_test", "veri_test_hard"):
        lines = [line.split() for line in read_trials(name, [])]
        assert len(lines) == 7600 and {line[0] for line in lines} == {"0"}
        named = {path[:7] for line in lines for path in line[1:]}
        assert named == {one for one, part in kept.items() if part == "test"}


def test_making_minivox_leaves_what_is_there(corpus, tmp_path):
    (tmp_path / "minivox").mkdir()
    (tmp_path / "minivox/mine").write_text("precious")
    done = subprocess.run([sys.executable, "-m", make_minivox.__name__, "--speakers", "10", "--utterances", "70",
                           str(corpus), str(tmp_path / "minivox")], cwd=ROOT, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1 and "missing or misplaced" in done.stderr
    with pytest.raises(InputError, match="exists; remove it"):
        write_corpus([], tmp_path / "minivox")
    assert (tmp_path / "minivox/mine").read_text() == "precious"
