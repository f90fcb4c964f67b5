"""A real server process for the HTTP tests, and a client that sees bytes.

`python -m tests.autoforge.http_server uvicorn|daphne FD` serves the listening socket FD.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import django
import psutil

KINDS = ["uvicorn", "daphne"]
TIMEOUT_S = 30.0


@dataclass
class Server:
    """A running server; `token` keeps the sentinel files of one test apart from another's."""

    kind: str
    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path
    token: str = field(default_factory=lambda: uuid4().hex)

    def for_test(self) -> "Server":
        return Server(self.kind, self.process, self.port, self.folder)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)

    def url(self, path: str) -> str:
        return f"{path}{'&' if '?' in path else '?'}token={self.token}"

    def start(self, path: str, method: str = "GET") -> http.client.HTTPConnection:
        """A request whose answer is awaited later."""
        connection = self.connect()
        connection.request(method, self.url(path))
        return connection

    def ask(self, path: str, method: str = "GET", body: Any = None, **headers: str) -> "Reply":
        with closing(self.connect()) as connection:
            return ask(connection, self.url(path), method, body, **headers)

    def say(self, name: str) -> None:
        (self.folder / f"{self.token}-{name}").touch()

    def heard(self, name: str) -> None:
        """Wait until a view has noted `name`."""
        eventually((self.folder / f"{self.token}-{name}").exists)

    def has_heard(self, name: str) -> bool:
        return (self.folder / f"{self.token}-{name}").exists()

    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@dataclass
class Reply:
    """An answer that was read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    connection: http.client.HTTPConnection, url: str, method: str = "GET", body: Any = None, **headers: str
) -> Reply:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, url, body, names, encode_chunked=not isinstance(body, bytes | None))
    return read(connection)


def read(connection: http.client.HTTPConnection) -> Reply:
    response = connection.getresponse()
    return Reply(response.status, response.headers, response.read())


def read_until_closed(client: socket.socket) -> bytes:
    """All that still comes."""
    answer = b""
    try:
        while piece := client.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


def assert_problem(reply: Reply, status: int, code: str) -> None:
    """It is an error as every route answers it."""
    assert (reply.status, reply.headers["Content-Type"]) == (status, "application/problem+json")
    assert (reply.json()["status"], reply.json()["code"]) == (status, code)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@contextmanager
def serve(kind: str, folder: Path, **environment: str) -> Iterator[Server]:
    """A server process with the routes of `http_urls`, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.autoforge.http_server", kind, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env=os.environ
            | {"DJANGO_SETTINGS_MODULE": "tests.autoforge.http_settings", "HTTP_TEST_DIR": str(folder)}
            | {"AUTOFORGE_VAR_DIR": str(folder), "REDIS_URL": "", "AUTOFORGE_LOG_LEVEL": "WARNING"}
            | environment,
        )
        server = Server(kind, process, listener.getsockname()[1], folder)
    try:
        assert server.ask("/echo").status == 200
        yield server
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    from autoforge import processes

    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.autoforge.http_settings"
    django.setup()
    inherited = socket.socket(fileno=int(sys.argv[2]))
    {"uvicorn": processes.run_uvicorn, "daphne": processes.run_daphne}[sys.argv[1]](listener=inherited)
