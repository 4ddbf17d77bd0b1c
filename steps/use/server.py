"""The server of utils/demo: the page's files and its questions, over HTTP, with limits.

A recording is the body of a request, without a name, and is held in memory while it is answered. Requests are refused
if they come from the page of another site (Origin), or under a name of this machine that another site may have chosen
(Host; DNS rebinding). Questions have a content type that makes browsers ask before another site's page may send it;
such a request is answered with a refusal.
"""

import asyncio
import ipaddress
import json
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steps.use.answers import Answers
from utils.errors import InputError

PAGE = Path(__file__).with_name("page")
FILES = {"/": "demo.html", "/demo.css": "demo.css", "/demo.js": "demo.js", "/drawing.js": "drawing.js",
         "/recorder.js": "recorder.js"}
AUDIO, JSON = "application/octet-stream", "application/json"  # what questions hold
BYTES = {AUDIO: 32 << 20, JSON: 1 << 20}  # of a question's body, at most
BODY_SECONDS = 60.0  # for a body to arrive
PER_MINUTE = 120     # questions
WAITING = 8          # questions at once
CONNECTIONS = 32     # at once
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
                               "connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
                               "frame-ancestors 'none'",
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()"}


class Guard:
    """Refuses requests of other sites, and adds HEADERS to every answer. name: by which this machine may be called."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if not self.is_ours(host):
            answer = refusal(403, f"the host {host!r:.60} is not served; open the page by an address, or name the host "
                                  "with --host")
        elif headers.get(b"origin", f"http://{host}") not in (f"http://{host}", f"https://{host}"):
            answer = refusal(403, "a request from the page of another site")
        else:
            answer = self.app
        await answer(scope, receive, send_with_headers)

    def is_ours(self, host: str) -> bool:
        """Whether a Host header is an address, which no other site can choose, or a name of this machine."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name.lower() in ("localhost", self.name.lower()):
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


class Limits:
    """Counts questions: at most PER_MINUTE, and WAITING at once."""

    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=PER_MINUTE)
        self.waiting = 0

    def __enter__(self) -> None:
        now = time.monotonic()
        if self.waiting >= WAITING or (len(self.times) == PER_MINUTE and now - self.times[0] < 60):
            raise HTTPException(429, f"more than {PER_MINUTE} requests per minute, or {WAITING} at once; wait")
        self.times.append(now)
        self.waiting += 1

    def __exit__(self, *_: object) -> None:
        self.waiting -= 1


async def body_of(request: Request, kind: str) -> bytes:
    """Return a request's body; raises HTTPException if it is of another type, too large, or too slow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise HTTPException(415, f"wanted the content type {kind}")
    most = BYTES[kind]
    too_large = HTTPException(413, f"more than {most >> 20} MB; send a shorter recording")
    claimed = request.headers.get("content-length", "0")
    if not claimed.isdigit() or int(claimed) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise too_large
    except TimeoutError as error:
        raise HTTPException(408, f"the request took longer than {BODY_SECONDS:g} s to arrive") from error
    return bytes(body)


def keys_of(body: bytes, *keys: str) -> list[Any]:
    """Return values of a JSON object; raises InputError if it is none, or a key is missing."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError("not JSON") from error
    if not isinstance(found, dict) or any(key not in found for key in keys):
        raise InputError(f"wanted an object with {', '.join(keys)}")
    return [found[key] for key in keys]


def refusal(status: int, message: str) -> JSONResponse:
    """Return an answer with one clear line; it ends the connection, on which the rest of a body may still arrive."""
    return JSONResponse({"error": " ".join(message.split())}, status, {"connection": "close"})


def make_app(answers: Answers, name: str) -> Guard:
    """Return the application; name: by which this machine may be called, besides addresses and localhost."""
    limits = Limits()

    def question(path: str, kind: str, reply: Callable[[bytes], dict[str, Any]]) -> Route:
        async def endpoint(request: Request) -> Response:
            with limits:
                body = await body_of(request, kind)
                return JSONResponse(await run_in_threadpool(reply, body))

        return Route(path, endpoint, methods=["POST"])

    async def about(_: Request) -> Response:
        return JSONResponse({"bytes": BYTES[AUDIO], **await run_in_threadpool(answers.about)})

    files = [Route(path, serve(PAGE / file), methods=["GET"]) for path, file in FILES.items()]
    return Guard(Starlette(routes=[
        *files, Route("/about", about, methods=["GET"]),
        question("/listen", AUDIO, answers.listen),
        question("/verify", JSON, lambda body: answers.verify(*keys_of(body, "first", "second"))),
        question("/enrol", JSON, lambda body: answers.enrol(*keys_of(body, "name", "replace", "recordings"))),
        question("/identify", JSON, lambda body: answers.identify(*keys_of(body, "embedding", "prior")))],
        exception_handlers={InputError: on_input_error, HTTPException: on_http_error, ClientDisconnect: on_http_error,
                            Exception: on_failure}), name)


def make_server(answers: Answers, name: str) -> uvicorn.Server:
    """Return the server, to be run on a socket; name: see make_app."""
    return uvicorn.Server(uvicorn.Config(
        make_app(answers, name), log_level="critical", access_log=False, lifespan="off", ws="none", http="h11",
        loop="asyncio", limit_concurrency=CONNECTIONS, timeout_keep_alive=5, timeout_graceful_shutdown=2,
        server_header=False))


def serve(path: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers with a file of the page."""
    async def endpoint(_: Request) -> Response:
        return FileResponse(path)

    return endpoint


async def on_input_error(_: Request, error: Exception) -> Response:
    return refusal(400, str(error))


async def on_http_error(_: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return refusal(400, "the request ended early")
    return refusal(error.status_code, error.detail)


async def on_failure(request: Request, error: Exception) -> Response:
    print(f"utils/demo: error: {request.url.path}: {error!r}", file=sys.stderr)
    return refusal(500, "the server failed at this; its terminal says why")
