"""Find or create the Python environment of the recipes; print its folder. Standard library only.

Called by path.sh, which documents the order of the attempts. An interrupted installation is started
again: the list of packages inside the environment is written last and marks it as complete.
"""

import fcntl
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from utils.errors import InputError, run_main
from utils.files import write_aside

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements.txt"
TESTS = ROOT / "tests/requirements.txt"
BUILD = re.compile(r"cpu|cu\d{2,3}|rocm\d+(\.\d+)*|xpu")  # of PyTorch, as in 2.13.0+cu126
TORCH = ((2, 11), (2, 15))  # supported releases; requirements.txt pins the one to install


def pins(*paths: Path) -> dict[str, str]:
    """Return package -> version from files with lines `package==version`."""
    lines = "\n".join(path.read_text(encoding="utf-8") for path in paths).splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def fits(name: str, have: str, pinned: str) -> bool:
    """Whether a version can replace the pinned one, by the rules in requirements.txt."""
    (major, minor), (wanted_major, wanted_minor) = release(have), release(pinned)
    if name == "torch":
        return TORCH[0] <= (major, minor) <= TORCH[1]
    return major == wanted_major and (minor >= wanted_minor if major else minor == wanted_minor)


def release(version: str) -> tuple[int, int]:
    """Return the major and the minor number."""
    numbers = [int(part) for part in re.findall(r"\d+", version)]
    return tuple([*numbers, 0, 0][:2])


def misfits(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return which of the `wanted` packages are missing from `found` or have an unsuitable version."""
    return [f"{name} {found.get(name.lower(), 'missing')} (wanted {version})" for name, version in wanted.items()
            if name.lower() not in found or not fits(name, found[name.lower()], version)]


def running() -> dict[str, str]:
    """Return package -> version of the running environment, names as in requirements.txt but in lower case."""
    return {re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower(): item.version for item in metadata.distributions()}


def torch_build() -> str:
    """Return the build of PyTorch that VOX_TORCH names, "" for the index's own choice; raises InputError for others."""
    build = os.environ.get("VOX_TORCH", "")
    if build and not BUILD.fullmatch(build):
        raise InputError(f"VOX_TORCH is {build!r}, wanted a build of PyTorch such as cpu, cu126 or cu130")
    return build


def install(folder: Path) -> None:
    """Install requirements.txt and tests/requirements.txt in the virtual environment `folder`, one process at a time.

    A complete environment is only updated; one from an interrupted installation is created anew.
    """
    wanted, build = pins(REQUIREMENTS, TESTS), torch_build()
    if build:
        wanted["torch"] += f"+{build}"
    marker = folder / "requirements.txt"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases it even when this process is killed
        if is_whole(folder):
            return
        print(f"path.sh: making the Python environment {folder} (once, a few minutes)", file=sys.stderr)
        if not marker.is_file():
            run([sys.executable, "-m", "venv", "--clear", str(folder)],
                "cannot make a virtual environment; on Debian and Ubuntu install python3-venv")
        marker.unlink(missing_ok=True)
        chosen = [f"torch=={wanted['torch']}"] if build else []
        index = "PIP_EXTRA_INDEX_URL must name the index of that build of PyTorch" if build else \
            "without a network, set VOX_VENV to an environment that has it"
        run([str(folder / "bin/python3"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "-r", str(REQUIREMENTS), "-r", str(TESTS), *chosen], f"cannot install requirements.txt; {index}")
        with write_aside(marker) as stream:
            stream.writelines(f"{name}=={version}\n" for name, version in wanted.items())


def is_whole(folder: Path) -> bool:
    """Whether the environment is completely installed, with suitable package versions and the build of VOX_TORCH.

    The versions of the tests' tools do not matter: a new one must not make the recipes install gigabytes again.
    """
    marker = folder / "requirements.txt"
    if not marker.is_file():
        return False
    filled = {name.lower(): version for name, version in pins(marker).items()}
    build = torch_build()
    return not misfits(pins(REQUIREMENTS), filled) and (not build or filled["torch"].endswith(f"+{build}"))


def run(command: list[str], failure: str) -> None:
    """Run `command`; if it fails, raises InputError with `failure` and its last line of output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["no output"]
        raise InputError(f"{failure}: {' '.join(command[-4:])}: {lines[-1]}")


def main() -> None:
    chosen = os.environ.get("VOX_VENV")
    if chosen and (Path(chosen) / "bin/python3").exists() and not Path(f"{chosen}.lock").exists():
        print(Path(chosen).absolute())  # not created by us: used unchanged, never written to
        return
    active = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    if not chosen and active and Path(sys.prefix).resolve() == Path(active).resolve():
        wrong = misfits(pins(REQUIREMENTS), running())
        if not wrong:
            print(active)
            return
        print(f"path.sh: the active environment {active} is not used: {', '.join(wrong[:3])}"
              f"{' ...' if len(wrong) > 3 else ''}", file=sys.stderr)
    folder = Path(chosen or ROOT / ".venv").absolute()
    if not is_whole(folder):
        install(folder)
    print(folder)


if __name__ == "__main__":
    run_main(main)
