"""The common part of Grid Engine and Slurm: submit an array of jobs, watch it until it ends, run failed jobs again.

A job is over when its log ends with the end marker (task.py). Between checks of the logs, the engine is asked for its
jobs, so that the launcher does not wait for a job that was lost, is on a dead node or can never start. If the
engine does not answer, for example while its daemon restarts, it is asked again for a while. Each array has a unique
name, noted before submission, so that the next launcher finds jobs that a killed one left in the queue.
"""

import abc
import contextlib
import json
import math
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.errors import InputError
from utils.files import write_aside
from utils.jobs.command_line import Call, parse_call
from utils.jobs.engine_config import EngineConfig
from utils.jobs.live import Live
from utils.jobs.lock import join, require_held
from utils.jobs.report import failure
from utils.jobs.task import REQUEUE, ended, warn_above

LOOK_SECONDS = 0.5     # between checks of the logs, growing to SLOWEST_LOOK
SLOWEST_LOOK = 5.0
ASK_SECONDS = 5.0      # between queries to the engine
PATIENCE_SECONDS = 15.0  # if no job of an array starts in this time, no host may meet its request
GRACE_SECONDS = 15.0   # after a job has left the engine, its log may still arrive over a network disk
SILENT_SECONDS = 900.0  # give up an engine that does not answer for this long
MOST_REQUEUES = 100    # a job that asks for more makes no progress
DEAD_SECONDS = 300.0   # a node may be unreachable for this long
PASSED_ON = ("PATH", "PYTHONPATH", "LC_ALL", "PYTHONUNBUFFERED", "VOX_ROOT", "VOX_READY")


class Engine(abc.ABC):
    """One kind of engine: its programs and their answers."""

    name: str
    task_variable: str  # environment variable with a job's number
    unreachable: re.Pattern[str]  # matches errors of programs that cannot reach the daemon

    @abc.abstractmethod
    def submit_words(self, name: str, count: int, output: Path, at_once: int | None) -> list[str]:
        """Return the words between the configured command and the script."""

    @abc.abstractmethod
    def job_id(self, answer: str) -> str:
        """Return the array's id from the output of the submit command."""

    @abc.abstractmethod
    def states(self, job_id: str) -> dict[int, str]:
        """Return the state of each task still in the engine: `waiting`, `running`, `dead node ...` or `never: why`."""

    def why_never(self, job_id: str, submission: list[str]) -> str:
        """Return why a waiting array can never start, or ""; engines that refuse such requests at once return "".

        submission: the configured command and options, and the script.
        """
        return ""

    @abc.abstractmethod
    def cancel(self, job_id: str, task: int | None = None) -> None:
        """Remove an array, or one of its tasks."""

    @abc.abstractmethod
    def cancel_named(self, name: str) -> None:
        """Remove all arrays with this name; it is not an error if none exists."""

    @abc.abstractmethod
    def has(self, name: str) -> bool:
        """Whether the queue still has an array with this name."""

    @abc.abstractmethod
    def account(self, job_id: str, task: int) -> str:
        """Return a text with the engine's information on how a job ended, or ""."""


def ask(words: list[str], seconds: float = 60) -> str:
    """Return the output of an engine's program; raises OSError if it fails or does not answer."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{words[0]}: no answer in {seconds:.0f} s") from error
    if done.returncode:
        raise OSError(f"{shlex.join(words)}: {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout


def look_anew(folder: Path) -> None:
    """Make this host's network disk read a folder again, by a change of it.

    NFS remembers for up to a minute that a file is not there, although another host has written it since.
    """
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder, prefix=".look."):
        pass


class ArrayRun:
    """The jobs of one call on an engine."""

    def __init__(self, call: Call, engine: Engine) -> None:
        self.call, self.engine, self.live = call, engine, Live(call)
        config = call.options.get("config", str(Path(__file__).with_name(f"{engine.name}.conf")))
        given = {name: value for name, value in call.options.items() if name not in ("config", "retries")}
        self.command = EngineConfig(Path(config))
        if ("max_jobs_run", "*") not in self.command.options:
            given.pop("max-jobs-run", None)  # submit_words passes it on
        self.words = self.command.words(given)
        self.job_id: str | None = None  # of the array in the queue
        self.array: str | None = None   # its name
        log = Path(call.log_of(call.first)).absolute()
        stem = Path(call.log).name.removesuffix(".log")
        stem = stem.replace(f".{call.variable}", "") if call.variable else stem
        self.name = "j" + "".join(c if c.isalnum() or c in "._-" else "_" for c in stem)
        self.folder = log.parent / "q"
        self.note = self.folder / f"{self.name}.name"  # file that keeps the name while the array exists

    def submit_line(self, name: str, count: int) -> list[str]:
        """Return the command that submits `count` jobs as the array `name`."""
        at_once = self.call.number("max-jobs-run", 0) if "max-jobs-run" in self.call.options else None
        output = self.folder / f"{self.name}.o"
        return [*self.words, *self.engine.submit_words(name, count, output, at_once),
                str(self.folder / f"{self.name}.sh")]

    def run(self) -> dict[int, int | str]:
        """Run every job, and failed jobs again as often as allowed; return how those that failed for good ended."""
        self._clear_earlier()
        left = dict.fromkeys(self.call.jobs, self.call.number("retries", 1))
        requeues = dict.fromkeys(self.call.jobs, MOST_REQUEUES)
        todo, failed = list(self.call.jobs), {}
        while todo:
            ends = self._run_once(todo)
            todo = []
            for job, end in ends.items():
                if end == REQUEUE and requeues[job]:
                    requeues[job] -= 1
                    todo.append(job)
                elif end == REQUEUE:
                    failed[job] = f"asked to be run again more than {MOST_REQUEUES} times"
                elif end != 0 and left[job]:
                    left[job] -= 1
                    todo.append(job)
                    self.live.clear()
                    print(failure(self.call, {job: end}).splitlines()[0] + "; run again", file=sys.stderr)
                elif end != 0:
                    failed[job] = end
        return failed

    def stop(self) -> None:
        """Remove the array, even during submission; if that fails, the note stays and the next call removes it."""
        if self.array is not None:
            with contextlib.suppress(OSError):
                self.engine.cancel_named(self.array)
                self.note.unlink(missing_ok=True)

    def _clear_earlier(self) -> None:
        """Remove the jobs of a killed launcher, since they would write the same files."""
        if self.note.is_file():
            name = self.note.read_text().strip()
            self._until_reached(lambda: self.engine.cancel_named(name))
            started = time.monotonic()
            while self._until_reached(lambda: self.engine.has(name)):  # its jobs are still writing
                if time.monotonic() - started > DEAD_SECONDS:
                    raise InputError(f"the jobs {name} of an earlier call cannot be removed; check {self.engine.name}")
                time.sleep(LOOK_SECONDS)
            self.note.unlink()

    def _until_reached(self, action: Callable[[], Any]) -> Any:
        """Run an action that needs the engine's daemon, and repeat it while the daemon is unreachable."""
        started = time.monotonic()
        while True:
            try:
                return action()
            except OSError as error:
                if not self.engine.unreachable.search(str(error)) or time.monotonic() - started > SILENT_SECONDS:
                    raise
            time.sleep(ASK_SECONDS)

    def _submit(self, count: int) -> str:
        """Submit an array under a unique name; return its id."""
        name = self.array = f"{self.name}.{secrets.token_hex(4)}"
        with write_aside(self.note) as stream:
            stream.write(f"{name}\n")
        tried = False

        def attempt() -> str:
            nonlocal tried
            if tried:  # the engine may have accepted the array without being able to answer
                self.engine.cancel_named(name)
            tried = True
            return self.engine.job_id(ask(self.submit_line(name, count)))

        return self._until_reached(attempt)

    def _run_once(self, jobs: list[int]) -> dict[int, int | str]:
        self.folder.mkdir(parents=True, exist_ok=True)
        look_anew(Path(self.call.log_of(jobs[0])).parent)
        for job in jobs:
            Path(self.call.log_of(job)).unlink(missing_ok=True)
        spec = self.folder / f"{self.name}.json"
        with write_aside(spec) as stream:
            json.dump({"threads": self.call.number("num-threads", 1), "memory": self.call.options.get("mem", ""),
                       "jobs": [{"words": self.call.words(job), "log": str(Path(self.call.log_of(job)).absolute()),
                                 "variables": self.live.variables(job)} for job in jobs]}, stream)
        with write_aside(self.folder / f"{self.name}.sh") as stream:
            stream.write(self._script(spec))
        self.job_id = self._submit(len(jobs))
        ends = self._watch(jobs)
        self.note.unlink(missing_ok=True)
        self.job_id = self.array = None
        return ends

    def _script(self, spec: Path) -> str:
        kept = [f"export {name}={shlex.quote(os.environ[name])}" for name in PASSED_ON if name in os.environ]
        task = f'exec python3 -m utils.jobs.task {shlex.quote(str(spec))} "${self.engine.task_variable}"'
        return "\n".join(["#!/usr/bin/env bash", f"cd {shlex.quote(os.getcwd())}", *kept, task, ""])

    def _watch(self, jobs: list[int]) -> dict[int, int | str]:
        """Wait until all jobs are over; return exit codes, or a text for jobs without an end marker."""
        task_of = {job: task for task, job in enumerate(jobs, start=1)}
        ends: dict[int, int | str] = {}
        since: dict[int, float] = {}  # when a job was first missing or on a dead node
        pause, asked, answered = LOOK_SECONDS, time.monotonic(), time.monotonic()
        doubted = asked + PATIENCE_SECONDS
        while True:
            for job in [job for job in jobs if job not in ends]:
                code = ended(Path(self.call.log_of(job)))
                if code is not None:
                    ends[job] = code
            self.live.over = set(self.call.jobs) - set(jobs) | set(ends)
            if len(ends) == len(jobs):
                return {job: ends[job] for job in jobs}
            time.sleep(pause)
            pause = min(SLOWEST_LOOK, 1.2 * pause)
            if time.monotonic() - asked < ASK_SECONDS:
                continue
            asked = time.monotonic()
            try:
                states = self.engine.states(self.job_id)
            except OSError as error:
                if time.monotonic() - answered > SILENT_SECONDS:
                    raise InputError(f"{self.engine.name} does not answer: {error}") from error
                continue
            answered = time.monotonic()
            if answered > doubted and set(states.values()) == {"waiting"} and not ends:
                doubted = math.inf  # once is enough: the request does not change
                never = self._why_never()
                states = dict.fromkeys(states, f"never: {never}") if never else states
            for job in [job for job in jobs if job not in ends]:
                end = self._judge(job, task_of[job], states.get(task_of[job]), since)
                if end is not None:
                    ends[job] = end

    def _why_never(self) -> str:
        """Return why the array can never start; "" if it can, or if the engine does not answer."""
        try:
            return self.engine.why_never(self.job_id, [*self.words, str(self.folder / f"{self.name}.sh")])
        except OSError:
            return ""

    def _judge(self, job: int, task: int, state: str | None, since: dict[int, float]) -> str | None:
        """Return why a job without an end marker will never write one, or None to continue waiting."""
        if state in ("waiting", "running"):
            since.pop(job, None)
            return None
        gone = time.monotonic() - since.setdefault(job, time.monotonic())
        if state is None:
            look_anew(Path(self.call.log_of(job)).parent)
            if gone < GRACE_SECONDS:
                return None
            known = self.engine.account(self.job_id, task)
            return f"ended without an end marker, killed by the engine or with its node{f' ({known})' if known else ''}"
        if state.startswith("dead node") and gone < DEAD_SECONDS:
            return None
        with contextlib.suppress(OSError):
            self.engine.cancel(self.job_id, task)
        return state


def launch(engine: Engine) -> None:
    """The main function of an engine's launcher."""
    call = parse_call(engine.name, sys.argv[1:])
    run = ArrayRun(call, engine)
    if call.dry_run:
        print(shlex.join(run.submit_line(run.name, len(call.jobs))))
        return

    def interrupted(number: int, _frame: object) -> None:
        run.stop()
        raise SystemExit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    require_held()
    join(os.getpid())
    with run.live:
        failed = run.run()
    warn_above([Path(call.log_of(job)) for job in call.jobs])
    if failed:
        raise InputError(failure(call, failed))
