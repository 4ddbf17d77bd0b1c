"""Download an archive, resuming broken transfers, from the first of several addresses that serves it whole; unpack it.

The received part is kept in <archive>.part: after a broken connection, or in the next run, the download continues from
there (HTTP ranges; a server without them starts over). An archive is complete if it has the announced length and its
own checksums hold; otherwise it is deleted and fetched from the next address. Redirects are followed. The size and
SHA-256 of the archive are printed, so that users can compare their copies.
e.g.: python3 -m utils.download --out x.tar.gz --unpack x https://example.org/x.tar.gz https://mirror.org/x.tar.gz
"""

import argparse
import gzip
import hashlib
import http.client
import os
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from utils.errors import InputError, run_main
from utils.progress import progress
from utils.space import require_space

BLOCK = 1 << 20   # bytes read at a time
TIMEOUT = 60      # seconds without a byte
BREAKS = 5        # broken connections in a row, without a byte received, before trying the next address
FAULTS = (OSError, http.client.HTTPException, EOFError, zlib.error, tarfile.TarError)  # errors of networks and archives


def download(urls: Sequence[str], out: Path, pause: float = 2.0) -> None:
    """Fetch `out`, a .tar.gz, from the first of `urls` that serves it complete; raises InputError if none does.

    pause: seconds before reconnecting after a broken connection, doubled each time.
    """
    if out.is_file():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f"{out.name}.part")
    faults = []
    for url in urls:
        try:
            fetch(url, part, pause)
            check_archive(part)
        except InputError as error:
            faults.append(str(error))
            print(f"warning: {error}", file=sys.stderr)
            continue
        with part.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        print(f"{out.name}: {part.stat().st_size} bytes, SHA-256 {digest}", file=sys.stderr)
        os.replace(part, out)
        return
    raise InputError(f"no address serves {out.name}: {'; '.join(faults)}; try again later, name another with --url, or "
                     "get the file by other means")


def fetch(url: str, part: Path, pause: float) -> None:
    """Download `part` up to the length that the server announces, reconnecting as often as needed."""
    broken = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            if receive(url, part, before):
                return
            fault = "connection broken"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # the part is longer than the file, or complete
                if error.headers.get("Content-Range", "") == f"bytes */{before}":
                    return
                part.unlink()
                continue
            fault = f"HTTP {error.code} {error.reason}"
            broken = BREAKS if error.code < 500 else broken
        except (OSError, http.client.HTTPException) as error:
            fault = str(getattr(error, "reason", error)) or type(error).__name__
        except ValueError as error:
            raise InputError(f"{url}: not an address ({error})") from error
        arrived = part.stat().st_size if part.is_file() else 0
        broken = 1 if arrived > before else broken + 1
        if broken > BREAKS:
            raise InputError(f"{url}: {fault}, {arrived} bytes so far")
        print(f"{url}: {fault} after {arrived} bytes; resuming from there", file=sys.stderr)
        time.sleep(pause * 2 ** (broken - 1))


def receive(url: str, part: Path, have: int) -> bool:
    """Append the bytes of one connection to `part`; return whether it now has the announced length."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        start, total = extent(response, have)
        if total is not None:
            require_space(part.parent, total - start, part.name)
        with open(part, "ab") as stream:
            stream.truncate(start)
            count = -(-((total or 0) - start) // BLOCK)
            for block in progress(blocks(response), count, part.name.removesuffix(".part"), "MB"):
                stream.write(block)
        return total is None or part.stat().st_size == total


def extent(response: Any, asked: int) -> tuple[int, int | None]:
    """Return the first byte's position in a response, and the length of the whole file (None: not announced)."""
    if response.status == 206:
        found = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]{1,18})", response.headers.get("Content-Range", ""))
        if not found or int(found[1]) != asked:
            raise InputError(f"{response.url}: answers with another range than requested")
        return asked, int(found[2])
    length = response.headers.get("Content-Length")  # 200: the whole file, from its start
    if length is not None and not re.fullmatch("[0-9]{1,18}", length):
        raise InputError(f"{response.url}: Content-Length is {length[:40]!r}, wanted a number of bytes")
    return 0, None if length is None else int(length)


def blocks(response: Any) -> Iterator[bytes]:
    """Yield the received bytes in blocks, until the end or until the connection breaks."""
    while True:
        try:
            block = response.read(BLOCK)
        except http.client.IncompleteRead as error:
            block = error.partial
        if not block:
            return
        yield block


def check_archive(path: Path) -> None:
    """Read a .tar.gz to its end, including the checksum; if it is damaged, deletes it and raises InputError."""
    try:
        with gzip.open(path) as stream:
            while stream.read(BLOCK):
                pass
        with tarfile.open(path) as archive:
            archive.next()
    except FAULTS as error:
        size = path.stat().st_size
        path.unlink()
        raise InputError(f"{path.name} of {size} bytes is not a complete archive ({error}); it was deleted") from error


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz into `folder`, which appears complete or not at all; an existing folder is left unchanged.

    If the archive holds a single folder, that folder's contents are unpacked. Nothing is written outside `folder`.
    """
    if folder.is_dir():
        return
    aside = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with tarfile.open(archive) as tar:
            members = [harmless(member) for member in tar]
            require_space(folder, sum(member.size for member in members), folder.name)
            for member in members:
                target = aside / member.name
                (target if member.isdir() else target.parent).mkdir(parents=True, exist_ok=True)
                if member.isfile():
                    with target.open("wb") as stream:
                        shutil.copyfileobj(tar.extractfile(member), stream, BLOCK)
        inside = list(aside.iterdir())
        os.replace(inside[0] if len(inside) == 1 and inside[0].is_dir() else aside, folder)
    except FAULTS as error:
        raise InputError(f"{archive}: cannot be unpacked ({error}); delete it and run again") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def harmless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member that is a plain file or folder below the archive's root; raises TarError for others.

    Python's own filter for this is missing in 3.11.2, the version in Debian 12.
    """
    path = PurePosixPath(member.name)
    if not (member.isfile() or member.isdir()) or path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise tarfile.TarError(f"{member.name!r} is a link, a device or outside the archive's folder")
    return member


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("urls", nargs="+", help="addresses of the same .tar.gz, tried in turn")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--unpack", type=Path, metavar="DIR", help="folder to unpack it into")
    arguments = parser.parse_args()
    download(arguments.urls, arguments.out)
    if arguments.unpack:
        unpack(arguments.out, arguments.unpack)


if __name__ == "__main__":
    run_main(main)
