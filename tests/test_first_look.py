"""The recipe without a corpus: simulated speakers, networks, table and figures, all labelled."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tiny import CONF, make_conf, results

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.long


def look(work, conf, *more):
    command = ["bash", str(ROOT / "egs/voxceleb/run.sh"), "--work", str(work), "--conf", str(conf), "--nj", "2",
               "--systems", "vgg_attention vgg_mha", "--simulated-speakers", "12", "--valid-speakers", "3", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**os.environ, "HOME": "/proc/nowhere"})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    conf = make_conf(tmp_path_factory.mktemp("conf"))
    shutil.copy(CONF / "vgg_attention.yaml", conf)
    work = tmp_path_factory.mktemp("work") / "first look"
    done = look(work, conf)
    assert done.returncode == 0, done.stderr[-3000:]
    return work, conf, done


def test_everything_says_that_it_is_simulated(finished):
    work, _, done = finished
    assert (work / "simulated/README.txt").read_text().startswith("Simulated speakers")
    assert all(line.startswith("simulated") for line in (work / "data/test/utt2spk").read_text().splitlines())
    report = (work / "exp/RESULTS.md").read_text()
    assert report.startswith("# Results on simulated speakers: no speech\n")
    assert "run.sh --voxceleb1-root simulated --scale mini --work " in report
    assert " --systems 'vgg_attention vgg_mha' " in report  # as typed in a shell
    assert "# Results on simulated speakers: no speech\n" in done.stdout
    assert {row[2] for row in results(work)[1:]} == {"simulated_test", "simulated_test_hard"}
    assert [row[0] for row in results(work)[1::2]] == ["fusion", "vgg_attention", "vgg_mha"] * 2


def test_the_figures_are_there_and_the_end_names_them(finished):
    work, _, done = finished
    drawn = {kind: {path.stem for path in (work / "exp/figures").glob(f"*.{kind}")} for kind in ("png", "pdf", "svg")}
    lists = ("simulated_test", "simulated_test_hard")
    scored = {f"{name}.{backend}" for name in lists for backend in ("cosine", "plda")}
    each = {f"{kind}_{name}" for kind in ("groups", "sizes") for name in lists}
    pixels = {"attention_vgg_mha", "embeddings"}
    assert drawn["svg"] == {f"{kind}_{name}" for kind in ("det", "scores") for name in scored} | each | {
        "entropy", "training", "costs"}
    assert drawn["png"] == drawn["pdf"] == drawn["svg"] | pixels
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (work / "exp/figures").glob("*.png"))
    page = (work / "exp/report.html").read_text()
    assert page.count("<figure ") == len(drawn["png"]) and page.count("simulated speakers, no speech") > 10
    assert "The speakers are simulated: this is not speech." in page
    rows = [line.split("\t") for line in (work / "exp/figures/attention.tsv").read_text().splitlines()[1:]]
    heads = [("vgg_attention", "1"), *(("vgg_mha", str(head)) for head in range(1, 6))]
    assert [(row[0], row[2]) for row in rows] == heads
    assert all(row[1].startswith("simulated1") and 0 < float(row[3]) <= float(row[4]) for row in rows)
    end = done.stderr[done.stderr.rindex("\nreport:"):]
    assert all(str(work / "exp" / name) in end for name in ("report.html", "RESULTS.md", "figures", "*/bundle"))
    assert all((work / "exp" / name / "bundle/bundle.json").is_file() for name in ("vgg_attention", "vgg_mha"))
    commands = [line.split() for line in end.splitlines() if line.startswith("  ")]
    assert [Path(words[0]).name for words in commands] == ["verify", "run.sh", "run.sh", "run.sh"]


def test_the_command_that_the_end_suggests_compares_two_of_the_speakers(finished):
    """As printed: pasted into a shell, up to its description."""
    _, _, done = finished
    line, = [line for line in done.stderr.splitlines() if "utils/verify" in line]
    command, _, _ = line.strip().partition("    ")
    assert re.search("exp/vgg_[a-z]+/bundle", command)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "decision     different speakers" in done.stdout or "decision     same speaker" in done.stdout
    first, second = sorted(word for word in shlex.split(command) if word.endswith(".wav"))
    assert Path(first).parts[-3] != Path(second).parts[-3]


def test_again_it_does_nothing_and_another_seed_makes_other_speakers(finished, tmp_path):
    work, conf, _ = finished
    before = {path: path.stat().st_mtime_ns for path in [*work.rglob("*.wav"), *work.rglob("*.png")]}
    done = look(work, conf)
    assert done.returncode == 0 and "runs again" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    done = look(work, conf, "--status")
    assert "stale" not in done.stdout and done.stdout.count("done    stage") == 9, done.stdout
    copy = tmp_path / "copy"
    shutil.copytree(work / "simulated", copy / "simulated")
    done = look(copy, conf, "--seed", "2", "--stop-stage", "0")
    assert done.returncode == 0 and "option seed was '1', is now '2'" in done.stderr
    path = "dev/wav/simulated00001/s1/00001.wav"
    assert (copy / "simulated" / path).read_bytes() != (work / "simulated" / path).read_bytes()


def test_only_a_call_without_any_corpus_is_the_first_look(finished, tmp_path):
    _, conf, _ = finished
    done = look(tmp_path, conf, "--voxceleb1-root", "")
    assert done.returncode == 1 and "no corpus: name one with --voxceleb1-root DIR" in done.stderr
    done = look(tmp_path, conf, "--stage", "2", "--systems", "ivector")
    assert done.returncode == 1 and "data/mfcc24/train" in done.stderr and "simulated" not in done.stderr
    done = look(tmp_path, conf, "--status")
    assert done.returncode == 0 and done.stdout.count("to do") >= 8
    done = look(tmp_path / "a --stage 1", conf, "--status")  # a word of an option, not an option
    assert done.returncode == 0 and done.stdout.count("to do") >= 8
    (tmp_path / "simulated").mkdir()
    (tmp_path / "simulated/mine").write_text("precious")
    done = look(tmp_path, conf)
    assert done.returncode == 1 and "exists and has no made.sha256" in done.stderr
    assert (tmp_path / "simulated/mine").read_text() == "precious"
