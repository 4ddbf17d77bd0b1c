"""The recipe from wav files to the table, on a few real speakers and tiny models, and its interruptions."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import time

import pytest
import yaml

from tests.conftest import ROOT
from tests.terminal import drawn, terminal
from tests.tiny import command, make_conf, make_corpus, make_speechocean762, results

# Files that record when and how a run was made, not its results.
UNTOLD = ("results.tsv", "differences.tsv", "RESULTS.md", "card.json", ".done_table", "table.call", "corpus", ".stage",
          ".lock")
TO_THE_TABLE, WITH_FIGURES = ("--stop-stage", "7"), ("--stop-stage", "8")


@pytest.fixture(scope="module")
def corpus(shared, made_once):
    """A tiny corpus in a folder with an awkward name."""
    return made_once("corpus", lambda folder: make_corpus(shared, folder / "a 'real'; corpus")) / "a 'real'; corpus"


@pytest.fixture(scope="module")
def conf(made_once):
    return made_once("conf", make_conf)


def run(corpus, conf, work, *more):
    """Run the recipe, to the table unless `more` says otherwise: the figures take as long as all stages before."""
    return subprocess.run(command(corpus, conf, work, *TO_THE_TABLE, *more), capture_output=True, text=True,
                          check=False)


@pytest.fixture(scope="module")
def finished(corpus, conf, made_once):
    """A run to the end and what it said. The folder is only read: it is that of all workers."""
    def fill(folder):
        done = run(corpus, conf, folder / "with space", *WITH_FIGURES)
        assert done.returncode == 0, done.stderr[-3000:]
        (folder / "said.json").write_text(json.dumps([done.stdout, done.stderr]))

    folder = made_once("finished", fill)
    return folder / "with space", subprocess.CompletedProcess([], 0, *json.loads((folder / "said.json").read_text()))


def copied(finished, folder, placed=False):
    """Return a copy of the finished run; its tables point into that run unless they are `placed`."""
    shutil.copytree(finished[0], folder, symlinks=True)
    if placed:
        subprocess.run(["python3", "-m", "utils.jobs.place", folder], cwd=ROOT, check=True)
    return folder


def alone(work):
    """Return the rows of single systems: what the others are does not matter to them."""
    return [row for row in results(work) if row[0] != "fusion"]


def test_the_recipe_ends_with_the_table(finished):
    work, done = finished
    rows = results(work)
    assert rows[0] == ["system", "backend", "list", "trials", "targets", "eer", "eer_low", "eer_high", "mindcf01",
                       "mindcf05", "mindcf01_unnormalised"]
    assert [row[:5] for row in rows[1:]] == [
        [system, backend, "veri_test", "780", "140"]
        for system, backends in (("fusion", ()), ("ivector", ()), ("vgg_mha", ()), ("xvector", ("copies",)))
        for backend in sorted(("cosine", "plda", *backends))]
    assert all(0 <= float(row[5]) < 50 for row in rows[1:])
    assert all(float(row[6]) <= float(row[7]) for row in rows[1:])
    for row in rows[1:]:
        assert row[5] in done.stdout
    report = (work / "exp/RESULTS.md").read_text()
    for part in ("In every row: seed 1, scale mini, code ", "torch 2.", "egs/voxceleb/run.sh", "| ivector",
                 "- fusion: the weighted sum of the scores of ivector, xvector, vgg_mha, fitted on held-out "):
        assert part in report
    page = (work / "exp/report.html").read_text()
    for name in ("ivector", "vgg_mha", "xvector", "copies"):
        assert name in page
    assert (work / "exp/figures/attention_vgg_mha.pdf").is_file() and (work / "exp/figures/entropy.svg").is_file()
    assert "<li>fusion, ivector: not a network, which has no epochs.</li>" in page


def test_a_log_has_a_short_line_per_step_and_the_details_are_beside_the_jobs(finished):
    work, done = finished
    assert re.search(rf"^\d\d:\d\d:\d\d train_ubm {re.escape(str(work))}/exp/ivector/ubm\n +\.\.\. \d+ s$", done.stderr,
                     re.MULTILINE)
    assert "\r" not in done.stderr and "\x1b" not in done.stderr
    assert "--num-threads" not in done.stderr and ": valid:" not in done.stderr
    details = (work / "exp/ivector/ubm/log/train_ubm.call").read_text().splitlines()
    assert details[0].startswith(f"{ROOT}/steps/train_ubm.sh --nj 1 --cmd run --num-threads 0 ")
    assert "/data/mfcc24/train: valid: 96 utterances, 12 speakers" in details[1]
    assert (work / "exp/ivector/scores_test/log/score.veri_test.plda.call").is_file()


@pytest.mark.long
def test_a_terminal_of_80_columns(corpus, conf, tmp_path):
    """One line per step, with paths relative to the current folder, and below it the progress of training."""
    words = command(corpus, conf, tmp_path / "w", "--systems", "xvector", "--stop-stage", "3")
    code, said = terminal(words, tmp_path)
    lines = drawn(said)
    assert code == 0, said[-3000:]
    own = [line for line in lines if str(corpus) not in line]  # whose path is absolute and long
    assert max(map(len, own)) <= 80, max(own, key=len)
    assert any(re.fullmatch(r"\d\d:\d\d:\d\d train_network w/exp/xvector", line) for line in lines)
    assert any(re.match(r" +train: \d+ of \d+ steps, \d+:\d\d left, epoch [12] of 2", line) for line in lines)
    code, said = terminal(words, tmp_path)
    again = [line for line in drawn(said) if re.match(r"\d\d:", line)]
    assert code == 0 and again and all(re.match(r"\d\d:\d\d:\d\d \w+ w/\S+: up to date$", line) for line in again)


def test_running_again_does_nothing(finished, corpus, conf, tmp_path):
    work = copied(finished, tmp_path / "work", placed=True)
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*")
              if path.is_file() and path.name not in UNTOLD}
    done = run(corpus, conf, work, *WITH_FIGURES)
    assert done.returncode == 0
    assert "runs again" not in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.long
def test_an_engine_gives_the_same_table(engine, finished, corpus, conf, tmp_path):
    """Real Grid Engine and Slurm: every job runs through them, with the same numbers to the last digit, and within the
    memory that it requests.

    One system each: a job starts Python anew, and an engine takes seconds to notice that it has ended.
    """
    work, system = finished[0], {"sge": "ivector", "slurm": "xvector"}[engine]
    done = run(corpus, conf, tmp_path, "--cmd", f"env VOX_COLD=true {engine}", "--num-threads", "2",
               "--systems", system, "--ivector-nj", "2")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "more memory than" not in done.stderr
    assert alone(tmp_path) == [results(work)[0], *(row for row in alone(work) if row[0] == system)]
    log = next((tmp_path / "exp" / system / "embeddings_test/log").glob("extract.1.log")).read_text()
    assert "# Running on" in log and " requested_mb=" in log
    assert (tmp_path / "exp" / system / "embeddings_test/log/q").is_dir()


@pytest.mark.parametrize(("given", "each"),
                         [([], 4), pytest.param(["--num-threads", "3"], 3, marks=pytest.mark.long)])
def test_an_engine_is_asked_for_what_a_job_uses(finished, tmp_path, given, each):
    """Not for the cores of the submitting machine. Checked with the launchers' dry runs."""
    work, _ = finished
    data, exp = work / "data", work / "exp"
    asked = []
    for step, cpu, *words in (
            ("train_ubm.sh", True, exp / "ivector/system.yaml", data / "mfcc24/train", tmp_path / "ubm"),
            ("train_ubm.sh", False, exp / "ivector/system.yaml", data / "mfcc24/train", tmp_path / "ubm"),
            ("train_network.sh", True, "--num-processes", 2, exp / "xvector/system.yaml", data / "fbank80/train_net_sp",
             data / "fbank80/valid", tmp_path / "net"),
            ("score.sh", True, exp / "xvector/backend/plda", exp / "xvector/embeddings_test",
             data / "test/trials/veri_test", tmp_path / "scores/veri_test.plda")):
        for engine in ("slurm", "sge"):
            device = [] if cpu else ["--device", "cuda"]
            done = subprocess.run([ROOT / "steps" / step, *given, "--cmd", f"{engine} --dry-run", *device,
                                   *map(str, words)], capture_output=True, text=True, check=False)
            found = re.search(r"--cpus-per-task=(\d+)|-pe smp (\d+)", done.stdout)
            asked.append(int(found[1] or found[2]) if found else 0)
            assert cpu or "gpu" in done.stdout
    assert asked == [each] * 2 + [0] * 2 + [2 * each] * 2 + [each] * 2


@pytest.mark.long
def test_a_dry_run_prints_the_requests_of_a_whole_run_and_writes_nothing(finished, corpus, conf, tmp_path):
    work, _ = finished
    logs = {path.relative_to(work) for path in work.rglob("*.log") if "# Accounting" in path.read_text()}
    real = {re.sub(r"\.[12]\.log$", ".JOB.log", str(path)).replace("veri_test.", "LIST.") for path in logs}
    done = run(corpus, conf, tmp_path / "work", "--cmd", "run --dry-run", *WITH_FIGURES)
    assert done.returncode == 0, done.stderr[-2000:]
    asked = {shlex.split(line)[-1].removeprefix(f"{tmp_path}/work/").replace("*.", "LIST.")
             for line in done.stdout.splitlines()}
    assert asked == real
    assert "== Stage 6: " in done.stderr and not (tmp_path / "work").exists()
    assert all(" --mem " in line for line in done.stdout.splitlines() if "make_feats" in line or "/score" in line)
    shutil.copytree(work / "data", tmp_path / "begun/data", symlinks=True,
                    ignore=lambda folder, names: {"mfcc24", "fbank80", "fbank30"} & set(names))
    for folder, systems in ((work, "ivector xvector"), (tmp_path / "begun", "ivector")):  # after stage 8, and after 0
        done = run(corpus, conf, folder, "--cmd", "slurm --dry-run", "--systems", systems, *WITH_FIGURES)
        assert done.returncode == 0, done.stderr[-2000:]
        lines = done.stdout.splitlines()
        assert len(lines) > 8 and all(line.startswith("sbatch ") and " --mem=" in line for line in lines)
        assert all(f"--output={folder}/" in line.replace("'", "") for line in lines)
        assert " assumed" not in done.stderr
        small = [line for line in lines if "/backend/" in line or "/scores" in line]
        assert small and all(int(re.search(r"--mem=(\d+)M", line)[1]) <= 1000 for line in small)  # of 96 utterances
    assert not (tmp_path / "begun/exp").exists()


@pytest.mark.long
def test_two_nodes_train_as_two_processes_do(cold, engine, finished, tmp_path):
    """Training on two Slurm nodes, connected by torchrun, is bit-identical to training on one."""
    if engine == "sge":
        pytest.skip("the tests' Grid Engine has one host")
    work, _ = finished
    data, words = work / "data/fbank80", ["--num-threads", "1", "--seed", "1"]
    for name, more in (("one", ["--cmd", "run", "--num-processes", "2"]),
                       ("two", ["--cmd", engine, "--num-nodes", "2"])):
        done = subprocess.run([ROOT / "steps/train_network.sh", *words, *more, work / "exp/xvector/system.yaml",
                               data / "train_net_sp", data / "valid", tmp_path / name],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "\n2 processes, connected by gloo, " in (tmp_path / name / "log/train.log").read_text()
    models = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert models[0] == models[1]


@pytest.mark.long
@pytest.mark.parametrize("engine", ["slurm"], indirect=True)
def test_slurm_trains_networks_side_by_side_and_knows_their_memory(engine, finished, corpus, conf, tmp_path):
    """Two of three at a time. One fails in its job; the others end well, and each job requests what was estimated."""
    work, own = copied(finished, tmp_path / "work", placed=True), shutil.copytree(conf, tmp_path / "conf")
    for name, rate in (("broken", 1e38), ("first", 1e-3), ("second", 1e-3)):
        (own / f"{name}.yaml").write_text(f"base: xvector\ntrain: {{epochs: 1}}\noptimizer: {{lr: {rate}}}\n")
    done = run(corpus, own, work, "--cmd", f"{engine} --retries 0", "--num-threads", "1", "--max-jobs-run", "2",
               "--stage", "3", "--stop-stage", "3", "--systems", "broken first second")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("error: failed: broken; the other systems ended well")
    assert "the loss at step" in (work / "exp/broken/log/train.log").read_text()
    assert all((work / f"exp/{name}/model.safetensors").is_file() for name in ("first", "second"))
    ran = {name: times(work / f"exp/{name}/log/train.log") for name in ("broken", "first", "second")}
    assert max(ran["broken"][0], ran["first"][0]) < min(ran["broken"][1], ran["first"][1])
    assert ran["second"][0] >= min(ran["broken"][1], ran["first"][1])
    known = subprocess.run(["scontrol", "show", "job", "-o"], capture_output=True, text=True, check=True).stdout
    estimated = subprocess.run(["python3", "-m", "nnet.memory", "train_network", "processes=1", "device=cpu",
                                f"config={work}/exp/first/system.yaml", f"train={work}/data/fbank80/train_net_sp",
                                f"valid={work}/data/fbank80/valid"], capture_output=True, text=True, check=True)
    for name in ran:
        job, = [line for line in known.splitlines() if f"{work}/exp/{name}/" in line]
        assert re.search(r" MinMemoryNode=(\S+) ", job)[1] == estimated.stdout.strip()


def times(log):
    """Return when a job began and ended, from its log."""
    found = re.findall(r"^# (?:Started|Ended \(code \d+\)) at \w+ (.+?\d{4})(?:,|$)", log.read_text(), re.MULTILINE)
    began, ended = (time.strptime(one, "%b %d %H:%M:%S %Y") for one in found)
    return time.mktime(began), time.mktime(ended)


@pytest.mark.long
def test_status_says_what_is_done_stale_and_to_do(finished, corpus, conf, tmp_path):
    work, _ = finished
    copy = copied(finished, tmp_path / "work")
    said = states(corpus, conf, work, *WITH_FIGURES)
    assert list(said.values()) == ["done"] * 9
    (copy / "exp/xvector/embeddings_test/.done").unlink()
    two = ("--systems", "ivector xvector", *WITH_FIGURES)
    assert states(corpus, conf, copy, *two) == {**said, 4: "partial", 6: "stale", 7: "stale", 8: "stale"}
    other = tmp_path / "conf"
    shutil.copytree(conf, other)
    config = yaml.safe_load((other / "ivector.yaml").read_text())
    config["mini"]["extractor"]["dim"] = 11
    (other / "ivector.yaml").write_text(yaml.safe_dump(config))
    assert states(corpus, other, copy, "--systems", "ivector")[2] == "stale"
    assert set(states(corpus, conf, tmp_path / "new [1](2)*\\n", *two).values()) == {"to do"}


def states(corpus, conf, work, *more):
    """Return the state that `--status` reports for each stage."""
    done = run(corpus, conf, work, "--status", *more)
    assert done.returncode == 0, done.stderr
    assert f" {work}/" not in done.stdout  # paths are those below it
    found = re.findall(r"^(done|stale|partial|to do) +stage (\d):", done.stdout, re.MULTILINE)
    return {int(stage): state for state, stage in found}


@pytest.mark.long
def test_a_second_run_is_refused(finished, corpus, conf, tmp_path):
    """While a run is active, a second one in the same folder reports it and stops; the first is not disturbed."""
    work = copied(finished, tmp_path / "work", placed=True)
    (work / "exp/ivector/.done").unlink()
    first = subprocess.Popen(command(corpus, conf, work, *TO_THE_TABLE), stderr=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL)
    while not (work / ".lock").stat().st_size:
        time.sleep(0.01)
    second = run(corpus, conf, work)
    assert second.returncode == 1
    assert f"in use by process {first.pid} on" in second.stderr
    assert first.wait(120) == 0
    assert (work / ".lock").read_text() == ""


@pytest.mark.long
def test_a_change_redoes_what_depends_on_it_and_no_more(finished, corpus, conf, tmp_path):
    """Another extractor, and another seed: rows of the other systems stay as they are, each with its origin."""
    work, copy = finished[0], copied(finished, tmp_path / "work")
    other = tmp_path / "conf"
    shutil.copytree(conf, other)
    config = yaml.safe_load((other / "ivector.yaml").read_text())
    config["mini"]["backend"] = {"plda": ["center", "lda4", "length", "plda"]}
    config["mini"]["extractor"]["dim"] = 12
    (other / "ivector.yaml").write_text(yaml.safe_dump(config))
    # A copy's tables point into the first folder: data that are not made again are read from there.
    done = run(corpus, other, copy, "--systems", "ivector xvector", "--stage", "2", "--seed", "2", "--stop-stage", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "exp/ivector" in done.stderr.split(" runs again")[0].splitlines()[-1]
    done = run(corpus, other, copy, "--systems", "ivector xvector", "--stage", "3")
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{copy}/exp/xvector: up to date" in done.stderr
    pairs = list(zip(alone(copy), alone(work), strict=True))
    assert all(now == before for now, before in pairs if now[0] != "ivector")
    assert any(now != before for now, before in pairs if now[0] == "ivector")
    made = {(row[0], *row[-3:-1]) for row in rows_of(copy)[1:]}
    assert made == {("fusion", "2+1", "mini"), ("ivector", "2", "mini"), ("vgg_mha", "1", "mini"),
                    ("xvector", "1", "mini")}
    assert "In every row: scale mini" in (copy / "exp/RESULTS.md").read_text()


def rows_of(work):
    return [line.split("\t") for line in (work / "exp/results.tsv").read_text().splitlines()]


def end(folder):
    """Kill a recipe and all its processes: jobs run in their own sessions, with the folder in their command lines."""
    processes = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    for line in processes.splitlines():
        number, _, words = line.strip().partition(" ")
        if str(folder) in words:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)


@pytest.mark.long
def test_killed_and_started_again_it_ends_with_the_same_table(finished, corpus, conf, tmp_path):
    """Killed during the features of the last set, i-vector and network training, and extraction."""
    work, systems = finished[0], ("--systems", "ivector xvector", *TO_THE_TABLE)
    for place in ("data/mfcc24/test/log/make_feats.2.log", "exp/ivector/ubm/log/train_ubm.log",
                  "exp/xvector/log/train.tsv", "exp/ivector/embeddings_test/log/extract.1.log"):
        process = subprocess.Popen(command(corpus, conf, tmp_path, *systems), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        while not (tmp_path / place).exists():
            assert process.poll() is None, f"ended before {place}"
            time.sleep(0.02)
        end(tmp_path)
        process.wait()
    done = run(corpus, conf, tmp_path, *systems)
    assert done.returncode == 0, done.stderr[-2000:]
    assert alone(tmp_path) == [row for row in alone(work) if row[0] != "vgg_mha"]


def test_bad_calls_and_bad_corpora_end_in_one_line(corpus, conf, tmp_path):
    def last(*arguments, **changes):
        done = subprocess.run(command(corpus, conf, tmp_path / "work", *arguments), capture_output=True, text=True,
                              check=False, **changes)
        assert done.returncode != 0
        return done.stderr.strip().splitlines()[-1]

    assert "no system 'yvector'" in last("--systems", "yvector")
    assert "--fuse names yvector; it is not among the systems: ivector vgg_mha" in last(
        "--systems", "ivector vgg_mha", "--fuse", "all, ivector yvector")
    assert "--fuse 'ivector': a fusion is of two systems or more, or of all" in last("--fuse", "ivector")
    assert "no corpus" in last("--voxceleb1-root", "")
    assert "does not exist" in last("--voxceleb1-root", str(tmp_path / "nowhere"))
    broken = tmp_path / "broken"
    shutil.copytree(corpus, broken)
    victim = sorted((broken / "dev").rglob("*.flac"))[3]
    victim.write_bytes(victim.read_bytes()[:3000])
    said = last("--voxceleb1-root", str(broken))
    assert victim.stem in said or victim.parent.parent.name in said
    assert not list((tmp_path / "work").rglob("feats.scp"))


@pytest.mark.long
def test_a_recipe_with_data_of_its_own_is_one_run(conf, tmp_path):
    """speechocean762 makes its data and continues with the stages of voxceleb: one lock, one summary, one status."""
    people = [(number, "train" if number < 13 else "test", "mf"[number % 2], 6 + 20 * (number % 2))
              for number in range(1, 21)]
    corpus, work = make_speechocean762(tmp_path / "speech ocean", people, 8), tmp_path / "work"
    words = ["bash", ROOT / "egs/speechocean762/run.sh", "--corpus", corpus, "--speakers", "20", "--utterances", "160",
             "--conf", conf, "--scale", "mini", "--systems", "ivector", "--valid-speakers=3", "--nj", "2", "--work",
             work]
    with (tmp_path / "said").open("w") as stream:
        first = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=stream)
    while not (work / "data/mfcc24").exists():
        assert first.poll() is None
        time.sleep(0.02)
    second = subprocess.run([*words, "--stage", "1"], capture_output=True, text=True, check=False)
    assert second.returncode == 1 and f"in use by process {first.pid} on" in second.stderr
    assert first.wait() == 0, (tmp_path / "said").read_text()[-3000:]
    said = (tmp_path / "said").read_text()
    assert re.findall(r"^== Stage (\d):", said, re.MULTILINE) == list("012345678")
    assert said.count("\ntable: ") == 1
    assert (work / ".lock").read_text() == ""
    report = (work / "exp/RESULTS.md").read_text()
    assert "egs/speechocean762/run.sh --corpus '" in report and "--valid-speakers=3" in report
    done = subprocess.run([*words, "--status"], capture_output=True, text=True, check=True)
    assert re.findall(r"^(\S+) +stage (\d):", done.stdout, re.MULTILINE) == [("done", str(n)) for n in range(9)]


@pytest.mark.long
def test_a_bundle_is_fine_tuned(finished, corpus, conf, tmp_path):
    """Without --systems, its system is: new classifier, back-end and calibration; the other systems' rows stay."""
    work, start = copied(finished, tmp_path / "work"), tmp_path / "start"
    shutil.copytree(work / "exp/xvector/bundle", start)
    words = command(corpus, conf, work, *TO_THE_TABLE, "--stage", "3")
    place = words.index("--systems")
    del words[place:place + 2]

    def tune(init):
        return subprocess.run([*words, "--init", init], capture_output=True, text=True, check=False)

    for init in (work / "exp/xvector/bundle", work / "exp/xvector"):
        done = tune(init)
        assert done.returncode == 1 and f"--init {init}: this run would write it; name another" in done.stderr
    done = tune(start)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"starting from {start}: 0 of 27 speakers known, the classifier alone for 1 epochs" in (
        work / "exp/xvector/log/train.log").read_text()
    rows, before = alone(work), alone(finished[0])
    assert [row[:3] for row in rows] == [row[:3] for row in before]
    changed = {row[0] for row, old in zip(rows, before, strict=True) if row != old}
    assert changed == {"xvector"}
    assert "up to date" in tune(start).stderr and "runs again" not in tune(start).stderr


LAUNCHER = """#!/usr/bin/env bash
# An engine's launcher: it notes how many jobs run at once, and fails those of one network, after others have begun.
echo + >> {place}/running
code=0
case "$*" in
  *exp/broken/log/train.log*)
    while [ -n "$TOGETHER" ] && [ "$(grep -c + {place}/running)" -lt 2 ]; do sleep 0.1; done
    echo "no such queue" >&2; code=1 ;;
  *) {root}/utils/run "$@" || code=$? ;;
esac
echo - >> {place}/running
exit $code
"""


@pytest.mark.long
def test_on_an_engine_networks_train_side_by_side(finished, corpus, conf, tmp_path, monkeypatch):
    """One that fails does not end the others, but those that start from its model."""
    monkeypatch.setenv("TOGETHER", "true")
    work, own = copied(finished, tmp_path / "work"), shutil.copytree(conf, tmp_path / "conf")
    for name, init in (("broken", ""), ("second", ""), ("tuned", "second"), ("late", "broken")):
        (own / f"{name}.yaml").write_text(f"base: xvector\n{init and f'init: {{model: {init}}}'}\n")
    (tmp_path / "engine").write_text(LAUNCHER.format(place=tmp_path, root=ROOT))
    (tmp_path / "engine").chmod(0o755)
    words = (corpus, own, work, "--cmd", str(tmp_path / "engine"), "--num-threads", "1", "--stage", "3",
             "--stop-stage", "3", "--systems", "tuned broken late second")
    done = run(*words)
    assert done.returncode == 1
    assert "error: failed: late broken; the other systems ended well" in done.stderr
    assert (work / "exp/tuned/model.safetensors").is_file() and (work / "exp/second/model.safetensors").is_file()
    assert re.search(rf"\.\.\. train_network {work}/exp/second \d+ s: epoch 2", done.stderr)
    assert not (work / "exp/late").joinpath("model.safetensors").exists()
    assert most_at_once(tmp_path / "running") == 2
    monkeypatch.setenv("TOGETHER", "")
    done = run(*words, "--max-jobs-run", "1", "--seed", "2", "--systems", "broken second")
    assert done.returncode == 1 and most_at_once(tmp_path / "running") == 1


@pytest.mark.long
@pytest.mark.parametrize(("cmd", "given", "jobs"),
                         [("engine", [], 4), ("engine", ["--gpu-nj", "2"], 2), ("run", [], 3)])
def test_a_recipe_extracts_with_as_many_jobs_as_gpus(finished, corpus, conf, tmp_path, monkeypatch, cmd, given, jobs):
    """Three made-up GPUs on this machine, or an engine's; not as many jobs as for other steps (--nj)."""
    work = copied(finished, tmp_path / "work")
    (work / "exp/xvector/embeddings_train/.done").unlink()
    (tmp_path / "engine").write_text(f'#!/usr/bin/env bash\necho "$*" > {tmp_path}/asked; exit 1\n')
    (tmp_path / "engine").chmod(0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,8,9")
    done = run(corpus, conf, work, "--systems", "xvector", "--stage", "4", "--nj", "40", "--device", "cuda", *given,
               "--cmd", str(tmp_path / cmd) if cmd == "engine" else cmd)
    assert done.returncode == 1  # there is no such GPU
    logs = len(list((work / "exp/xvector/embeddings_train/log").glob("extract.*.log")))
    asked = (tmp_path / "asked").read_text() if cmd == "engine" else f"--gpu 1 JOB=1:{logs} "
    assert re.match(rf"(--mem \d+M )?--gpu 1 JOB=1:{jobs} ", asked)


def most_at_once(path):
    """Return the largest number of jobs that ran at a time, from their signs, and forget them."""
    running = most = 0
    for sign in path.read_text().split():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    path.unlink()
    return most
