"""Data directories from the corpora of VoxCeleb, as the recipe makes them."""

import subprocess
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).resolve().parents[2]
VOXCELEB1 = {"dev": ("id10001", "id10002", "id10003"), "test": ("id10270", "id10271")}
VOXCELEB2 = tuple(f"id0{number:04}" for number in range(1, 7))


def write_speakers(folder, speakers):
    """Three recordings of each speaker; returns their paths in a trial list."""
    rng = np.random.default_rng(0)
    names = [f"{speaker}/vid{number}/0000{number}.wav" for speaker in speakers for number in range(1, 4)]
    for name in names:
        (folder / name).parent.mkdir(parents=True)
        soundfile.write(folder / name, 0.1 * rng.normal(size=16000), 16000)
    return names


def prepare(data, *options):
    return subprocess.run(["bash", ROOT / "local/prepare_data.sh", *options, "--valid-speakers", "2", data], text=True,
                          capture_output=True, check=False)


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
