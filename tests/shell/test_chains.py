"""Chains in their folders: those dropped, Kaldi's own, held-out speakers and copies, thresholds, a new part."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from tests.shell.back_end import ROOT, call, files, score, train
from utils.kaldi.ark import ArkWriter, read_vectors


def test_chains_that_a_configuration_drops_are_deleted(work):
    assert train(work).returncode == 0
    assert score(work, "cosine").returncode == 0
    scores, backend = work / "exp/net/scores_test/veri.clean.cosine", work / "exp/net/backend"
    before = scores.read_bytes()
    shutil.rmtree(work / "exp/net/scores_test")
    test = work / "exp/net/embeddings_test"
    assert call("adapt_backend.sh", backend / "plda", test, backend / "mine").returncode == 0
    (work / "exp/net/system.yaml").write_text("backend: [center, length, cosine]\n")
    done = train(work)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in backend.iterdir()} == {"cosine", "mine", "log", ".done"}  # what is adapted stays
    assert score(work, "cosine").returncode == 0
    assert scores.read_bytes() == before
    done = score(work, "plda")
    assert done.returncode == 1
    assert "backend/plda is missing or empty; run the stage that makes it first" in done.stderr
    # One speaker, or one vector per speaker, is enough for cosine.
    utt2spk = work / "data/train/utt2spk"
    for speaker in ("{0}", "one"):
        lines = [line.split()[0] for line in utt2spk.read_text().splitlines()]
        utt2spk.write_text("".join(f"{name} {speaker.format(name)}\n" for name in lines))
        assert train(work).returncode == 0
        assert score(work, "cosine").returncode == 0
        np.testing.assert_allclose([float(line.split()[2]) for line in scores.read_text().splitlines()],
                                   [float(line.split()[2]) for line in before.decode().splitlines()], atol=1e-5)


def test_an_output_that_is_an_input_is_refused(work):
    assert train(work).returncode == 0
    net, trials = work / "exp/net", work / "data/test/trials/veri.clean"
    before = trials.read_bytes()
    same = net / "../net/../../data/test/trials/veri.clean"
    done = call("score.sh", net / "backend/plda", net / "embeddings_test", trials, same)
    assert done.returncode == 1 and "veri.clean is both input and output; name another output" in done.stderr
    assert trials.read_bytes() == before
    done = call("adapt_backend.sh", net / "backend/plda", net / "embeddings_test", net / "backend/plda")
    assert done.returncode == 1 and "plda is both input and output" in done.stderr


def test_a_list_that_changes_while_it_is_scored(work):
    """The launcher here changes it after the job."""
    assert train(work).returncode == 0
    net, trials = work / "exp/net", work / "data/test/trials/veri.clean"
    lines = trials.read_text().splitlines(keepends=True)
    launcher = work.parent / "launch"
    launcher.write_text(f"""#!/bin/bash
while [[ $1 == --* ]]; do shift 2; done
shift; "$@" && head -n 20 '{trials}' > '{trials}.new' && mv '{trials}.new' '{trials}'
""")
    launcher.chmod(0o755)
    done = score(work, "plda", "--cmd", launcher)
    assert done.returncode == 1 and "veri.clean changed while score.sh ran; run it again" in done.stderr
    assert not (net / "scores_test/.done.veri.clean.plda").exists()
    assert score(work, "plda").returncode == 0
    assert len((net / "scores_test/veri.clean.plda").read_text().splitlines()) == 20 < len(lines)


def test_kaldis_own_files_are_scored_with_a_chain_that_is_given(work):
    assert train(work).returncode == 0
    assert score(work, "plda").returncode == 0
    scores = work / "exp/net/scores_test/veri.clean.plda"
    before = scores.read_bytes()
    for name in ("chain", "speakers"):
        (work / "exp/net/backend/plda" / name).unlink()
    done = score(work, "plda")
    assert done.returncode == 1
    assert 'give the chain of Kaldi\'s files there: --chain "center lda length plda"' in done.stderr
    assert score(work, "plda", "--chain", "center lda length plda").returncode == 0
    assert scores.read_bytes() == before


def test_a_short_list_is_scored_like_its_part_of_a_long_one(work):
    """Embeddings that it does not name are left out: scoring the held-out speakers needs few of all."""
    (work / "exp/net/system.yaml").write_text("backend: {plda: [center, plda5], both: [center, length, pldacosine]}\n")
    assert train(work).returncode == 0
    lines = (work / "data/test/trials/veri.clean").read_text().splitlines(keepends=True)
    (work / "short").write_text("".join(lines[50:55]))
    for kind in ("plda", "both"):
        found = []
        for trials in (None, work / "short"):
            done = score(work, kind, trials=trials)
            assert done.returncode == 0, done.stderr
            found.append((work / f"exp/net/scores_test/veri.clean.{kind}").read_text().splitlines())
        for one, other in zip(found[0][50:55], found[1], strict=True):
            assert one.split()[:2] == other.split()[:2]
            assert float(one.split()[2]) == pytest.approx(float(other.split()[2]), abs=1e-4)
    (work / "short").write_text("no body target\n")
    done = score(work, "plda", trials=work / "short")
    assert done.returncode == 1 and "2 ids have no embedding: body, no" in done.stderr


def test_held_out_speakers_and_copies(work):
    """Held-out speakers and their copies are in no chain; copies are in those with that word alone."""
    net, utt2spk = work / "exp/net", work / "data/train/utt2spk"
    ids = [line.split()[0] for line in utt2spk.read_text().splitlines()]
    done = call("train_backend.sh", "--copies-data", work / "copies", net / "system.yaml", work / "data/train",
                net / "embeddings_train", net / "backend")
    assert done.returncode == 1 and "--copies-data and --copies-embeddings belong together" in done.stderr
    for name in ("held", "copies"):
        (work / name).mkdir()
    (work / "held/utt2spk").write_text("".join(f"{name} {name[:4]}\n" for name in ids if name[:4] < "s105"))
    (work / "copies/utt2spk").write_text("".join(f"sp0.9-{name} sp0.9-{name[:4]}\n" for name in ids))
    rng = np.random.default_rng(3)
    with ArkWriter(work / "copies/xvector") as writer:
        for name in ids:
            writer.write(f"sp0.9-{name}", rng.normal(size=12))
    (net / "system.yaml").write_text("backend: {a: [center, cosine, snorm], b: [copies, center, cosine, snorm]}\n")
    words = net / "system.yaml", work / "data/train", net / "embeddings_train", net / "held"
    copies = "--copies-data", work / "copies", "--copies-embeddings", work / "copies"
    done = call("train_backend.sh", "--held-out", work / "held", *copies, *words)
    assert done.returncode == 0, done.stderr
    kept = [f"s1{number:02}" for number in range(5, 20)]
    assert (net / "held/a/speakers").read_text().split() == kept
    assert (net / "held/b/speakers").read_text().split() == [*kept, *(f"sp0.9-{name}" for name in kept)]
    assert read_vectors(net / "held/b/cohort.ark")[0] == [
        *kept, *(f"sp0.9-{name}" for name in kept)]
    # Another value in one copy, or another speaker held out: the chains are trained again.
    again = "train_backend.sh", "--held-out", work / "held", *copies, *words
    assert "up to date" in call(*again).stderr
    ark = work / "copies/xvector.ark"
    content = bytearray(ark.read_bytes())
    content[-4:] = np.float32(0.5).tobytes()
    ark.write_bytes(content)
    before = [(net / f"held/{name}/mean.vec").read_bytes() for name in "ab"]
    assert f"input {work / 'copies'} changed" in call(*again).stderr
    after = [(net / f"held/{name}/mean.vec").read_bytes() for name in "ab"]
    assert after[0] == before[0] and after[1] != before[1]
    (work / "held/utt2spk").write_text("".join(f"{name} {name[:4]}\n" for name in ids if name[:4] < "s106"))
    assert f"input {work / 'held/utt2spk'} changed" in call(*again).stderr
    assert (net / "held/a/speakers").read_text().split() == kept[1:]
    (work / "held/utt2spk").write_text(utt2spk.read_text())
    done = call("train_backend.sh", "--held-out", work / "held", *copies, *words)
    assert done.returncode == 1
    assert "all of its speakers are held out; hold fewer out" in done.stderr


def test_the_threshold_of_each_chain(work):
    """Trained on trials of one set; its rates are those of the ratios at the threshold."""
    assert train(work).returncode == 0
    trials, json_file = work / "data/test/trials/veri.clean", work / "exp/net/calibration.json"
    for kind in ("cosine", "plda"):
        assert score(work, kind).returncode == 0
    words = trials, work / "exp/net/scores_test/veri.clean", "cosine plda", json_file
    done = call("train_calibration.sh", "--prior", "0.2", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(json_file.read_text())
    assert list(found) == ["cosine", "plda"]
    is_target = np.array([line.endswith(" target") for line in trials.read_text().splitlines()])
    for kind, one in found.items():
        lines = (work / f"exp/net/scores_test/veri.clean.{kind}").read_text().splitlines()
        ratios = one["weights"][0] * np.array([float(line.split()[2]) for line in lines]) + one["offset"]
        assert one["threshold"] == pytest.approx(np.log(4))
        assert one["miss"] == pytest.approx((ratios[is_target] < np.log(4)).mean(), abs=0.02)
        assert one["false_alarm"] == pytest.approx((ratios[~is_target] >= np.log(4)).mean(), abs=0.005)
        assert (one["trials"], one["targets"]) == (435, 75)
    assert "up to date" in call("train_calibration.sh", "--prior", "0.2", *words).stderr
    swapped = trials.read_text().replace("nontarget", "x").replace("target", "nontarget").replace("x", "target")
    trials.write_text(swapped)
    done = call("train_calibration.sh", *words)
    assert done.returncode == 0, done.stderr
    for kind in ("cosine", "plda"):
        assert f"veri.clean.{kind}: not calibrated: targets do not score higher than nontargets" in done.stderr
    assert json.loads(json_file.read_text()) == {}


TOY = '''"""A toy: the absolute values of the vectors, less a number that the word names."""

from typing import ClassVar

import numpy as np

from steps.backend.transforms import Length


class Magnitude(Length):
    """magnitudes less a number"""

    NUMBER: ClassVar[str] = "wanted"
    FILE: ClassVar[str] = "number.txt"

    def __init__(self, number):
        self.number = number

    @classmethod
    def fit(cls, x, speakers, number):
        return cls(number)

    def save(self, folder):
        (folder / self.FILE).write_text(f"{self.number}")

    @classmethod
    def load(cls, folder):
        return cls(int((folder / cls.FILE).read_text()))

    def __call__(self, x):
        return np.abs(x) - self.number
'''


def test_a_new_part_is_a_module_and_an_entry(work, tmp_path):
    """The same programs train it, score with it and report it, after a change of two files."""
    copy = tmp_path / "copy"
    for folder in ("steps", "utils", "nnet"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "path.sh", copy)
    env = {**os.environ, "VOX_READY": str(copy),
           "PATH": f"{copy / 'utils'}:{os.environ['PATH']}"}
    table = copy / "steps/backend/__init__.py"
    changed = {copy / "steps/backend/toy.py": TOY, table: table.read_text().replace(
        '"center": Center, ', '"magnitude": Magnitude, "center": Center, ').replace(
        "from utils.errors", "from steps.backend.toy import Magnitude\nfrom utils.errors", 1)}
    for path, text in changed.items():
        path.write_text(text)

    def run(script, *words):
        done = subprocess.run(["bash", copy / "steps" / script, *map(str, words)], capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL, env=env)
        assert done.returncode == 0, done.stderr
        return done

    net, trials = work / "exp/net", work / "data/test/trials/veri.clean"
    (net / "system.yaml").write_text("backend: {toy: [magnitude2, cosine]}\n")
    run("train_backend.sh", net / "system.yaml", work / "data/train", net / "embeddings_train", net / "backend")
    assert files(net / "backend/toy") == {"chain", "number.txt", "speakers"}
    run("score.sh", net / "backend/toy", net / "embeddings_test", trials, net / "scores_test/veri.clean.toy")
    first, second, value = (net / "scores_test/veri.clean.toy").read_text().split("\n")[7].split()
    a, b = (np.abs(vectors_of(net / "embeddings_test")[name]) - 2 for name in (first, second))
    assert float(value) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-4)
    assert "| toy " in run("table.sh", "--command", "x", work).stdout
    assert "- toy: magnitude2 cosine\n" in (work / "exp/RESULTS.md").read_text()


def vectors_of(folder):
    return dict(zip(*read_vectors(folder / "xvector.scp"), strict=True))
