"""Stands for python3 in tests that run in parallel: has programs run by tests/warm/server.py, which has imported torch.

Served are the programs that need not know their own process or inherit descriptors: not the lock, not the launchers.
All other calls, and all calls where VOX_COLD is set, replace this process by the interpreter. A program that is served
gets this process's arguments, environment, folder, umask, limits, niceness, ignored signals and standard streams.
Signals are passed on; if this process ends, so does the program. Two things differ: it is a session of its own, and it
does not inherit the lock of a recipe.
"""

import os
import sys

SERVED = ("steps.", "nnet.", "local.", "utils.kaldi.", "utils.config", "utils.jobs.done", "utils.jobs.memory")


def main() -> None:
    words = sys.argv[1:]
    is_ours = len(words) > 1 and words[0] == "-m" and words[1].startswith(SERVED)
    if is_ours and "VOX_COLD" not in os.environ:
        import socket  # as the imports below: half of the time of a call that is not served

        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(os.environ["VOX_WARM"])
            except OSError:  # not yet there, or ended
                pass
            else:
                sys.exit(run(connection, words[1:]))
    python = os.environ["VOX_WARM_PYTHON"]
    os.execv(python, [python, *words])


def run(connection, words: list[str]) -> int:
    """Return the exit code of a program. A signal that ended it ends this process, too."""
    import array
    import json
    import resource
    import select
    import signal
    import socket

    passed_on = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    limits = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
    ignored = [number for number in passed_on if signal.getsignal(number) == signal.SIG_IGN]
    umask = os.umask(0)
    os.umask(umask)
    call = json.dumps({"words": words, "folder": os.getcwd(), "environment": dict(os.environ), "umask": umask,
                       "niceness": os.nice(0), "ignored": ignored,
                       "limits": [(number, *resource.getrlimit(number)) for number in limits]}).encode()
    connection.sendmsg([len(call).to_bytes(8, "big")],
                       [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    connection.sendall(call)
    # The interpreter itself writes the number of a signal there, also one that comes just before this process waits.
    connection.setblocking(False)
    signal.set_wakeup_fd(connection.fileno())
    for number in passed_on:
        if number not in ignored:
            signal.signal(number, lambda *_: None)
    answer = b""
    while len(answer) < 2 and select.select([connection], [], []) and (part := connection.recv(2 - len(answer))):
        answer += part
    if len(answer) < 2:
        sys.exit("tests/warm/client.py: error: the server ended before the program")
    code = int.from_bytes(answer, "big", signed=True)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has left one
        if -code != signal.SIGKILL:  # which takes no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


main()
