"""The server of utils/demo: hostile uploads and requests, limits, and that it keeps no recording."""

import contextlib
import http.client
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nnet.embed import load
from tests.in_process import call
from tests.unit.made_up import RATE
from tests.unit.made_up_systems import write_calibrated, write_untrained
from utils.errors import InputError

pytest.importorskip("uvicorn", reason="python3 -m pip install -r utils/requirements_demo.txt")
from steps.use import answers, demo, server
from tests.serving import serving

ROOT = Path(__file__).resolve().parents[2]
AUDIO = {"content-type": "application/octet-stream"}


def sound(seconds=4.0, seed=0):
    rng = np.random.default_rng(seed)
    samples = np.convolve(rng.normal(size=round(seconds * RATE)), rng.normal(size=8), "same")
    return 0.05 * samples * (0.1 + (np.sin(np.arange(len(samples)) / RATE * 20) > 0))


def wav(samples, **options):
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format="WAV", **options)
    return stream.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, beside the only folder for temporary files."""
    folder = tmp_path_factory.mktemp("demo")
    write_calibrated(folder / "model", pooling={"type": "multi_head", "heads": 4})
    (folder / "temporary").mkdir()
    return folder


@pytest.fixture(scope="module")
def port(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder / "temporary"))
        patch.setattr(server, "PER_MINUTE", 10**6)
        with serving(folder / "model", folder / "store") as port:
            yield port


@pytest.fixture(autouse=True)
def nothing_is_kept(folder):
    """After each test: no temporary file, and in the store nothing but speakers."""
    yield
    assert list((folder / "temporary").iterdir()) == []
    assert all(path.name == ".lock" or path.suffix == ".json" for path in (folder / "store").glob("*"))
    assert {path.name for path in folder.iterdir()} <= {"model", "temporary", "store"}


def ask(port, path, body=None, headers=AUDIO, method="POST"):
    """Return status, JSON and headers of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        is_json = answer.headers["content-type"] == "application/json"
        return answer.status, json.loads(content) if is_json else content.decode(), answer.headers


def ask_json(port, path, **body):
    return ask(port, path, json.dumps(body), {"content-type": "application/json"})[:2]


def raw(port, *parts):
    """Send bytes as they are, and return what comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        with contextlib.suppress(ConnectionError):  # the server may have answered already
            for part in parts:
                connection.sendall(part)
        found = b""
        while part := connection.recv(1 << 16):
            found += part
        return found.decode()


def lives(port):
    status, found, _ = ask(port, "/listen", wav(sound()))
    return status == 200 and len(found["embedding"]) == 12


def with_length(samples, length):
    """A WAV file whose header claims this many bytes of samples."""
    content = wav(samples)
    place = content.index(b"data") + 4
    return content[:4] + struct.pack("<I", length) + content[8:place] + struct.pack("<I", length) + content[place + 4:]


def zipped():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.wav", wav(sound()))
    return stream.getvalue()


def long_flac():
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(3600 * RATE, np.int16), RATE, format="FLAC")
    return stream.getvalue()


HOSTILE = {
    "empty": (lambda: b"", "empty, 0 bytes"),
    "html": (lambda: b"<!doctype html><script>alert(1)</script>", "damaged, or not audio that can be read"),
    "zip": (zipped, "damaged, or not audio that can be read"),
    "a playlist": (lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "damaged, or not audio that can be read"),
    "a header of 4 GB without sound": (lambda: with_length(sound(), 2**32 - 1)[:44], "holds no samples"),
    "a header of 2 GB": (lambda: with_length(sound(), 2**31 - 2**20), "truncated after 4.00 s"),
    "nan": (lambda: wav(np.where(np.arange(RATE) == 7, np.nan, sound(1)), subtype="FLOAT"), "NaN or infinite samples"),
    "huge values": (lambda: wav(1e30 * sound(1), subtype="FLOAT"), "where 1 is full scale"),
    "a tenth of a second": (lambda: wav(sound()[2400:4000]), "s of sound; wanted at least 0.5 s"),
    "silence": (lambda: wav(np.zeros(RATE)), "digital silence; it cannot identify a speaker"),
    "an hour": (long_flac, "longer than 60 s; cut it"),
    "a cut mp4": (lambda: b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42isom" + bytes(500), "damaged or truncated"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_uploads_get_one_clear_line(port, kind):
    make, message = HOSTILE[kind]
    status, found, _ = ask(port, "/listen", make())
    assert status == 400 and set(found) == {"error"}
    assert message in found["error"] and "\n" not in found["error"] and "wav.scp" not in found["error"], found
    assert len(found["error"]) < 250
    assert lives(port)


def test_a_stream_of_unknown_length_is_a_recording(port):
    """As pipes write WAV: the header claims 4 GB."""
    status, found, _ = ask(port, "/listen", with_length(sound(), 2**32 - 1))
    assert status == 200 and found["seconds"] == 4.0


def test_too_large_bodies_are_refused_before_they_arrive(port):
    head = f"POST /listen HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/octet-stream\r\n"
    for length in (2**32, 10**15):
        found = raw(port, f"{head}Content-Length: {length}\r\n\r\n".encode())
        assert " 413 " in found and "more than 32 MB; send a shorter recording" in found, found
    parts = [b"100000\r\n" + bytes(1 << 20) + b"\r\n"] * 40  # without a length, as long as it is read
    found = raw(port, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), *parts)
    assert found == "" or " 413 " in found
    assert " 400 " in raw(port, head.encode() + b"Content-Length: -5\r\n\r\n")
    assert " 400 " in raw(port, b"\x16\x03\x01\r\n\r\n")
    assert lives(port)


def test_a_slow_or_broken_request_is_given_up(port, monkeypatch):
    monkeypatch.setattr(server, "BODY_SECONDS", 0.2)
    head = f"POST /listen HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/octet-stream\r\n"
    found = raw(port, f"{head}Content-Length: 1000\r\n\r\nabc".encode())
    assert " 408 " in found and "took longer than 0.2 s to arrive" in found
    monkeypatch.undo()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\nabc".encode())
    assert lives(port)


def test_names_of_hosts_and_pages_of_other_sites_are_refused(port):
    """DNS rebinding gives a page of another site this address under that site's name."""
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "localhost.evil.example:80"):
        for method, path in (("GET", "/"), ("GET", "/about"), ("POST", "/listen")):
            status, found, _ = ask(port, path, wav(sound(1)), AUDIO | {"host": host}, method)
            assert status == 403 and "is not served" in found["error"]
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}", "192.168.1.7"):
        assert ask(port, "/about", None, {"host": host}, "GET")[0] == 200
    ours = f"http://127.0.0.1:{port}"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{port + 1}", f"{ours}.evil.example"):
        status, found, _ = ask(port, "/listen", wav(sound(1)), AUDIO | {"origin": origin})
        assert status == 403 and found["error"] == "a request from the page of another site"
    assert ask(port, "/listen", wav(sound(1)), AUDIO | {"origin": ours})[0] == 200
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", ""):
        status, found, _ = ask(port, "/listen", wav(sound(1)), {"content-type": kind})
        assert status == 415, kind  # what a form of another site can send
    asked_first = ask(port, "/listen", None, {"origin": "http://evil.example"}, "OPTIONS")
    assert asked_first[0] == 403 and "access-control-allow-origin" not in asked_first[2]


def test_only_the_page_and_its_files_are_served_with_a_strict_policy(port):
    for path, file in server.FILES.items():
        status, found, headers = ask(port, path, None, {}, "GET")
        assert status == 200 and found == (server.PAGE / file).read_text()
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
    for path in ("/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/demo.py", "/page/demo.html", "//etc/passwd"):
        assert ask(port, path, None, {}, "GET")[0] in (403, 404), path
    assert ask(port, "/listen", None, {}, "GET")[0] == 405
    text = "".join((server.PAGE / file).read_text() for file in server.FILES.values())
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|\son\w+=|style=|javascript:|innerHTML|eval\(", text)


def test_a_recording_is_embedded_as_from_a_file(port, folder, tmp_path):
    content = wav(sound())
    (tmp_path / "a.wav").write_bytes(content)
    status, found, _ = ask(port, "/listen", content)
    assert status == 200
    np.testing.assert_allclose(found["embedding"], load(folder / "model").embed(str(tmp_path / "a.wav")), atol=1e-6)
    attention = found["attention"]
    assert attention["heads"] == 4 and len(attention["each"]) == 4
    assert len(attention["mean"]) == found["spectrogram"]["columns"] == 400
    assert np.mean(attention["mean"]) == pytest.approx(1, abs=0.02)
    assert found["remarks"] == []


def test_enrol_and_identify_refuse_paths_as_names_and_what_is_no_embedding(port, folder):
    embedding = ask(port, "/listen", wav(sound()))[1]["embedding"]
    recordings = [{"embedding": embedding, "sound": 3.0}]
    assert ask_json(port, "/identify", embedding=embedding, prior=0.5)[0] == 400  # nobody is enrolled
    for name in ("../../x", "/etc/passwd", "a/b", "..", "", "a\0b", "x" * 300, "-x", None, 7):
        status, found = ask_json(port, "/enrol", name=name, replace=False, recordings=recordings)
        assert status == 400 and ("the name" in found["error"] or "wanted a name" in found["error"]), name
    for wrong in (None, [], [1.0], [float("nan")] * 12, ["x"] * 12, [[1.0] * 12], [10**400] * 12,
                  [0.0] * 12, [1e30] * 12, {"a": 1}):
        enrolled = [{"embedding": wrong, "sound": 1}]
        for path, body in (("/enrol", {"name": "x", "replace": False, "recordings": enrolled}),
                           ("/verify", {"first": wrong, "second": embedding}),
                           ("/identify", {"embedding": wrong, "prior": 0.5})):
            status, found = ask_json(port, path, **body)
            assert status == 400 and "an embedding" in found["error"], (path, found)
    for wrong in ([], {}, [1], [{"embedding": embedding}], recordings * 101):
        assert ask_json(port, "/enrol", name="x", replace=False, recordings=wrong)[0] == 400
    assert not list((folder / "store").glob("*.json"))
    assert ask_json(port, "/enrol", name="Ada L.", replace=False, recordings=recordings) == (
        200, {"name": "Ada L.", "speakers": ["Ada L."]})
    status, found = ask_json(port, "/enrol", name="Ada L.", replace=False, recordings=recordings)
    assert status == 400 and found["error"] == "Ada L. is enrolled already; use another name, or choose to replace"
    assert ask_json(port, "/enrol", name="Ada L.", replace=True, recordings=recordings)[0] == 200
    assert ask(port, "/about", None, {}, "GET")[1]["speakers"] == ["Ada L."]
    status, found = ask_json(port, "/identify", embedding=embedding, prior=0.5)
    assert (status, found["answer"], found["known"]) == (200, "Ada L.", True)
    assert found["speakers"][0]["score"] == pytest.approx(1, abs=1e-5)
    assert found["probability"] == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-3)  # 20 * 1 - 19
    for prior in (0, 1, "x", None, True, float("nan")):
        assert ask_json(port, "/identify", embedding=embedding, prior=prior)[0] == 400
    assert ask_json(port, "/identify", embedding=[-x for x in embedding], prior=0.5)[1]["answer"] == "unknown"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"first": [1]}'])
def test_questions_that_are_no_questions_are_refused(port, body):
    status, found, _ = ask(port, "/verify", body, {"content-type": "application/json"})
    assert status == 400 and "\n" not in found["error"]


def test_the_rate_and_the_number_of_requests_are_limited(port, monkeypatch):
    limits = server.Limits()
    monkeypatch.setattr(server, "PER_MINUTE", 3)
    limits.times = type(limits.times)(maxlen=3)
    for _ in range(3):
        with limits:
            pass
    with pytest.raises(server.HTTPException) as error, limits:
        pass
    assert error.value.status_code == 429 and "more than 3 requests per minute" in error.value.detail
    now = time.monotonic()
    monkeypatch.setattr(server, "time", types.SimpleNamespace(monotonic=lambda: now + 61))  # not the server's loop's
    with limits:
        pass
    monkeypatch.setattr(server, "WAITING", 0)
    status, found, _ = ask(port, "/listen", wav(sound(1)))
    assert status == 429 and "0 at once" in found["error"]


def test_a_failure_of_the_server_is_said_and_it_lives_on(port, monkeypatch, capfd):
    monkeypatch.setattr(answers, "judge", lambda *_: 1 / 0)
    status, found, _ = ask(port, "/listen", wav(sound(1)))
    assert status == 500 and found["error"] == "the server failed at this; its terminal says why"
    assert capfd.readouterr().err == "utils/demo: error: /listen: ZeroDivisionError('division by zero')\n"
    monkeypatch.undo()
    assert lives(port)


def test_models_without_attention_or_calibration_answer_with_less(folder, tmp_path):
    exp = write_calibrated(tmp_path / "model")
    (exp / "calibration.json").unlink()
    of = answers.Answers(exp, "cpu", "", tmp_path / "store")
    found = of.listen(wav(sound()))
    assert found["attention"] is None
    assert of.verify(found["embedding"], found["embedding"]) == {"score": pytest.approx(1), "ratio": None}
    about = of.about()
    assert about["calibration"] is None and about["histogram"] is None
    of.enrol("ada", False, [{"embedding": found["embedding"], "sound": 3.0}])
    with pytest.raises(InputError, match="the chain cosine is not calibrated"):
        of.identify(found["embedding"], 0.5)


def test_the_command_serves_until_it_is_interrupted(folder):
    """As a user types it: on the loopback address alone."""
    process = subprocess.Popen(
        [ROOT / "utils/demo", "--port", "0", "--store", folder / "store", folder / "model"], stderr=subprocess.PIPE,
        text=True, env={**{key: value for key, value in os.environ.items() if not key.startswith("VOX_READY")},
                        "VOX_VENV": sys.prefix})
    try:
        line = process.stderr.readline()
        port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ compares recordings with .*; Ctrl-C ends it\n", line)[1])
        assert lives(port)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()


@pytest.mark.parametrize(("words", "message"), [
    (["--port", "99999"], "--port is '99999', wanted a whole number from 0 (any free port) to 65535"),
    (["--host", "no.such.host.invalid"], "cannot listen at no.such.host.invalid, port 8000: "),
    (["--host", "198.51.100.7"], "cannot listen at 198.51.100.7, port 8000: "),
    (["--chain", "lda"], "no chain 'lda'; available: cosine")])
def test_bad_options_end_in_one_line(folder, words, message):
    done = call("steps.use.demo", *words, folder / "model")
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_without_the_packages_the_message_says_how_to_install_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NEEDED", ("numpy", "no_such_server"))
    done = call("steps.use.demo", folder / "model")
    assert done.returncode == 1
    assert done.stderr.endswith("error: no_such_server not installed; install what the page needs: python3 -m pip "
                                "install -r utils/requirements_demo.txt\n")
    monkeypatch.undo()
    done = call("steps.use.demo", write_untrained(tmp_path / "bare"))
    assert done.returncode == 1 and "bare has no back-end; train one" in done.stderr
