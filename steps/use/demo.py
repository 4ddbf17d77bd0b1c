"""Serve a page that compares two recordings, and enrols and identifies speakers, with the model of a bundle.

Recordings come from the microphone or from files. The page shows the score among those of the held-out training
speakers, the decision, and the attention weights over both spectrograms. Recordings are held in memory, and forgotten
once they are answered; an enrolled speaker's embeddings are kept, as utils/enrol keeps them.
Only programs of this machine reach the page, unless --host names another address; there is no password. Browsers lend a
page the microphone only on this machine (localhost, 127.0.0.1) or over https.
e.g.: utils/demo xvector_bundle
"""

import argparse
import importlib.util
import ipaddress
import socket
import sys
from pathlib import Path

from steps.use.answers import Answers
from steps.use.listen import add_common
from utils.errors import InputError, run_main

NEEDED = ("starlette", "uvicorn")
REQUIREMENTS = "utils/requirements_demo.txt"


def require_packages() -> None:
    """Raise InputError unless the packages of the server are installed: the rest of the repository does without."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"{', '.join(missing)} not installed; install what the page needs: python3 -m pip install -r "
                         f"{REQUIREMENTS}")


def port_of(text: str) -> int:
    """Read the value of --port; raises InputError unless it is a port."""
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 16):
        raise InputError(f"--port is {text!r}, wanted a whole number from 0 (any free port) to 65535")
    return int(text)


def listen_at(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises InputError if it cannot."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        raise InputError(f"cannot listen at {host}, port {port}: {getattr(error, 'strerror', error)}; choose another "
                         "--host or --port") from error


def main() -> None:
    parser = argparse.ArgumentParser(prog="utils/demo", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address or name to listen at (default: %(default)s)")
    parser.add_argument("--port", type=port_of, default=8000, help="0: any free port (default: %(default)s)")
    parser.add_argument("--store", type=Path, help="folder of the speakers (default: <bundle>.speakers)")
    parser.add_argument("--chain", default="", help="name of a back-end (default: the best calibrated one)")
    add_common(parser)
    arguments = parser.parse_args()
    require_packages()
    from steps.use.server import make_server  # which imports extras

    answers = Answers(arguments.bundle, arguments.device, arguments.chain, arguments.store)
    with listen_at(arguments.host, arguments.port) as listening:
        address, port = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        print(f"http://{shown}:{port}/ compares recordings with {arguments.bundle}; Ctrl-C ends it", file=sys.stderr)
        if not ipaddress.ip_address(address).is_loopback:
            print("warning: other machines can reach this page, without a password or encryption", file=sys.stderr)
        try:
            make_server(answers, arguments.host).run(sockets=[listening])
        except KeyboardInterrupt:  # the usual end
            return


if __name__ == "__main__":
    run_main(main)
