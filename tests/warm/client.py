"""Stands for python3 in tests that run in parallel: has programs run by tests/warm/server.py, which has imported torch.

Only the programs of steps/ and nnet/ are; all other calls, and all calls where VOX_COLD is set, replace this process by
the interpreter. The program gets this process's arguments, environment, folder and standard streams. Signals are passed
on; if this process ends, so does the program.
"""

import array
import json
import os
import signal
import socket
import sys

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    words = sys.argv[1:]
    is_ours = len(words) > 1 and words[0] == "-m" and words[1].startswith(("steps.", "nnet."))
    if is_ours and "VOX_COLD" not in os.environ:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(os.environ["VOX_WARM"])
            except OSError:  # not yet there, or ended
                pass
            else:
                sys.exit(run(connection, words[1:]))
    python = os.environ["VOX_WARM_PYTHON"]
    os.execv(python, [python, *words])


def run(connection: socket.socket, words: list[str]) -> int:
    """Return the exit code of a program. A signal that ended it ends this process, too."""
    for number in PASSED_ON:
        signal.signal(number, lambda number, _frame: connection.sendall(bytes([number])))
    umask = os.umask(0)
    os.umask(umask)
    call = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ), "umask": umask}).encode()
    connection.sendmsg([len(call).to_bytes(8, "big")],
                       [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    connection.sendall(call)
    answer = connection.recv(2, socket.MSG_WAITALL)
    if len(answer) < 2:
        sys.exit("tests/warm/client.py: error: the server ended before the program")
    code = int.from_bytes(answer, "big", signed=True)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


main()
