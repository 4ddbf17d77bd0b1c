"""The server of utils/demo in a thread of the test, with its temporary files in a folder of their own."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from steps.use.answers import Answers
from steps.use.demo import listen_at
from steps.use.server import make_server


@contextlib.contextmanager
def serving(bundle: Path, store: Path) -> Iterator[int]:
    """Serve the page of a bundle on this machine; gives the port."""
    server = make_server(Answers(bundle, "cpu", "", store), "127.0.0.1")
    with listen_at("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()
