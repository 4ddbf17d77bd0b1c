"""The table's rows: the origin of each, and scores that are left out because something in their chain changed."""

import shutil
import subprocess

import pytest

from steps.report.results import COLUMNS, collect, in_every_row, score_files
from tests.conftest import ROOT
from utils.errors import InputError
from utils.jobs import done
from utils.systems import SCALE_LINE, scale_of

TRIALS = "a-1 a-2 target\na-1 b-1 nontarget\nb-1 b-2 target\n"


def mark(record, inputs, outputs=(), **options):
    """Finish a step: write its outputs and its record."""
    for name in outputs:
        (record.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (record.parent / name).write_text(f"{name} of {sorted(options.items())}")
    made = [record.parent / name for name in outputs]
    done.mark(record, done.describe(record, "step", options, [str(path) for path in inputs]), made)


def score(work, system, name):
    exp = work / "exp" / system
    path = exp / f"scores_test/{name}.plda"
    path.parent.mkdir(exist_ok=True)
    lines = (work / "data/test/trials" / name).read_text().splitlines()
    path.write_text("".join(f"{' '.join(line.split()[:2])} {len(line)}\n" for line in lines))
    inputs = [exp / "backend", exp / "embeddings_test", work / "data/test/trials" / name]
    record = path.with_name(f".done.{path.name}")
    done.mark(record, done.describe(record, "score", {}, [str(item) for item in inputs]), [path])


def make(work, system, seed, scale="mini"):
    """Make all files of a system, from the test set's features to the scores of every list."""
    exp, data = work / "exp" / system, work / "data" / system
    exp.mkdir(parents=True, exist_ok=True)
    (exp / "system.yaml").write_text(f"{SCALE_LINE}{scale}\nfeatures: f\n")
    mark(exp / ".done", [exp / "system.yaml", data / "train"], ["model.safetensors"], seed=str(seed))
    mark(exp / "embeddings_test/.done", [exp / "model.safetensors", data / "test"], ["xvector.scp"], of=str(seed))
    mark(exp / "backend/.done", [exp / "system.yaml"], ["plda"])
    for path in (work / "data/test/trials").iterdir():
        score(work, system, path.name)


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setattr(done, "code_version", lambda: "c1")
    work = tmp_path / "work"
    (work / "data/test/trials").mkdir(parents=True)
    for name in ("easy", "hard"):
        (work / "data/test/trials" / name).write_text(TRIALS)
    for system in ("ivector", "xvector"):
        (work / "data" / f"{system}.conf").write_text("--num-ceps=20\n")
        for part in ("train", "test"):
            mark(work / "data" / system / part / ".done", [work / "data" / f"{system}.conf"], ["feats.scp"], part=part)
        make(work, system, 1)
    return work


def origins(work):
    """Return system, list, seed, scale and code of each row."""
    return [(row[0], row[2], *row[-3:]) for row in collect(score_files(work)[0])[0]]


def test_each_row_has_its_own_seed_scale_and_code(work, monkeypatch):
    assert COLUMNS[-3:] == ("seed", "scale", "code")
    assert origins(work) == [(system, name, "1", "mini", "c1") for name in ("easy", "hard")
                             for system in ("ivector", "xvector")]
    assert in_every_row(score_files(work)[0]) == " In every row: seed 1, scale mini, code c1."
    monkeypatch.setattr(done, "code_version", lambda: "c2-dirty")
    make(work, "ivector", 2, scale="full")
    rows, left_out = score_files(work)
    assert left_out == []
    assert origins(work)[:2] == [("ivector", "easy", "2", "full", "c1+c2-dirty"),
                                 ("xvector", "easy", "1", "mini", "c1")]
    assert in_every_row(rows) == ""


@pytest.mark.parametrize(("change", "reason"), [
    ("data/xvector.conf", "input data/xvector.conf changed"),
    ("exp/xvector/system.yaml", "input exp/xvector/system.yaml changed"),
    ("exp/xvector/model.safetensors", "input exp/xvector/model.safetensors changed"),
    ("exp/xvector/embeddings_test/.done", "input exp/xvector/embeddings_test changed"),
    ("exp/xvector/scores_test/hard.plda", "scores changed since they were made"),
    ("exp/xvector/scores_test/.done.hard.plda", "scores without a record")])
def test_scores_are_left_out_when_something_on_their_way_changed(work, change, reason):
    path = work / change
    if path.name.startswith(".done"):
        path.unlink()
    else:
        path.write_text(path.read_text() + "more\n")
    left, files = (["easy"], "1 file") if "hard" in change else ([], "2 files")
    rows, left_out = score_files(work)
    assert [(one.system, one.list) for one in rows] == [("ivector", "easy"), *(("xvector", name) for name in left),
                                                        ("ivector", "hard")]
    assert left_out == [f"left out: xvector, {files} of scores: {reason}"]


def test_a_fusion_has_the_seeds_of_its_systems_and_is_left_out_with_any_of_them(work):
    exp, lists = work / "exp", work / "data/test/trials"
    fused = exp / "fusion/scores_test/easy.plda"
    inputs = [lists / "easy", *(exp / system / "scores_test/easy.plda" for system in ("ivector", "xvector"))]
    fused.parent.mkdir(parents=True)
    fused.write_text(inputs[1].read_text())
    record = fused.with_name(".done.easy.plda")

    def mark_fusion():
        done.mark(record, done.describe(record, "fuse", {}, list(map(str, inputs))), [fused])

    mark_fusion()
    assert origins(work)[0] == ("fusion", "easy", "1", "mini", "c1")
    make(work, "ivector", 2)
    assert origins(work)[0] == ("fusion", "easy", "2+1", "mini", "c1")
    (work / "data/xvector.conf").write_text("--num-ceps=30\n")
    assert "left out: fusion, 1 file of scores: input data/xvector.conf changed" in score_files(work)[1]


def test_scores_of_a_list_that_is_gone_or_shorter_are_left_out(work):
    (work / "data/test/trials/hard").unlink()
    (work / "data/test/trials/easy").write_text("".join(TRIALS.splitlines(keepends=True)[:2]))
    score(work, "ivector", "easy")
    assert [row[:2] for row in origins(work)] == [("ivector", "easy")]
    assert score_files(work)[1] == ["left out: ivector, 1 file of scores: the list data/test/trials/hard is gone",
                                    "left out: xvector, 1 file of scores: input data/test/trials/easy changed",
                                    "left out: xvector, 1 file of scores: the list data/test/trials/hard is gone"]


def test_a_work_folder_may_be_moved_or_copied(work):
    here, copy = origins(work), work.with_name("copy")
    shutil.copytree(work, copy)
    (work / "data/xvector.conf").write_text("changed where it was copied from")
    assert origins(copy) == here
    shutil.rmtree(work)
    assert origins(copy) == here
    (copy / "data/xvector.conf").write_text("changed here")
    assert {row[0] for row in origins(copy)} == {"ivector"}
    (copy / "data/ivector.conf").unlink()
    with pytest.raises(InputError, match="no valid scores .*; left out: ivector, .*conf is gone; left out: xvector"):
        score_files(copy)


def test_a_model_that_training_started_from_may_be_of_another_work_folder(work, tmp_path):
    """Even of a system of the same name: it is not taken for the one in this folder."""
    other = tmp_path / "a/deeper/folder/exp/xvector/model.safetensors"
    other.parent.mkdir(parents=True)
    other.write_text("weights")
    exp = work / "exp/xvector"
    mark(exp / ".done", [exp / "system.yaml", work / "data/xvector/train", other], ["model.safetensors"], seed="3")
    mark(exp / "embeddings_test/.done", [exp / "model.safetensors", work / "data/xvector/test"], ["xvector.scp"])
    for name in ("easy", "hard"):
        score(work, "xvector", name)
    assert ("xvector", "easy", "3", "mini", "c1") in origins(work)
    other.write_text("other weights")
    assert {row[0] for row in origins(work)} == {"ivector"}
    other.write_text("weights")
    shutil.move(work, tmp_path / "moved")
    assert ("xvector", "hard", "3", "mini", "c1") in origins(tmp_path / "moved")


def test_the_scale_is_a_line_of_the_resolved_configuration_and_of_the_networks(tmp_path):
    def call(module, *words):
        done = subprocess.run(["python3", "-m", module, *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, done.stderr

    for scale in ("mini", "full"):
        call("steps.systems", "--scale", scale, "--conf", ROOT / "egs/voxceleb/conf", "--exp", tmp_path, "xvector")
        call("nnet.config", tmp_path / "xvector/system.yaml", tmp_path / "network.yaml")
        assert scale_of(tmp_path / "xvector/system.yaml") == scale_of(tmp_path / "network.yaml") == scale
    (tmp_path / "other").write_text("features: f\n")
    assert scale_of(tmp_path / "other") == "-"
