"""One server process: a free port, a log, a wait until it answers, an orderly end."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from signal import Signals
from typing import Protocol, Self

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.processes import Account, end_with_parent

PORT_ATTEMPTS = 5
READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
LOG_TAIL_LINES = 12


class Service(Protocol):
    """What has to be known about a kind of server to run one."""

    name: str
    log: Path
    account: Account
    stop_signal: Signals

    def command(self, port: int) -> list[str]:
        """The command line that serves `port` of 127.0.0.1 in the foreground."""

    def is_answering(self, port: int) -> bool:
        """Whether a client that knows the password is let in."""

    def url(self, port: int) -> str:
        """Where clients find it, password included."""


class Server:
    """A `Service` that runs and answers."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self.port = port
        self.process = self._spawn()

    @classmethod
    def start(cls, service: Service) -> Self:
        """Start on a free port and wait until it answers. Raises ServiceError."""
        for _ in range(PORT_ATTEMPTS):
            service.log.unlink(missing_ok=True)
            server = cls(service, free_port())
            if server.became_ready():
                return server
            server.stop()
            if not server.lost_its_port():
                break
        raise ServiceError(f"{service.name} did not start. Its log ends with:\n{tail(service.log)}")

    @property
    def url(self) -> str:
        """Where clients find it, password included."""
        return self.service.url(self.port)

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.poll() is not None

    def became_ready(self) -> bool:
        """Wait for the first accepted client; False if the process ends or takes too long."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self.has_ended and time.monotonic() < deadline:
            if self.service.is_answering(self.port):
                return True
            time.sleep(0.02)
        return False

    def lost_its_port(self) -> bool:
        """Whether somebody else took the port between our look and the server's bind."""
        return "address already in use" in self.service.log.read_text(errors="replace").lower()

    def revive(self) -> None:
        """Start again on the same port if it was killed: clients only have to reconnect."""
        if self.has_ended:
            sys.stderr.write(f"{self.service.name} ended unexpectedly, starting it again\n")
            self.process = self._spawn()

    def stop(self) -> None:
        """End it as its service prefers; kill it when that takes too long."""
        if self.has_ended:
            return
        self.process.send_signal(self.service.stop_signal)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.service.log.open("ab") as log:
            return subprocess.Popen(
                self.service.command(self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(),
                preexec_fn=end_with_parent(self.service.stop_signal),  # noqa: PLW1509  we have one thread
                **self.service.account,
            )


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment() -> dict[str, str]:
    """Ours without libpq's settings, and with messages in the language we look for."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-LOG_TAIL_LINES:]) or "(nothing)"
