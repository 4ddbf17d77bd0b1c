"""The process that serves tests' programs (tests/warm/): a program cannot tell it from an interpreter of its own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT

PROBE = """
import json, os, resource, signal, sys
said = {"words": sys.argv[1:], "folder": os.getcwd(), "umask": os.umask(0), "niceness": os.nice(0),
        "environment": {key: value for key, value in os.environ.items() if key != "VOX_COLD"},
        "limits": [resource.getrlimit(number) for number in range(16)],
        "ignored": [number for number in (1, 2, 10, 12, 15) if signal.getsignal(number) == signal.SIG_IGN],
        "read": sys.stdin.read()}
print(json.dumps(said, sort_keys=True))
print("aside", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Environment of calls of `python3`, whose programs are those in a folder of their own, and that folder."""
    folder = tmp_path_factory.mktemp("warm")
    python = folder / "python3"
    python.write_text(f"#!{sys.executable} -ISE\n{(ROOT / 'tests/warm/client.py').read_text()}")
    python.chmod(0o755)
    (folder / "steps").mkdir()
    environment = os.environ | {"VOX_WARM": str(folder / "socket"), "VOX_WARM_PYTHON": sys.executable,
                                "PYTHONPATH": str(folder), "PATH": f"{folder}:{os.environ['PATH']}"}
    with subprocess.Popen([sys.executable, ROOT / "tests/warm/server.py", folder / "socket"], stdin=subprocess.PIPE,
                          env=environment | {"PYTHONPATH": str(ROOT)}) as server:
        while not (folder / "socket").exists():
            assert server.poll() is None
            time.sleep(0.05)
        yield environment, folder
        server.stdin.close()


def write(folder, name, text):
    (folder / f"steps/{name}.py").write_text(text)
    return f"steps.{name}"


def shell(environment, commands, **more):
    return subprocess.run(["bash", "-c", commands], env=environment | more, capture_output=True, text=True, check=False,
                          input="given", timeout=60)


def test_a_program_inherits_what_its_caller_has(served):
    environment, folder = served
    module = write(folder, "probe", PROBE)
    commands = (f"trap '' HUP; cd /usr; umask 027; ulimit -Sn 100; ulimit -Sv 90000000; ulimit -c 0; export A=\"b c\"; "
                f"nice -n 3 python3 -m {module} 'x y' --z ''")
    warm, cold = shell(environment, commands), shell(environment, commands, VOX_COLD="true")
    assert warm.returncode == 0, warm.stderr
    assert (warm.stdout, warm.stderr) == (cold.stdout, cold.stderr)
    for part in ('"umask": 23', '"ignored": [1', '"read": "given"', '[100, ', '"folder": "/usr"', '"A": "b c"'):
        assert part in warm.stdout


@pytest.mark.parametrize(("line", "code"), [
    ("sys.exit(3)", 3), ("sys.exit('why')", 1), ("sys.exit()", 0), ("raise ValueError('why')", 1), ("os._exit(7)", 7),
    *((f"os.kill(os.getpid(), {number})", 128 + number)
      for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV))])
def test_its_end_is_its_callers(served, line, code):
    environment, folder = served
    # A name of its own: Python takes the compiled form of a file of the same size and second for its own.
    module = write(folder, f"ends_{code}_{len(line)}", f"import os, sys\nprint('begun', flush=True)\n{line}\n")
    for more in ({}, {"VOX_COLD": "true"}):
        done = shell(environment, f"python3 -m {module} < /dev/null; echo $?", **more)
        assert done.stdout == f"begun\n{code}\n"
        assert ("why" in done.stderr) == ("why" in line)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_signal_to_the_caller_ends_the_program(served, number, tmp_path):
    """A program that catches it may say so first."""
    environment, folder = served
    module = write(folder, "waits", "import os, signal, sys, time\n"
                   "signal.signal(signal.SIGTERM, lambda *_: (print('caught', flush=True), sys.exit(9)))\n"
                   "print(os.getpid(), flush=True)\nwhile True:\n    time.sleep(0.05)\n")
    process = subprocess.Popen(["python3", "-m", module], env=environment, stdout=subprocess.PIPE, text=True,
                               executable=folder / "python3")
    program = int(process.stdout.readline())
    assert program != process.pid
    process.send_signal(number)
    assert process.wait(20) == (9 if number == signal.SIGTERM else -number)
    assert process.stdout.read() == "caught\n" * (number == signal.SIGTERM)  # and the stream is at its end
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{program}"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
