"""Runs programs for tests/warm/client.py, each in a process forked from this one, which has imported torch and others.

A program's own modules are imported anew in its process, from its own PYTHONPATH; those of other packages are shared.
Usage: server.py SOCKET; it ends with its standard input.
"""

import array
import atexit
import contextlib
import json
import os
import resource
import runpy
import select
import signal
import socket
import sys
import traceback
from typing import Any

import kaldi_native_fbank  # noqa: F401
import kaldiio  # noqa: F401
import safetensors.torch  # noqa: F401
import scipy.linalg
import scipy.signal  # noqa: F401  (half a second, and more the next two)
import scipy.special  # noqa: F401
import soundfile  # noqa: F401
import torch
import torch.utils.tensorboard  # noqa: F401
import yaml  # noqa: F401


def serve(listener: socket.socket) -> None:
    """Answer calls until standard input ends."""
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
            os._exit(0)
        connection.close()


def answer(connection: socket.socket) -> None:
    """Run one program, pass the client's signals on to it, and send its exit code."""
    streams = array.array("i")
    size, ancillary, _, _ = connection.recvmsg(8, socket.CMSG_SPACE(3 * streams.itemsize))
    for _, _, data in ancillary:
        streams.frombytes(data)
    left, call = int.from_bytes(size, "big"), b""
    while len(call) < left:
        call += connection.recv(left - len(call))
    program = os.fork()
    if program == 0:
        connection.close()
        run(streams, **json.loads(call))
    for stream in streams:
        os.close(stream)
    over = os.pidfd_open(program)
    while over not in select.select([connection, over], [], [])[0]:
        numbers = connection.recv(16)
        for number in numbers or [signal.SIGKILL]:  # none: the client has ended
            os.kill(program, number)
        if not numbers:
            break
    _, status = os.waitpid(program, 0)
    with contextlib.suppress(OSError):
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(2, "big", signed=True))


def run(streams: array.array, words: list[str], environment: dict[str, str], **surroundings: Any) -> None:
    """Become the program: `python3 -m words`, with its standard streams."""
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    shared = os.environ["PYTHONPATH"].split(":")
    settle(**surroundings)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [*environment["PYTHONPATH"].split(":"), *(path for path in sys.path if path not in shared)]
    sys.argv[:] = words
    torch.set_num_threads(int(environment.get("OMP_NUM_THREADS", torch.get_num_threads())))
    code = 0
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def settle(folder: str, umask: int, niceness: int, ignored: list[int], limits: list[tuple[int, int, int]]) -> None:
    """Take over what a process inherits."""
    os.chdir(folder)
    os.umask(umask)
    os.nice(niceness - os.nice(0))
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    for number, soft, hard in limits:
        resource.setrlimit(number, (soft, hard))


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(sys.argv[1])
        waiting.listen(64)
        serve(waiting)
