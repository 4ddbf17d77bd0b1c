"""What the recipe survives: each function disturbs a run and returns what happened, or raises AssertionError."""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.tiny import ROOT, command, make_conf, make_corpus, results

SYSTEMS = ("--systems", "ivector xvector")


class Bench:
    """A tiny corpus, its configurations, and an undisturbed run to compare with."""

    def __init__(self, folder: Path) -> None:
        shared = Path(os.environ.get("VOX_SHARED", ROOT.parent / "shared")).resolve()
        self.folder = folder
        self.corpus, self.conf = make_corpus(shared, folder / "corpus"), make_conf(folder / "conf")
        self.whole = folder / "whole"
        started = time.monotonic()
        self.finish(self.whole)
        self.seconds = time.monotonic() - started

    def start(self, work: Path, *more: str) -> subprocess.Popen:
        log = (self.folder / "run.log").open("w")
        return subprocess.Popen(command(self.corpus, self.conf, work, *SYSTEMS, *more), stdout=log, stderr=log,
                                start_new_session=True)

    def run(self, work: Path, *more: str) -> tuple[int, str]:
        code = self.start(work, *more).wait()
        return code, (self.folder / "run.log").read_text(errors="replace")

    def finish(self, work: Path, *more: str) -> str:
        """Run to the end; return what was said."""
        code, said = self.run(work, *more)
        assert code == 0, said[-2000:]
        return said

    def copy(self, name: str) -> Path:
        """Return a copy of the undisturbed run; arks are found where they were, so they are moved in place."""
        work = self.folder / name
        shutil.rmtree(work, ignore_errors=True)
        shutil.move(self.whole, self.folder / "kept")
        shutil.copytree(self.folder / "kept", self.whole, symlinks=True)
        return self.whole

    def restore(self) -> None:
        """Put the undisturbed run back."""
        shutil.rmtree(self.whole)
        shutil.move(self.folder / "kept", self.whole)

    def same(self, work: Path) -> bool:
        """Whether a run ended with the same table and the same models, bit by bit."""
        whole = self.folder / "kept" if (self.folder / "kept").exists() else self.whole
        models = ("exp/ivector/final.ie", "exp/xvector/model.safetensors", "exp/ivector/backend/plda/plda")
        return (results(work) == results(whole)
                and all((work / name).read_bytes() == (whole / name).read_bytes() for name in models))


def kills(bench: Bench) -> str:
    """SIGKILL at 30 random moments of the run: every other time to all its processes, else to run.sh alone."""
    rng, work, ended = random.Random(1), bench.folder / "killed", 0
    for number in range(30):
        process = bench.start(work)
        time.sleep(rng.uniform(0.2, bench.seconds / 8))
        ended += process.poll() is not None
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if number % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    bench.finish(work)
    assert bench.same(work)
    return f"30 kills ({ended} after the end), then one run to the end: same table, same models bit by bit"


def job_deaths(bench: Bench) -> str:
    """Ten of the forty jobs of an array are killed."""
    out = bench.folder / "array"
    out.mkdir()
    job = f"echo $$ >> {out}/pids.JOB; until [ -e {out}/go ]; do sleep 0.2; done; echo JOB >> {out}/done.JOB"
    launcher = subprocess.Popen(["run", "--max-jobs-run", "40", "JOB=1:40", f"{out}/x.JOB.log", "bash", "-c", job],
                                stderr=subprocess.PIPE)

    def pids() -> list[list[str]]:
        return [path.read_text().split() if path.exists() else []
                for path in (out / f"pids.{number}" for number in range(1, 41))]

    while not all(pids()):
        time.sleep(0.05)
    killed = random.Random(2).sample(range(40), 10)
    for index in killed:
        os.kill(int(pids()[index][0]), signal.SIGKILL)
    (out / "go").touch()
    assert launcher.wait() == 0, launcher.stderr.read().decode()
    assert [len(started) for started in pids()] == [2 if index in killed else 1 for index in range(40)]
    assert [path.read_text().count("\n") for path in out.glob("done.*")] == [1] * 40
    return "the ten ran again, alone; the array ended well"


def submit(engine: str, stem: str, seconds: int) -> subprocess.Popen:
    """Submit four jobs of some seconds; each leaves a line in <stem>.done.JOB."""
    return subprocess.Popen([str(ROOT / "utils" / engine), "JOB=1:4", f"{stem}.JOB.log", "bash", "-c",
                             f"sleep {seconds}; echo JOB >> {stem}.done.JOB"], stderr=subprocess.PIPE)


def daemon_restarts(bench: Bench) -> str:
    """The engine's master daemon is stopped while an array runs, another is submitted, and it comes back."""
    survived = []
    for engine, daemon in (("sge", "sge_qmaster"), ("slurm", "slurmctld")):
        start = ROOT / f"tests/clusters/start_{engine}.sh"
        if subprocess.run(["bash", str(start)], capture_output=True, check=False).returncode:
            continue
        out = bench.folder / engine
        out.mkdir()
        launchers = [submit(engine, f"{out}/x", 12)]
        while not (out / "x.1.log").exists():
            time.sleep(0.1)
        subprocess.run(["pkill", "-x", daemon], check=True)
        launchers.append(submit(engine, f"{out}/y", 0))
        time.sleep(10)
        subprocess.run(["bash", str(start)], capture_output=True, check=True)
        for launcher in launchers:
            assert launcher.wait(240) == 0, launcher.stderr.read().decode()
        assert [path.read_text().count("\n") for path in out.glob("*.done.*")] == [1] * 8
        survived.append(engine)
    assert survived, "no engine could be started"
    return f"{' and '.join(survived)}: the launcher asked until it was back, all jobs of both arrays ran once"


def disk(bench: Bench) -> str:
    """The work folder is on a disk of 3 MB; it is enlarged afterwards."""
    place = bench.folder / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], check=True)
    try:
        code, said = bench.run(place / "work")
        assert code != 0
        line = next(line for line in said.splitlines() if "No space left" in line or "are free on that disk" in line)
        subprocess.run(["mount", "-o", "remount,size=400m", str(place)], check=True)
        bench.finish(place / "work")
        assert bench.same(place / "work")
    finally:
        subprocess.run(["umount", str(place)], check=True)
    return f"stopped with `...{line.strip()[-90:]}`; with more space the same table"


def read_only(bench: Bench) -> str:
    """The disk of the work folder becomes read-only before the last stages, as after an error of the disk."""
    place = bench.folder / "shut"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(place)], check=True)
    try:
        bench.finish(place / "work", "--stop-stage", "4")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        code, said = bench.run(place / "work")
        assert code != 0
        line = next(line for line in said.splitlines() if "Read-only file system" in line)
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        bench.finish(place / "work")
        assert bench.same(place / "work")
    finally:
        subprocess.run(["umount", str(place)], check=True)
    return f"stopped with `...{line.strip()[-90:]}`; once it could be written the same table"


def unreadable(bench: Bench) -> str:
    """An audio file in the middle of the list cannot be opened: a link that leads to itself."""
    path = sorted((bench.corpus / "dev").rglob("*.flac"))[40]
    path.rename(path.with_suffix(".kept"))
    path.symlink_to(path)
    try:
        code, said = bench.run(bench.folder / "unreadable")
        assert code != 0
        line = next(line for line in said.splitlines() if path.stem in line and "error" in line.lower())
    finally:
        path.unlink()
        path.with_suffix(".kept").rename(path)
    bench.finish(bench.folder / "unreadable")
    assert bench.same(bench.folder / "unreadable")
    return f"stopped with `...{line.strip()[-90:]}`; once it could be read the same table"


def damage(bench: Bench, what: str, change: Callable[[Path], None]) -> str:
    """Damage a finished run's features, and run again."""
    work = bench.copy("damaged")
    try:
        change(work)
        said = bench.finish(work)
        reason = next(line for line in said.splitlines() if "runs again" in line)
        assert bench.same(work)
    finally:
        bench.restore()
    return f"noticed ({reason.rpartition('/')[2].strip()}), made again, same table"


def truncated(bench: Bench) -> str:
    """An archive of features is cut in the middle."""
    return damage(bench, "cut", lambda work: os.truncate(next((work / "data").glob("*/train/feats.1.ark")), 5000))


def flipped(bench: Bench) -> str:
    """A bit is flipped in an archive of features."""
    def flip(work: Path) -> None:
        path = next((work / "data").glob("*/train/feats.1.ark"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)

    return damage(bench, "flipped", flip) + "; archives over 64 MB are compared by size alone"


def deleted(bench: Bench) -> str:
    """One part of the features is deleted."""
    return damage(bench, "deleted", lambda work: next((work / "data").glob("*/train/feats.2.ark")).unlink())


def clock(bench: Bench) -> str:
    """The clock was set back: all files of the run are from the future, or from long ago."""
    work = bench.copy("clock")
    try:
        for year in ("2001", "2099"):
            subprocess.run(["find", str(work), "-exec", "touch", "-d", f"{year}-01-01", "{}", "+"], check=True)
            assert "runs again" not in bench.finish(work)
        assert bench.same(work)
    finally:
        bench.restore()
    return "nothing is done again: records hold contents, not times"


def two_runs(bench: Bench) -> str:
    """Two runs at once in one work folder."""
    work = bench.folder / "two"
    first = bench.start(work)
    while not (work / ".lock").exists() or not (work / ".lock").stat().st_size:
        time.sleep(0.05)
    second = subprocess.run(command(bench.corpus, bench.conf, work, *SYSTEMS), capture_output=True, text=True,
                            check=False)
    assert second.returncode == 1
    assert f"in use by process {first.pid}" in second.stderr
    assert first.wait() == 0
    assert bench.same(work)
    return "the second says who holds the lock and stops; the first ends well"


def bad_audio(bench: Bench) -> str:
    """An audio file is cut in the middle of the list."""
    path = sorted((bench.corpus / "dev").rglob("*.flac"))[40]
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    try:
        code, said = bench.run(bench.folder / "audio")
        assert code != 0
        assert f"{path.parts[-3]}-{path.parts[-2]}-{path.stem}" in said
    finally:
        path.write_bytes(whole)
    bench.finish(bench.folder / "audio")
    assert bench.same(bench.folder / "audio")
    return "stopped, naming the utterance and the cause; with the file repaired the same table"


FAULTS = {function.__name__: function for function in (
    kills, job_deaths, daemon_restarts, disk, read_only, truncated, flipped, deleted, clock, two_runs, bad_audio,
    unreadable)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", help=f"of {', '.join(FAULTS)} (default: all)")
    names = parser.parse_args().faults or list(FAULTS)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        print("| fault | what happened | seconds |\n| --- | --- | ---: |\n"
              f"| none | the undisturbed run | {bench.seconds:.0f} |", flush=True)
        for name in names:
            started = time.monotonic()
            try:
                said = f"ok: {FAULTS[name](bench)}"
            except (AssertionError, StopIteration, subprocess.SubprocessError, OSError) as error:
                said, wrong = f"FAILED: {type(error).__name__} {str(error)[-300:]}", wrong + 1
            title = (FAULTS[name].__doc__ or name).strip()
            print(f"| {name}: {title} | {said} | {time.monotonic() - started:.0f} |", flush=True)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
