"""Data directories from the corpora of VoxCeleb, as the recipe makes them."""

import os
import subprocess
import tempfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from steps.report.provenance import Provenance

ROOT = Path(__file__).resolve().parents[2]
VOXCELEB1 = {"dev": ("id10001", "id10002", "id10003"), "test": ("id10270", "id10271")}
VOXCELEB2 = tuple(f"id0{number:04}" for number in range(1, 7))


def write_speakers(folder, speakers, recordings=3):
    """Recordings of each speaker, each of another session; returns their paths in a trial list."""
    rng = np.random.default_rng(0)
    names = [f"{speaker}/vid{number}/0000{number}.wav" for speaker in speakers for number in range(1, recordings + 1)]
    for name in names:
        (folder / name).parent.mkdir(parents=True)
        soundfile.write(folder / name, 0.1 * rng.normal(size=16000), 16000)
    return names


def prepare(data, *options):
    """As in a run of a recipe, which keeps what it finds out about audio in a folder of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        return subprocess.run(["bash", ROOT / "local/prepare_data.sh", *options, "--valid-speakers", "2", data],
                              text=True, capture_output=True, check=False, env=os.environ | {"VOX_SCRATCH": scratch})


def speakers_of(data):
    return {line.split()[1] for line in (data / "utt2spk").read_text().splitlines()}


@pytest.mark.long
def test_voxceleb2_alone_leaves_all_of_voxceleb1_for_the_lists(tmp_path):
    one, two = tmp_path / "vox1", tmp_path / "vox2"
    names = {part: write_speakers(one / part / "wav", speakers) for part, speakers in VOXCELEB1.items()}
    write_speakers(two / "dev/aac", VOXCELEB2)
    for path, those in (("veri_test.txt", names["test"]), ("list_test_all.txt", names["dev"] + names["test"])):
        (one / path).write_text("".join(f"{int(a[:7] == b[:7])} {a} {b}\n" for a, b in combinations(those, 2)))
    roots = ("--voxceleb1-root", one, "--voxceleb2-root", two)
    for train, speakers, lists in (
            ("", {*VOXCELEB1["dev"], *VOXCELEB2}, ["veri_test"]),
            ("voxceleb2", {*VOXCELEB2}, ["list_test_all", "veri_test"]),
            ("voxceleb1 voxceleb2-dev", {*VOXCELEB1["dev"], *VOXCELEB2}, ["veri_test"])):
        done = prepare(tmp_path / "data", *roots, "--train", train)
        assert done.returncode == 0, done.stderr
        assert speakers_of(tmp_path / "data/train") == speakers
        assert sorted(path.name for path in (tmp_path / "data/test/trials").iterdir()) == lists
    done = prepare(tmp_path / "data", *roots, "--train", "voxceleb3")
    assert done.returncode != 0
    assert "--train: 'voxceleb3' is not one of voxceleb1, voxceleb2, voxceleb1-dev" in done.stderr


@pytest.mark.long
def test_joined_recordings_come_and_go_with_their_option(tmp_path):
    """They are made once, again if one is lost, and for another number; without the option, the list is gone."""
    corpus, data = tmp_path / "vox1", tmp_path / "data"
    write_speakers(corpus / "dev/wav", (*VOXCELEB1["dev"], "id10004"))
    names = write_speakers(corpus / "test/wav", VOXCELEB1["test"], 5)
    (corpus / "veri_test.txt").write_text("".join(
        f"{int(a[:7] == b[:7])} {a} {b}\n" for a, b in combinations(names, 2)))

    def run(join, status=0):
        """Return what preparation says, the lists and the number of test utterances."""
        done = prepare(data, "--voxceleb1-root", corpus, "--join", join)
        assert done.returncode == status, done.stderr
        lists = sorted(path.name for path in (data / "test/trials").iterdir())
        return done.stderr, lists, len((data / "test/utt2spk").read_text().splitlines())

    assert run("0")[1:] == (["veri_test"], 10)
    single = (data / "test/trials/veri_test").read_text()
    said, *found = run("2")
    joined = len((data / "test_joined/utt2spk").read_text().splitlines())
    assert found == [["joined2", "veri_test"], 10 + joined] and "join_utterances" in said
    assert (data / "test/trials/veri_test").read_text() == single
    trials = (data / "test/trials/joined2").read_text().splitlines()
    assert [line.rsplit(" ", 1)[1] for line in trials].count("target") == len(trials) / 2 > joined / 2
    assert speakers_of(data / "test") == {*VOXCELEB1["test"]}
    assert Provenance(tmp_path).judge(data / ".done").reason is None  # the report follows the records back
    said = run("2")[0]
    assert "up to date" in said and "join_utterances" not in said
    lost = next((data / "test_joined/flac").glob("*/*.flac"))
    content = lost.read_bytes()
    lost.unlink()
    assert "join_utterances.sh runs again" in run("2")[0]
    assert lost.read_bytes() == content
    assert "prepare_data" in run("2")[0] and "runs again" not in run("2")[0]
    assert run("0")[1:] == (["veri_test"], 10)
    said, *found = run("2")
    assert "test_joined: up to date" in said and found == [["joined2", "veri_test"], 10 + joined]
    assert "--join is 1, wanted 2 utterances or more" in run("1", status=1)[0]
    assert "up to date" in run("2")[0]
