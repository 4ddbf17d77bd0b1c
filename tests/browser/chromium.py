"""A headless Chromium with one page, driven through its DevTools protocol over a pipe, without any other program."""

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


def find_chromium() -> str:
    """Return the command of a Chromium; skips the test, with the reason, if there is none."""
    done = subprocess.run([ROOT / "tests/browser/find_chromium.sh"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(done.stderr.strip()[-300:])
    return done.stdout.strip()


class Browser:
    """Context manager: `with Browser(command, profile) as browser`. events: what the page reported, oldest first.

    options: more of Chromium's options.
    """

    def __init__(self, command: str, profile: Path, *options: str) -> None:
        (theirs, self.out), (self.back, answers) = os.pipe(), os.pipe()
        words = [command, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                 "--no-first-run", f"--user-data-dir={profile}", "--remote-debugging-pipe", *options]
        # Chromium reads commands from descriptor 3 and writes answers to 4.
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{answers}', "bash", *words],
                                        pass_fds=(theirs, answers), stderr=subprocess.DEVNULL)
        os.close(theirs)
        os.close(answers)
        self.buffer, self.number, self.session, self.events = b"", 0, "", []

    def __enter__(self) -> "Browser":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.back)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that arrive before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def read(self) -> dict[str, Any]:
        """Return the next message."""
        while b"\0" not in self.buffer:
            part = os.read(self.back, 1 << 16)
            assert part, "the browser ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, address: str) -> None:
        """Open a page and wait until all of it is loaded."""
        self.call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())

    def wait_for(self, program: str, seconds: float = 20.0) -> Any:
        """Return the value of a JavaScript expression once it is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(program)):
            assert time.monotonic() < end, f"{program} stayed {found!r}"
            time.sleep(0.05)
        return found

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key and let it go: DOM's name, its code, and what it types."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code,
                      **({"text": text} if text and kind == "keyDown" else {}))

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files in a file input."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", objectId=found["result"]["objectId"], files=[str(file) for file in files])

    def run(self, program: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=program, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        """Show the page as on a screen of this size, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)

    def prefer(self, scheme: str) -> None:
        """Set the reader's preference: light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, whole: bool = False) -> bytes:
        """Return a PNG of the screen, or of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def printed(self) -> bytes:
        """Return the page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True)["data"])
