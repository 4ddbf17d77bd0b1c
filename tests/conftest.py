"""Fixtures and hooks of all tests: the shared data, job engines, and the order of files over workers."""

import atexit
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What takes long starts first: otherwise one worker would still run it while the others are idle. The two tests make
# the runs of the recipe for which others of their files would wait; those that are short come last.
FIRST = ("test_the_recipe_ends_with_the_table", "test_engines.py", "test_status_writes_nothing", "test_docs.py",
         "test_simulated_speakers.py", "test_first_look.py", "test_nnet_engine.py", "test_ivector_steps.py",
         "test_nnet_training.py", "test_recipe.py", "test_faults.py")
SPREAD = ("test_recipe.py", "test_faults.py")  # each test in any worker: these files' fixtures are made once for all


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
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # programs would be compiled at each of their starts
    if "VOX_WARM" not in os.environ:  # a worker reads this file twice
        warm_up()
started: dict[str, str] = {}  # by job engine: why it cannot be used; empty: usable


def pytest_collection_modifyitems(items):
    def place(item):
        if item.path.name in SPREAD and item.name not in FIRST and not item.get_closest_marker("long"):
            return len(FIRST) + 1
        return min((FIRST.index(name) for name in (item.name, item.path.name) if name in FIRST), default=len(FIRST))

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one worker (`-n`), where they share fixtures, but for those of SPREAD; and all tests
    that submit jobs to one engine, which would wait for each other's."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path, _, test = nodeid.partition("::")
            engine = re.search(r"\[(sge|slurm)\]", test)
            return engine[1] if engine else test if Path(path).name in SPREAD else path

    config.option.loadscopereorder = False
    return Files(config, log)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The shared data (VOX_SHARED, default: ../shared next to the repository); skips without them."""
    folder = Path(os.environ.get("VOX_SHARED", ROOT.parent / "shared")).resolve()
    if not (folder / "kaldi_reference").is_dir():
        pytest.skip(f"no shared data in {folder}; set VOX_SHARED to the folder with kaldi_reference")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A function of a name and of one that fills a folder: returns that folder, which one worker makes and all read."""
    base = tmp_path_factory.getbasetemp()
    place = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name, fill):
        folder, is_made = place / name, place / f"{name}.made"
        with (place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
                folder.mkdir()
                fill(folder)
                is_made.touch()
        return folder

    return made


@pytest.fixture
def cold(monkeypatch):
    """Programs are started by the interpreter itself: for tests that kill them."""
    monkeypatch.setenv("VOX_COLD", "true")


@pytest.fixture(params=["sge", "slurm"])
def engine(request):
    """The name of an engine that accepts jobs; skips, with the reason, if it cannot be started."""
    name = request.param
    if name not in started:
        command = ["bash", str(ROOT / f"tests/clusters/start_{name}.sh")]
        with open(Path(tempfile.gettempdir()) / "attvec_engines.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be installing the other engine
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
        started[name] = "" if done.returncode == 0 else f"{name} cannot be started: {done.stderr.strip()[-200:]}"
    if started[name]:
        pytest.skip(started[name])
    return name
