"""Launcher for Slurm: submits array jobs with sbatch, watches them with squeue, and scontrol or sacct."""

import re
from pathlib import Path

from utils.errors import run_main
from utils.jobs.engine import Engine, ask, launch

WAITING = ("PENDING", "REQUEUED", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT", "SUSPENDED", "STOPPED")
RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "STAGE_OUT", "SIGNALING", "RESIZING")
NEVER = ("JobHoldMaxRequeue", "BadConstraints", "DependencyNeverSatisfied", "launch failed requeued held")
# Reasons for requests that the partition, account or quality of service never grants to a single job.
UNMET = re.compile(r"Partition(Config|NodeLimit|TimeLimit)|(Assoc|QOS)\w*PerJob\w*")


class Slurm(Engine):
    """Slurm's programs."""

    name = "slurm"
    task_variable = "SLURM_ARRAY_TASK_ID"
    unreachable = re.compile(r"unable to contact|timed out|connection refused|communication|no answer", re.I)

    def submit_words(self, name: str, count: int, output: Path, at_once: int | None) -> list[str]:
        return ["--parsable", f"--job-name={name}", f"--output={output}.%a",
                f"--array=1-{count}{f'%{at_once}' if at_once else ''}"]

    def job_id(self, answer: str) -> str:
        return answer.strip().splitlines()[-1].split(";")[0]

    def states(self, job_id: str) -> dict[int, str]:
        try:
            answer = ask(["squeue", "--noheader", "--array", "--jobs", job_id, "--format", "%K|%T|%r|%N"])
        except OSError as error:
            if "Invalid job id" in str(error):  # it ended so long ago that Slurm has forgotten it
                return {}
            raise
        found: dict[int, str] = {}
        for line in answer.splitlines():
            task, state, reason, node = line.split("|", 3)
            if reason in NEVER:
                found[int(task)] = f"never: Slurm will not start it: {reason}"
            elif state in RUNNING:
                found[int(task)] = "running"
            elif state in WAITING:
                found[int(task)] = "waiting"
            elif state == "NODE_FAIL":
                found[int(task)] = f"dead node {node}: Slurm lost it"
        return found

    def why_never(self, job_id: str, submission: list[str]) -> str:
        reasons = ask(["squeue", "--noheader", "--jobs", job_id, "--format", "%r"]).split("\n")
        unmet = next(filter(UNMET.fullmatch, reasons), "")
        return unmet and f"no host can meet its request ({unmet}); ask for less (--num-threads, --mem, --time)"

    def cancel(self, job_id: str, task: int | None = None) -> None:
        ask(["scancel", f"{job_id}_{task}" if task else job_id])

    def cancel_named(self, name: str) -> None:
        ask(["scancel", f"--name={name}"])

    def has(self, name: str) -> bool:
        return bool(ask(["squeue", "--noheader", f"--name={name}"]).strip())

    def account(self, job_id: str, task: int) -> str:
        for words in (["sacct", "-n", "-P", "-j", f"{job_id}_{task}", "-o", "State,ExitCode,NodeList,MaxRSS"],
                      ["scontrol", "show", "job", f"{job_id}_{task}"]):
            try:
                answer = ask(words)
            except OSError:
                continue
            if words[0] == "sacct" and answer.strip():
                return answer.splitlines()[0].replace("|", ", ")
            known = re.findall(r"\b(JobState|Reason|ExitCode|BatchHost)=(\S+)", answer)
            if known:
                return ", ".join(f"{key} {value}" for key, value in known)
        return ""


def main() -> None:
    launch(Slurm())


if __name__ == "__main__":
    run_main(main)
