"""Find or make the Python environment of the recipes; print its folder. Standard library only.

Called by path.sh, which says what is tried in which order. An interrupted installation is taken up
again: the copy of requirements.txt inside the environment, written last, says that it is whole.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from utils.errors import InputError, run_main

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements.txt"
TORCH = ((2, 11), (2, 15))  # releases that the code runs on; requirements.txt pins the one that is installed


def pins() -> dict[str, str]:
    """Return package -> version of requirements.txt."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def misfits() -> list[str]:
    """Return what the running environment lacks or has in another version."""
    found = {re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower(): item.version
             for item in metadata.distributions()}
    wrong = []
    for name, version in pins().items():
        have = found.get(name.lower())
        release = tuple(int(part) for part in re.findall(r"\d+", have or "0.0")[:2])
        fits = TORCH[0] <= release <= TORCH[1] if name == "torch" else have == version
        if not fits:
            wrong.append(f"{name} {have or 'missing'} (wanted {version})")
    return wrong


def install(folder: Path) -> None:
    """Make a virtual environment in `folder` and install requirements.txt, one process at a time."""
    marker = folder / "requirements.txt"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel when this process ends, however it ends
        if is_whole(folder):
            return
        print(f"path.sh: making the Python environment {folder} (once, a few minutes)", file=sys.stderr)
        marker.unlink(missing_ok=True)
        run([sys.executable, "-m", "venv", "--clear", str(folder)],
            "cannot make a virtual environment; on Debian and Ubuntu install python3-venv")
        run([str(folder / "bin/python3"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
             "-r", str(REQUIREMENTS)],
            "cannot install requirements.txt; without a network, set VOX_VENV to an environment that has it")
        shutil.copyfile(REQUIREMENTS, marker)


def is_whole(folder: Path) -> bool:
    """Whether the environment was filled to the end from the present requirements.txt."""
    marker = folder / "requirements.txt"
    return marker.is_file() and marker.read_bytes() == REQUIREMENTS.read_bytes()


def run(command: list[str], failure: str) -> None:
    """Run `command`; raises InputError with `failure` and its last line of output when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["no output"]
        raise InputError(f"{failure}: {' '.join(command[-4:])}: {lines[-1]}")


def main() -> None:
    chosen = os.environ.get("VOX_VENV")
    if chosen and (Path(chosen) / "bin/python3").exists() and not Path(f"{chosen}.lock").exists():
        print(Path(chosen).absolute())  # somebody else's environment: taken as it is, never written to
        return
    active = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    if not chosen and active and Path(sys.prefix).resolve() == Path(active).resolve():
        wrong = misfits()
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
