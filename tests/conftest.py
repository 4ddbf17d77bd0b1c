"""Fixtures of all tests: where the shared data lie, and small data directories."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
started: dict[str, str] = {}  # for each job engine why it cannot be used, or nothing


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data (VOX_SHARED, default ../shared beside the repository); skip without them."""
    folder = Path(os.environ.get("VOX_SHARED", ROOT.parent / "shared")).resolve()
    if not (folder / "kaldi_reference").is_dir():
        pytest.skip(f"no shared data in {folder}; set VOX_SHARED to the folder with kaldi_reference")
    return folder


@pytest.fixture(params=["sge", "slurm"])
def engine(request):
    """The name of an engine that accepts jobs; skips where it cannot be started, and says why."""
    name = request.param
    if name not in started:
        done = subprocess.run(["bash", str(ROOT / f"tests/clusters/start_{name}.sh")], capture_output=True, text=True,
                              check=False, timeout=400)
        started[name] = "" if done.returncode == 0 else f"{name} cannot be started: {done.stderr.strip()[-200:]}"
    if started[name]:
        pytest.skip(started[name])
    return name
