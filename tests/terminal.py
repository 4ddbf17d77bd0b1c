"""A pseudo-terminal, for tests of the display."""

import fcntl
import os
import pty
import struct
import subprocess
import termios


def terminal(words, folder, columns=80, **options):
    """Run a command in a folder with its standard error on a terminal; return exit code and the terminal's input."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writer,
                               **options)
    os.close(writer)
    said = b""
    with open(reader, "rb", buffering=0) as stream:
        while True:
            try:
                more = stream.read(1 << 16)
            except OSError:  # Linux: no process has it open any more
                break
            if not more:
                break
            said += more
    return process.wait(), said.decode()


def drawn(said):
    """Return every line that a terminal showed, including overwritten ones."""
    return [line for line in said.replace("\x1b[K", "").replace("\r", "\n").split("\n") if line]
