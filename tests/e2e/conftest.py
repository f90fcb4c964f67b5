"""Whole installations as a user starts them: processes on free ports, in a directory of their own."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

BASE_DIR = Path(__file__).resolve().parents[2]
_STOP_TIMEOUT_S = 40


@dataclass
class Installation:
    """A started `manage.py` server: its address, key and what it has printed."""

    process: subprocess.Popen[str]
    port: int
    secret: str
    output: str
    var: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, decoded JSON) of an API call with the installation's own key."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else msgspec.json.encode(body),
            headers={"Authorization": f"Bearer {self.secret}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, msgspec.json.decode(response.read())
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def wait_for_run(self, run_id: str, *, timeout_s: float = 60) -> dict[str, Any]:
        """The run once it has ended."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            run = self.request("GET", f"/api/v1/runs/{run_id}")[1]
            if run["state"] not in ("queued", "running"):
                return run
            time.sleep(0.2)
        raise AssertionError(f"the run has not ended: {run}")

    def processes(self, words: str = "") -> list[psutil.Process]:
        """Its living processes with `words` in their command line, e.g. "process web"."""
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if words in " ".join(child.cmdline()) and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
        return found

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(_STOP_TIMEOUT_S)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_used: set[Path] = set()


@pytest.fixture(scope="session", autouse=True)
def _no_data_left() -> Iterator[None]:
    """PostgreSQL's account may not enter a test's directory: what it kept is elsewhere, and goes as well."""
    yield
    for var in _used:
        for link in filter(Path.is_symlink, var.rglob("postgres")):
            shutil.rmtree(link.resolve())


@contextmanager
def installed(var: Path, *arguments: str) -> Iterator[Installation]:
    _used.add(var)
    port = free_port()
    unset = ("DATABASE_URL", "REDIS_URL", "DEBUG", "SECRET_KEY", "ALLOWED_HOSTS")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"AUTOFORGE_VAR_DIR": str(var), "AUTOFORGE_ALLOW_PRIVATE_ENDPOINTS": "1"}
    process = subprocess.Popen(
        [sys.executable, "manage.py", *arguments, "--port", str(port)],
        cwd=BASE_DIR,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        output = _read_until_ready(process)
        secret = re.search(r"af_sk_\S+", output)
        assert secret, output
        yield Installation(process, port, secret.group(), output, var)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(_STOP_TIMEOUT_S)
        process.stdout.close()


def _read_until_ready(process: subprocess.Popen[str]) -> str:
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready "):
            return "".join(lines)
    raise AssertionError(f"it ended with {process.wait()} before it was ready: {''.join(lines)}")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`manage.py run_server`, for tests that leave it as they found it."""
    with installed(tmp_path_factory.mktemp("running") / "var", "run_server") as installation:
        yield installation


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The driver of a browser for all tests: starting one takes as long as several tests."""
    from tests.e2e import browser  # needs selenium

    with browser.started(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Any]:
    """`with install("run_server") as installation:`"""
    return lambda *arguments: installed(tmp_path / "var", *arguments)
