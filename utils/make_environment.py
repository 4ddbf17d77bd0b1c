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
LOCK = ROOT / "requirements.lock"
BUILD = re.compile(r"cpu|cu\d{2,3}|rocm\d+(\.\d+)*|xpu")  # of PyTorch, as in 2.13.0+cu126
RANGE = re.compile(r"([A-Za-z0-9][\w.-]*?)((?:>=|<)\d+(?:\.\d+)*(?:,(?:>=|<)\d+(?:\.\d+)*)*)")


def entries(*paths: Path) -> list[str]:
    """Return the lines of lists of packages, without comments."""
    lines = "\n".join(path.read_text(encoding="utf-8") for path in paths).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def pins(path: Path) -> dict[str, str]:
    """Return package -> version from a file with lines `package==version`."""
    return dict(line.split("==") for line in entries(path))


def ranges(*paths: Path) -> dict[str, str]:
    """Return package -> range of versions from files with lines such as `torch>=2.11,<2.16`.

    Of pip's conditions only >= and < are known; raises InputError for others.
    """
    found = {}
    for line in entries(*paths):
        match = RANGE.fullmatch(line)
        if not match:
            raise InputError(f"{' or '.join(map(str, paths))}: {line!r}: wanted a package and its range of versions, "
                             "with >= and < only, such as numpy>=2.4,<3")
        found[match[1]] = match[2]
    return found


def fits(have: str, wanted: str) -> bool:
    """Whether a version lies in a range, such as 2.13.0+cpu in >=2.11,<2.16."""
    conditions = [re.fullmatch("(>=|<)(.+)", part).groups() for part in wanted.split(",")]
    return all((release(have) >= release(limit)) == (sign == ">=") for sign, limit in conditions)


def release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version: 2.13.0+cu126 has 2 and 13. Zeros at the end do not count: 2.0 is 2."""
    numbers = [int(part) for part in re.match(r"[\d.]*", version)[0].split(".") if part]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def misfits(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """Return which of the `wanted` packages are missing from `found` or have a version outside their range."""
    return [f"{name} {found.get(name.lower(), 'missing')} (wanted {versions})" for name, versions in wanted.items()
            if name.lower() not in found or not fits(found[name.lower()], versions)]


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

    The versions are those of requirements.lock; VOX_TORCH adds the build of PyTorch. A complete environment is only
    updated; one from an interrupted installation is created anew.
    """
    locked, build = pins(LOCK), torch_build()
    wanted = {name: locked[name] for name in ranges(REQUIREMENTS, TESTS)}
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
             "-r", str(REQUIREMENTS), "-r", str(TESTS), "-c", str(LOCK), *chosen],
            f"cannot install requirements.txt; {index}")
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
    return not misfits(ranges(REQUIREMENTS), filled) and (not build or filled["torch"].endswith(f"+{build}"))


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
        wrong = misfits(ranges(REQUIREMENTS), running())
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
