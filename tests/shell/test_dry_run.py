"""A step whose launcher has --dry-run prints its requests, and neither writes nor deletes anything."""

import os
import re
import subprocess

import pytest
import yaml

from tests.conftest import ROOT
from utils.config import load_config

STEPS = [path for path in sorted(ROOT.glob("steps/*.sh")) if re.search("^cmd=", path.read_text(), re.MULTILINE)]
# Of an earlier run in each folder, whose inputs have changed since: the records name none.
LEFT = ("feats.scp", "feats.1.ark", "utt2spk", "spk2utt", "vad.scp", "vad.1.ark", "vad.conf", "final.ubm", "final.dubm",
        "final.ie", "train_seconds", "model.safetensors", "checkpoint.safetensors", "xvector.scp", "xvector.1.ark",
        "ivector.scp", "ivector.1.ark", "segments.scp", "segments.1.ark", "num_segments", "post.scp", "gselect.scp",
        "plda", ".done", ".done_vad", "unfinished/JOB")


def contents(folder):
    return {path: path.is_file() and (path.read_text(), path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize("step", STEPS, ids=lambda path: path.name)
def test_a_dry_run_of_a_step_leaves_results_alone(step, tmp_path):
    words = re.search("^# <(.*)>$", step.read_text(), re.MULTILINE)[1].split("> <")
    for word in words:
        if re.search("conf|trials|scores|table|rttm|recording", word):
            (tmp_path / word).write_text(f"{word}\n")
            continue
        (tmp_path / word / "unfinished").mkdir(parents=True)
        for name in LEFT:
            (tmp_path / word / name).write_text("a 1\n")
    ivector = "ivector" in step.name or step.name in ("train_ubm.sh", "make_posteriors.sh")
    config = yaml.safe_dump(load_config(ROOT / f"egs/voxceleb/conf/{'ivector' if ivector else 'xvector'}.yaml"))
    for name in ("config", "exp/system.yaml", "exp/config.yaml"):
        if (tmp_path / name).parent.is_dir():
            (tmp_path / name).write_text(config)
    (tmp_path / "temporary").mkdir()
    before = contents(tmp_path)
    done = subprocess.run([step, "--cmd", "slurm --dry-run --mem 1G", *words], cwd=tmp_path, capture_output=True,
                          text=True, check=False, env={**os.environ, "TMPDIR": str(tmp_path / "temporary")})
    assert done.returncode == 0, done.stderr
    assert done.stdout and all(line.startswith("sbatch ") for line in done.stdout.splitlines())
    assert contents(tmp_path) == before
    assert not re.search(r"^\d\d:\d\d:\d\d |\.\.\. ", done.stderr, re.MULTILINE)  # no work began
