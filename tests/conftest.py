"""Fixtures and hooks of all tests: the shared data, job engines, and the order of files over workers."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Slow files start first: otherwise one worker would still run one while the others are idle.
HEAVY = ("test_recipe.py", "test_engines.py", "test_faults.py", "test_first_look.py", "test_docs.py",
         "test_nnet_engine.py", "test_ivector_steps.py", "test_nnet_training.py")


def warm_up() -> None:
    """Let the programs of steps/ and nnet/ that this worker's tests start come from a process that has imported torch,
    which takes two seconds each time. Fixture `cold` gives a test the interpreter itself."""
    folder = Path(tempfile.mkdtemp(prefix="warm"))
    atexit.register(shutil.rmtree, folder)
    (folder / "python3").write_text(f"#!{sys.executable} -ISE\n{(ROOT / 'tests/warm/client.py').read_text()}")
    (folder / "python3").chmod(0o755)
    os.environ |= {"VOX_WARM": str(folder / "socket"), "VOX_WARM_PYTHON": sys.executable,
                   "PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.Popen([sys.executable, ROOT / "tests/warm/server.py", folder / "socket"], stdin=subprocess.PIPE,
                     stdout=subprocess.DEVNULL)


if os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: workers share the cores
    if "VOX_WARM" not in os.environ:  # a worker reads this file twice
        warm_up()
started: dict[str, str] = {}  # by job engine: why it cannot be used; empty: usable


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: HEAVY.index(item.path.name) if item.path.name in HEAVY else len(HEAVY))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one worker (`-n`), where they share fixtures. The engine tests share one worker."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            name = Path(nodeid.split("::")[0]).name
            return "engines" if name in ("test_recipe.py", "test_engines.py") else name

    config.option.loadscopereorder = False
    return Files(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data (VOX_SHARED, default: ../shared next to the repository); skips without them."""
    folder = Path(os.environ.get("VOX_SHARED", ROOT.parent / "shared")).resolve()
    if not (folder / "kaldi_reference").is_dir():
        pytest.skip(f"no shared data in {folder}; set VOX_SHARED to the folder with kaldi_reference")
    return folder


@pytest.fixture
def cold(monkeypatch):
    """Programs are started by the interpreter itself: for tests that kill them."""
    monkeypatch.setenv("VOX_COLD", "true")


@pytest.fixture(params=["sge", "slurm"])
def engine(request):
    """The name of an engine that accepts jobs; skips, with the reason, if it cannot be started."""
    name = request.param
    if name not in started:
        done = subprocess.run(["bash", str(ROOT / f"tests/clusters/start_{name}.sh")], capture_output=True, text=True,
                              check=False, timeout=400)
        started[name] = "" if done.returncode == 0 else f"{name} cannot be started: {done.stderr.strip()[-200:]}"
    if started[name]:
        pytest.skip(started[name])
    return name
