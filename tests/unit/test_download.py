"""Downloads from a local server that misbehaves: broken connections, cut archives, redirects, no ranges, no answer."""

import hashlib
import io
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from utils.download import check_archive, download, unpack
from utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def make_archive(members):
    """A .tar.gz of {name: bytes}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()


CONTENT = np.random.default_rng(0).bytes(300_000)  # does not compress
ARCHIVE = make_archive({"corpus/wav.scp": b"a b\n", "corpus/WAVE/a.WAV": CONTENT})


class Handler(BaseHTTPRequestHandler):
    """The path's name selects the behaviour; every request is recorded."""

    def do_GET(self):  # noqa: N802  (the base class's name)
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.server.requests.append((self.path, start))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/broken")
            self.end_headers()
        elif self.path in ("/none", "/busy"):
            self.send_error(404 if self.path == "/none" else 503)
        else:
            self.serve(start)

    def serve(self, start):
        body = ARCHIVE[:-1000] if self.path == "/cut" else ARCHIVE
        if self.path == "/damaged":
            body = body[:5000] + bytes([body[5000] ^ 1]) + body[5001:]
        if self.path == "/whole-only":
            start = 0
        if start >= len(body) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if self.path == "/other-range" else start
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if self.path.startswith("/length="):
            self.send_header("Content-Length", self.path.removeprefix("/length="))
        elif self.path != "/silent-length":
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        piece = body[start:]
        if self.path in ("/broken", "/whole-only", "/other-range") and self.server.breaks:
            self.server.breaks -= 1
            piece = piece[:70_000]
        self.wfile.write(piece)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests, running.breaks = [], 3
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


def address(server, path):
    return f"http://127.0.0.1:{server.server_port}/{path}"


def test_a_broken_connection_goes_on_where_it_was(server, tmp_path):
    download([address(server, "broken")], tmp_path / "x.tar.gz", pause=0)
    assert (tmp_path / "x.tar.gz").read_bytes() == ARCHIVE
    assert server.requests == [("/broken", 70_000 * k) for k in range(4)]
    assert [path.name for path in tmp_path.iterdir()] == ["x.tar.gz"]


def test_redirects_are_followed_also_when_resuming(server, tmp_path):
    download([address(server, "moved")], tmp_path / "x.tar.gz", pause=0)
    assert (tmp_path / "x.tar.gz").read_bytes() == ARCHIVE
    assert server.requests.count(("/moved", 70_000)) == 1 and ("/broken", 210_000) in server.requests


def test_a_run_that_was_killed_is_gone_on_from(server, tmp_path):
    (tmp_path / "x.tar.gz.part").write_bytes(ARCHIVE[:123_456])
    server.breaks = 0
    download([address(server, "broken")], tmp_path / "x.tar.gz", pause=0)
    assert server.requests == [("/broken", 123_456)]
    assert (tmp_path / "x.tar.gz").read_bytes() == ARCHIVE


def test_killed_after_the_last_byte_nothing_is_fetched_again(server, tmp_path):
    (tmp_path / "x.tar.gz.part").write_bytes(ARCHIVE)
    download([address(server, "broken")], tmp_path / "x.tar.gz", pause=0)
    assert server.requests == [("/broken", len(ARCHIVE))]


def test_more_than_there_is_starts_over(server, tmp_path):
    (tmp_path / "x.tar.gz.part").write_bytes(ARCHIVE + b"junk")
    server.breaks = 0
    download([address(server, "broken")], tmp_path / "x.tar.gz", pause=0)
    assert (tmp_path / "x.tar.gz").read_bytes() == ARCHIVE


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.breaks = 1
    download([address(server, "whole-only")], tmp_path / "x.tar.gz", pause=0)
    assert (tmp_path / "x.tar.gz").read_bytes() == ARCHIVE


@pytest.mark.parametrize("bad", ["cut", "damaged", "none", "busy", "other-range"])
def test_the_next_address_is_tried(server, tmp_path, capsys, bad):
    download([address(server, bad), address(server, "silent-length")], tmp_path / "x.tar.gz", pause=0)
    assert (tmp_path / "x.tar.gz").read_bytes() == ARCHIVE
    said = capsys.readouterr().err
    assert {"cut": "is not a complete archive", "damaged": "is not a complete archive", "none": "404", "busy": "503",
            "other-range": "another range"}[bad] in said


@pytest.mark.parametrize("length", ["", "many", "-1", "0x20", "1e6", "9" * 5000])
def test_a_length_that_is_not_a_number_of_bytes_is_one_line(server, tmp_path, capsys, length):
    download([address(server, f"length={length}"), address(server, "silent-length")], tmp_path / "x.tar.gz", pause=0)
    assert (tmp_path / "x.tar.gz").read_bytes() == ARCHIVE
    said = capsys.readouterr().err
    assert f"Content-Length is '{length[:40]}', wanted a number of bytes" in said and len(said) < 6000


def test_what_is_not_an_address_is_one_line(tmp_path):
    with pytest.raises(InputError, match="nowhere: not an address .*; try again later"):
        download(["nowhere"], tmp_path / "x.tar.gz", pause=0)


def test_the_digest_is_printed(server, tmp_path, capsys):
    download([address(server, "silent-length")], tmp_path / "x.tar.gz", pause=0)
    assert f"x.tar.gz: {len(ARCHIVE)} bytes, SHA-256 {hashlib.sha256(ARCHIVE).hexdigest()}\n" in capsys.readouterr().err


def test_without_any_good_address_one_line_says_so_and_nothing_is_left(server, tmp_path):
    command = [sys.executable, "-m", "utils.download", "--out", tmp_path / "x.tar.gz", address(server, "cut"),
               address(server, "none"), "http://127.0.0.1:9/refused"]
    code = "import sys, utils.download as d; d.BREAKS = 0; sys.argv = sys.argv[1:]; d.run_main(d.main)"
    done = subprocess.run([sys.executable, "-c", code, *map(str, command[2:])], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "no address serves x.tar.gz" in last and "404" in last and "refused" in last and "--url" in last
    assert not list(tmp_path.iterdir())


def test_unpacking_gives_the_one_folder_inside(tmp_path, monkeypatch):
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda self, path: None)  # no filter=, as in Debian's 3.11.2
    (tmp_path / "x.tar.gz").write_bytes(ARCHIVE)
    check_archive(tmp_path / "x.tar.gz")
    unpack(tmp_path / "x.tar.gz", tmp_path / "corpus")
    assert (tmp_path / "corpus/WAVE/a.WAV").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus", "x.tar.gz"]


def an_entry(name, kind=tarfile.REGTYPE, link=""):
    """A .tar.gz of a file, then one entry."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("in/first"), io.BytesIO())
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, link
        tar.addfile(entry, io.BytesIO())
    return out.getvalue()


@pytest.mark.parametrize(("name", "kind", "link"), [
    ("../evil", tarfile.REGTYPE, ""), ("in/../../evil", tarfile.REGTYPE, ""), ("{0}/evil", tarfile.REGTYPE, ""),
    ("../evil", tarfile.DIRTYPE, ""), ("in/link", tarfile.SYMTYPE, "../../evil"), ("in/link", tarfile.SYMTYPE, "first"),
    ("in/link", tarfile.LNKTYPE, "in/first"), ("in/device", tarfile.CHRTYPE, ""), ("in/pipe", tarfile.FIFOTYPE, "")])
def test_an_archive_that_reaches_out_is_refused(tmp_path, name, kind, link):
    (tmp_path / "x.tar.gz").write_bytes(an_entry(name.format(tmp_path), kind, link))
    with pytest.raises(InputError, match="cannot be unpacked .*is a link, a device or outside"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out/corpus")
    assert [path.name for path in tmp_path.rglob("*")] == ["x.tar.gz"]


def test_a_damaged_archive_is_deleted(tmp_path):
    for content in (ARCHIVE[:-5], ARCHIVE[:-4] + b"abcd", b"<html>login</html>"):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(InputError, match="not a complete archive"):
            check_archive(tmp_path / "x")
        assert not (tmp_path / "x").exists()
