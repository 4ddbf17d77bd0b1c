"""Which Python environment path.sh uses, and its messages if there is none."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from utils import make_environment

ROOT = Path(__file__).resolve().parents[2]


def misfits(monkeypatch, **changes):
    """Return the misfits of an environment with the locked versions, some changed, and without the tests' tools."""
    class Found:
        def __init__(self, name, version):
            self.metadata, self.version = {"Name": name}, version
    wanted = make_environment.ranges(make_environment.REQUIREMENTS)
    locked = make_environment.pins(make_environment.LOCK)
    versions = {**{name: locked[name] for name in wanted}, **changes}
    monkeypatch.setattr(make_environment.metadata, "distributions",
                        lambda: [Found(name, version) for name, version in versions.items() if version])
    return make_environment.misfits(wanted, make_environment.running())


def lists():
    return [make_environment.REQUIREMENTS, *sorted(ROOT.glob("[!.]*/requirements*.txt"))]  # not those of .venv


def test_the_lock_lies_in_the_ranges_of_all_lists():
    locked = make_environment.pins(make_environment.LOCK)
    assert locked["torch"] == "2.13.0" and {path.name for path in lists()} == {
        "requirements.txt", "requirements_demo.txt", "requirements_onnx.txt", "requirements_ssl.txt"}
    for path in lists():
        wanted = make_environment.ranges(path)
        assert wanted and make_environment.misfits(wanted, {name.lower(): locked[name] for name in wanted}) == []


def test_the_lock_has_all_that_the_packages_need():
    """But for the CUDA libraries, which each PyTorch for GPUs names itself."""
    locked = {canonicalize_name(name) for name in make_environment.pins(make_environment.LOCK)}
    todo, seen = list(make_environment.ranges(*lists())), set()
    while todo:
        name = canonicalize_name(todo.pop())
        if name in seen or name.startswith(("cuda-", "nvidia-", "triton")):
            continue
        seen.add(name)
        try:
            needs = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:  # a tool that is not installed here
            continue
        todo += [other.name for other in needs if not other.marker or other.marker.evaluate({"extra": ""})]
    assert len(seen) > 30 and seen - locked == set()


@pytest.mark.parametrize(("torch", "fits"), [("2.13.0+cu130", True), ("2.11.0", True), ("2.15.1", True),
                                             ("2.10.9", False), ("2.16.0", False), (None, False)])
def test_torch_may_be_any_release_that_the_code_runs_on(monkeypatch, torch, fits):
    assert (misfits(monkeypatch, torch=torch) == []) == fits


@pytest.mark.parametrize(("have", "wanted", "fits"), [
    ("3.11.0", ">=3.11,<4", True), ("3.12", ">=3.11,<4", True), ("3.10.9", ">=3.11,<4", False),
    ("4.0.0", ">=3.11,<4", False), ("4.0.0rc1", ">=3.11,<4", False), ("0.10.9", ">=0.10,<0.11", True),
    ("0.11.0", ">=0.10,<0.11", False), ("0.9.9", ">=0.10,<0.11", False), ("18", ">=18.0.0", True),
    ("18", ">=18.1", False), ("18.1", "<18.1.0", False), ("2.9", ">=2.11", False), ("unknown", ">=1", False)])
def test_a_version_lies_in_a_range(have, wanted, fits):
    assert make_environment.fits(have, wanted) == fits


@pytest.mark.parametrize("line", ["numpy", "numpy==2.4.6", "numpy~=2.4", "numpy>=2.4,!=2.5", "numpy >=2.4",
                                  "numpy>=2.*", "numpy>=2.4; python_version > '3'", "numpy>2", "numpy<=2",
                                  "-r other.txt"])
def test_other_conditions_are_refused(tmp_path, line):
    path = tmp_path / "requirements.txt"
    path.write_text(f"# why\ntorch>=2.11,<2.16\n{line}\n")
    with pytest.raises(make_environment.InputError, match="wanted a package and its range of versions") as error:
        make_environment.ranges(path)
    assert repr(line) in str(error.value) and str(path) in str(error.value)


def test_what_does_not_fit_is_named(monkeypatch):
    wanted = make_environment.ranges(make_environment.REQUIREMENTS)
    assert misfits(monkeypatch, numpy="1.26.4", av=None) == [f"numpy 1.26.4 (wanted {wanted['numpy']})",
                                                             f"av missing (wanted {wanted['av']})"]


def source_path(**changes):
    environment = {"PATH": os.environ["PATH"], "HOME": "/proc/nowhere", **changes}
    return subprocess.run(["bash", "-c", f'. "{ROOT}/path.sh" && echo "$PATH|$PYTHONPATH|$LC_ALL"'], text=True,
                          capture_output=True, check=False, env=environment)


def test_a_named_environment_is_taken_as_it_is(tmp_path):
    (tmp_path / "my env/bin").mkdir(parents=True)
    (tmp_path / "my env/bin/python3").write_text("")
    done = source_path(VOX_VENV=str(tmp_path / "my env"))
    assert done.returncode == 0, done.stderr
    path, pythonpath, locale = done.stdout.strip().split("|")
    assert path.startswith(f"{tmp_path}/my env/bin:{ROOT}/utils:")
    assert (pythonpath, locale) == (str(ROOT), "C")
    assert sorted(p.name for p in (tmp_path / "my env").rglob("*")) == ["bin", "python3"]


def test_without_a_fitting_python_one_line_says_what_to_do(tmp_path):
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")  # too old, or none
    (tmp_path / "python3").chmod(0o755)
    for tool in ("bash", "dirname"):
        (tmp_path / tool).symlink_to(f"/usr/bin/{tool}" if Path(f"/usr/bin/{tool}").exists() else f"/bin/{tool}")
    done = source_path(PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("path.sh: error: no Python 3.11, 3.12, 3.13 or 3.14 found")


def test_an_interrupted_installation_is_not_taken_for_whole(tmp_path):
    filled = make_environment.LOCK.read_text()
    assert not make_environment.is_whole(tmp_path)
    (tmp_path / "requirements.txt").write_text(filled)
    assert make_environment.is_whole(tmp_path)
    (tmp_path / "requirements.txt").write_text(filled.replace("numpy==2", "numpy==1"))
    assert not make_environment.is_whole(tmp_path)
    (tmp_path / "requirements.txt").write_text(re.sub(r"(numpy==.*\.)\d+", r"\g<1>999", filled))
    assert make_environment.is_whole(tmp_path)  # another patch level is in the range
    (tmp_path / "requirements.txt").write_text(filled.replace("pytest==9", "pytest==8").replace("ruff==", "ruff==9."))
    assert make_environment.is_whole(tmp_path)  # the tests' tools do not count


def test_a_build_of_pytorch_that_is_named(tmp_path, monkeypatch):
    """It is installed, kept in the list, and another build that is named makes the environment new."""
    commands = []
    monkeypatch.setattr(make_environment, "run", lambda command, failure: commands.append((command, failure)))
    monkeypatch.setenv("VOX_TORCH", "cpu")
    make_environment.install(tmp_path / "env")
    pin = make_environment.pins(make_environment.LOCK)["torch"]
    command, failure = commands[-1]
    assert command[command.index("-c") + 1] == str(make_environment.LOCK)  # not the newest versions
    assert command[-1] == f"torch=={pin}+cpu" and "PIP_EXTRA_INDEX_URL" in failure
    assert make_environment.pins(tmp_path / "env/requirements.txt")["torch"] == f"{pin}+cpu"
    assert make_environment.is_whole(tmp_path / "env")
    monkeypatch.setenv("VOX_TORCH", "cu126")
    assert not make_environment.is_whole(tmp_path / "env")
    monkeypatch.delenv("VOX_TORCH")
    assert make_environment.is_whole(tmp_path / "env")  # any build will do
    monkeypatch.setenv("VOX_TORCH", "gpu; rm")
    with pytest.raises(make_environment.InputError, match="VOX_TORCH is 'gpu; rm', wanted a build of PyTorch such as"):
        make_environment.install(tmp_path / "env")


def test_a_failed_installation_is_one_line(tmp_path):
    with pytest.raises(make_environment.InputError, match="cannot install: .*: the reason"):
        make_environment.run(["bash", "-c", "echo first; echo the reason; exit 3"], "cannot install")


def test_an_old_bash_is_told_in_one_line(tmp_path):
    text = (ROOT / "utils/parse_options.sh").read_text()
    assert '-lt 4' in text
    (tmp_path / "parse_options.sh").write_text(text.replace("-lt 4", "-lt 99"))  # no older bash is available
    script = f'#!/usr/bin/env bash\n# Probe.\n# (no arguments)\n. "{tmp_path}/parse_options.sh"\necho went on\n'
    (tmp_path / "probe.sh").write_text(script)
    done = subprocess.run(["bash", tmp_path / "probe.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert "is too old, wanted 4 or later; install one" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.long
def test_an_interrupted_installation_is_taken_up_again(tmp_path, monkeypatch):
    """In a folder with a blank in its name; nothing is installed, so no network is needed."""
    (tmp_path / "none.txt").write_text("# no package\n")
    for name in ("REQUIREMENTS", "TESTS", "LOCK"):
        monkeypatch.setattr(make_environment, name, tmp_path / "none.txt")
    folder = tmp_path / "my env"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python3").write_text("half of it")  # killed during its creation: no marker
    make_environment.install(folder)
    assert make_environment.is_whole(folder)
    done = subprocess.run([folder / "bin/python3", "-c", "print('works')"], capture_output=True, text=True, check=True)
    assert done.stdout == "works\n"
    before = (folder / "requirements.txt").stat().st_mtime_ns
    make_environment.install(folder)
    assert (folder / "requirements.txt").stat().st_mtime_ns == before
    (folder / "kept").touch()  # a changed pin updates the existing environment
    monkeypatch.setattr(make_environment, "is_whole", lambda _: False)
    make_environment.install(folder)
    assert (folder / "kept").exists() and (folder / "requirements.txt").stat().st_mtime_ns > before


@pytest.mark.long
def test_without_a_network_one_line_says_what_to_do(tmp_path):
    env = {"VOX_VENV": str(tmp_path / "env"), "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0",
           "PIP_NO_CACHE_DIR": "1"}
    done = source_path(**env)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "cannot install requirements.txt; without a network, set VOX_VENV to an environment that has it" in last
    assert not (tmp_path / "env/requirements.txt").exists()


def test_modules_of_the_folder_that_one_is_in_are_not_taken(tmp_path):
    """Another checkout, or a folder of Kaldi, has a utils/, too."""
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils/__init__.py").write_text("raise SystemExit('the other utils')")
    done = subprocess.run(["bash", "-c", f'. "{ROOT}/path.sh" && python3 -c "import utils; print(utils.__file__)"'],
                          cwd=tmp_path, text=True, capture_output=True, check=False,
                          env={"PATH": os.environ["PATH"], "VOX_VENV": sys.prefix})
    assert done.stdout.strip() == f"{ROOT}/utils/__init__.py", done.stderr
