"""Launcher for Grid Engine and its descendants: submits array jobs with qsub, watches them with qstat and qacct."""

import getpass
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from utils.errors import run_main
from utils.jobs.engine import Engine, ask, launch


class GridEngine(Engine):
    """Grid Engine's programs."""

    name = "sge"
    task_variable = "SGE_TASK_ID"
    unreachable = re.compile(r"commlib|unable to (?:contact|send|connect)|can't connect|no response|no answer", re.I)

    def submit_words(self, name: str, count: int, output: Path, at_once: int | None) -> list[str]:
        return ["-terse", "-N", name, "-o", str(output), "-t", f"1-{count}"]

    def job_id(self, answer: str) -> str:
        return answer.strip().splitlines()[-1].split(".")[0]

    def states(self, job_id: str) -> dict[int, str]:
        tree = ElementTree.fromstring(ask(["qstat", "-f", "-xml", "-u", getpass.getuser()]))
        found: dict[int, str] = {}
        for queue in [*tree.iter("Queue-List"), tree]:
            node = queue.findtext("name", "") if queue is not tree else ""
            unreachable = "u" in (queue.findtext("state") or "") if queue is not tree else False
            jobs = queue.findall("job_list") if queue is not tree else tree.findall("job_info/job_list")
            for job in jobs:
                if job.findtext("JB_job_number") != job_id:
                    continue
                state = job.findtext("state", "")
                for task in tasks(job.findtext("tasks", "1")):
                    if "E" in state:
                        found[task] = f"never: Grid Engine could not start it, state {state}; ask qstat -j {job_id}"
                    elif unreachable:
                        found[task] = f"dead node {node.partition('@')[2]}: out of Grid Engine's reach"
                    else:
                        found[task] = "running" if queue is not tree else "waiting"
        return found

    def why_never(self, job_id: str, submission: list[str]) -> str:
        try:
            ask(verification(submission))
        except OSError as error:
            if "no suitable queues" in str(error):
                reasons = [line.strip() for line in str(error).splitlines() if "cannot run" in line]
                return (f"no host can meet its request: {(reasons or ['no suitable queues'])[-1]}; ask for less "
                        "(--num-threads, --mem)")
            raise
        return ""

    def cancel(self, job_id: str, task: int | None = None) -> None:
        ask(["qdel", job_id] if task is None else ["qdel", "-f", job_id, "-t", str(task)])  # -f: its node may be dead

    def cancel_named(self, name: str) -> None:
        try:
            ask(["qdel", name])
        except OSError as error:
            if "does not exist" not in str(error):
                raise

    def has(self, name: str) -> bool:
        return f"<JB_name>{name}</JB_name>" in ask(["qstat", "-xml", "-u", getpass.getuser()])

    def account(self, job_id: str, task: int) -> str:
        try:
            answer = ask(["qacct", "-j", job_id, "-t", str(task)])
        except OSError:
            return ""
        known = dict(line.split(None, 1) for line in answer.splitlines() if len(line.split(None, 1)) == 2)
        return ", ".join(f"{key} {known[key].strip()}" for key in ("hostname", "failed", "exit_status", "maxvmem")
                         if key in known)


def verification(submission: list[str]) -> list[str]:
    """Return the command that asks whether an empty cluster with all queues open could run jobs; it submits nothing.

    Such a cluster has no measured values, so that a request for free memory would never be met: total memory instead.
    """
    program, *words = submission
    return [program, "-w", "v", *(re.sub(r"\b(mem|swap|virtual)_free=", r"\1_total=", word) for word in words)]


def tasks(text: str) -> list[int]:
    """Return the numbers in Grid Engine's list of tasks, e.g. `1,3-9:2`."""
    found: list[int] = []
    for part in text.split(","):
        first, last, step = re.fullmatch(r"(\d+)(?:-(\d+))?(?::(\d+))?", part.strip()).groups()
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def main() -> None:
    launch(GridEngine())


if __name__ == "__main__":
    run_main(main)
